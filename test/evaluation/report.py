# SPDX-License-Identifier: MIT
"""The report of make evaluation: CSV, LaTeX, SVG, one HTML page that needs no other file, and a README that says how each is made."""

import csv
import html
import io
import os
import re

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  pylint: disable=wrong-import-position

matplotlib.rcParams.update({"svg.hashsalt": "hyperps", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

COLOURS = ("#3b6ea5", "#d08c34", "#5a8f5a", "#9a5b8f")
# Beside each other: our guest's figure, and what KVM's has.
GUEST = {"cpuid": "CPUID", "hypercall": "hypercall", "out_user": "OUT, to user space and back", "mmio_user": "MMIO read, to user space and back",
         "first_touch_4k": "first touch of a 4 KiB page", "start_64m": "start with 64 MiB"}
GUEST_COLUMNS = (("HyperPS guest", "monitor", "guest"), ("KVM, natively", "kvm-native", "kvm"), ("KVM under the monitor", "kvm-monitor", "kvm"))
# How the figures whose names match are made; the first one counts.
HOW = (
    (r"boot", "ticks from LoadImage to the first line of `init`, by the harness (test/evaluation/machines.py)"),
    (r"workload\.(cpuid|other)", "VM exits by the monitor's own counters while the workload's parts run"),
    (r"workload\.", "`test/guestfs/workload.c` on CPU 0: a part's operations in pieces, one sample each"),
    (r"gate\.|map\.|sync", "`test/modules/vm_bench.c`, `gate_probe.c`: in the host's kernel, one value each"),
    (r"host\.", "`hpsctl bench`: 100 CPUIDs for each of 100 samples, in user space of the host"),
    (r"call\.(gate|vmcall)", "`hpsctl bench`: an ioctl of /dev/hyperps that makes one call, VM_DECLARE of what is declared, with the gate on and off"),
    (r"call\.", "`hpsctl bench`: reading 257 pieces of the monitor's log less reading one, divided by 256; hyperps.ko's copy is in it"),
    (r"vm\.", "`hpsctl bench`: ioctl of /dev/hyperps, Linux's part and VM_SYNC included"),
    (r"(guest|kvm)\.start", "`hpsctl bench`: from the first ioctl to the first exit of a guest that has all its RAM"),
    (r"(guest|kvm)\.", "`hpsctl bench`: the guest reads the time-stamp counter around 100 operations (64 touches) and reports by a port"),
)


def how(name):
    """How a figure is made."""
    return next((text for pattern, text in HOW if re.match(pattern, name)), "")


def number(value):
    """For people."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def with_interval(figure):
    """A median and its interval."""
    if not figure:
        return "–"
    text = number(figure["median"])
    return text if figure["low"] is None or figure["low"] == figure["high"] else f"{text} [{number(figure['low'])}, {number(figure['high'])}]"


class Table:
    """Rows for HTML, CSV and LaTeX. The first column is text, the others are numbers unless `words`."""

    def __init__(self, name, title, head, rows, note="", words=False):
        self.name, self.title, self.head, self.rows, self.note, self.words = name, title, head, rows, note, words

    def html(self):
        """With classes where a cell is a verdict."""
        if not self.rows:
            return f"<h2>{html.escape(self.title)}</h2><p class=none>Nothing was measured.</p>"
        head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in self.head)
        body = "".join("<tr>" + "".join(f"<td{verdict_class(cell)}>{html.escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in self.rows)
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        kind = " class=words" if self.words else ""
        return f"<h2>{html.escape(self.title)}</h2>{note}<div class=wide><table{kind}><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"

    def latex(self):
        """A tabular for booktabs."""
        columns = "l" * len(self.head) if self.words else "l" + "r" * (len(self.head) - 1)
        lines = [" & ".join(map(latex_text, row)) + r" \\" for row in [self.head, *self.rows]]
        return "\n".join([rf"% {self.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule",
                          r"\end{tabular}", ""])

    def csv(self):
        """As it is shown."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.head, *self.rows])
        return out.getvalue()


def verdict_class(cell):
    """The class of a verdict's cell."""
    kind = {"holds": "good", "refused": "good", "does not hold": "bad", "NOT REFUSED": "bad", "control failed": "bad", "not checked": "open",
            "aim, not reached": "open"}.get(cell)
    return f" class={kind}" if kind else ""


def latex_text(cell):
    """Text without LaTeX's own characters."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "×": r"$\times$", "→": r"$\to$"}
    return "".join(special.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in str(cell))


def figure_of(evaluation, configuration, name):
    """A figure, or None."""
    return evaluation["configurations"].get(configuration, {}).get("figures", {}).get(name)


def change(before, after):
    """In per cent."""
    if not before or not after or not before["median"]:
        return "–"
    return f"{(after['median'] / before['median'] - 1) * 100:+.2f} %"


def workload_table(evaluation):
    """The same workload natively and under the monitor."""
    rows = []
    for name in ["boot"] + sorted({name for key in ("native", "monitor") for name in evaluation["configurations"].get(key, {}).get("figures", {})
                                   if name.startswith("workload.")}):
        native, monitor = (figure_of(evaluation, key, name) for key in ("native", "monitor"))
        if native and monitor:
            rows.append([name, with_interval(native), with_interval(monitor), change(native, monitor)])
    return Table("workload", "The host's workload", ["operation", "native", "monitor", "change"], rows,
                 "Ticks for one operation: the median, and in brackets where it lies with 95 % confidence.")


def guest_table(evaluation):
    """A guest's exits."""
    rows = []
    for name, text in GUEST.items():
        figures = [figure_of(evaluation, configuration, f"{family}.{name}") for _, configuration, family in GUEST_COLUMNS]
        if any(figures):
            ratio = f"{figures[2]['median'] / figures[1]['median']:.1f} ×" if figures[1] and figures[2] else "–"
            rows.append([text, *map(with_interval, figures), ratio])
    return Table("guests", "A guest's exits", ["exit", *(title for title, *_ in GUEST_COLUMNS), "KVM under the monitor / natively"], rows,
                 "The same guest in three VMs. The first touch is not quite the same thing: KVM finds the page present on the host's side, hyperps.ko "
                 "has to fetch and clear it.")


def operation_table(evaluation):
    """All that the monitor alone offers."""
    rows = [[name, with_interval(figure), figure["unit"], len(figure["samples"]), figure.get("text") or how(name)]
            for name, figure in evaluation["configurations"].get("monitor", {}).get("figures", {}).items()
            if re.match(r"(call|gate|map|sync|vm|host)\b", name) and ".scale." not in name]
    return Table("operations", "Calls, memory and VMs", ["figure", "median [95 %]", "unit", "samples", "what"], rows, words=True)


def other_tables(evaluation):
    """Configurations that were added: other machines."""
    for name, result in evaluation["configurations"].items():
        if name not in ("native", "monitor", "kvm-native", "kvm-monitor"):
            yield Table(f"machine-{name}", f"Another machine: {name}", ["figure", "median [95 %]", "unit", "samples", "what"],
                        [[key, with_interval(figure), figure["unit"], len(figure["samples"]), figure.get("text", "")] for key, figure in result["figures"].items()],
                        "; ".join(f"{key}: {result['environment'][key]}" for key in ("cpu", "kernel", "monitor", "hypervisor", "date") if key in result["environment"]),
                        words=True)


def trusted_table(evaluation):
    """Lines and bytes."""
    trusted = evaluation["trusted"]
    rows = [[f"{folder}/", entry["files"], entry["lines"], entry["cloc"]] for folder, entry in trusted["folders"].items()]
    rows.append(["all", trusted["files"], trusted["lines"], trusted["cloc"]])
    sizes = "; ".join(f"{name}: " + ", ".join(f"{section} {size:,}" for section, size in sections.items()) for name, sections in trusted["bytes"].items())
    return Table("trusted", "What must be trusted", ["folder", "files", "lines of code", "by cloc"],
                 rows, f"C, assembly and headers that run in VMX root or in the monitor view. Bytes of sections that are loaded: {sizes or 'not built'}.")


def attack_table(evaluation):
    """Attack by platform, CPUs and gate."""
    runs = sorted({(entry["platform"], entry["cpus"], entry["gate"]) for entry in evaluation["attacks"]})
    told = {(entry["name"], entry["platform"], entry["cpus"], entry["gate"]): entry for entry in evaluation["attacks"]}

    def cell(name, run):
        entry = told.get((name, *run))
        if not entry:
            return "·"
        return "refused" if entry["refused"] and entry["control"] else "control failed" if not entry["control"] else "NOT REFUSED"

    rows = [[name, *(cell(name[3:], run) for run in runs)] for name in evaluation["attack_names"]] if runs else []
    return Table("attacks", "Attacks by a hostile kernel", ["attack", *(f"{platform}, {cpus} CPU, {gate}" for platform, cpus, gate in runs)], rows,
                 "From build/attacks*.json, which make test and make test-long write. A dot: not tried in that run.", words=True)


def claim_verdict(claim):
    """The verdict; an aim that is said not to be reached is none that fails."""
    return "aim, not reached" if claim.get("aim") and claim["verdict"] == "does not hold" else claim["verdict"]


def claim_table(evaluation):
    """What is claimed, and whether it holds."""
    return Table("claims", "What this project says of itself", ["verdict", "claim", "expected", "seen", "said in"],
                 [[claim_verdict(claim), claim["text"], claim["expected"], claim["seen"].split("\n")[-1][:100], claim["where"]] for claim in evaluation["claims"]],
                 "docs/claims.toml has the commands.", words=True)


def environment_table(evaluation):
    """Where it was measured."""
    rows = [["all", key, value] for key, value in evaluation["environment"].items()]
    for name, result in evaluation["configurations"].items():
        rows += [[name, key, value] for key, value in result["environment"].items() if evaluation["environment"].get(key) != value]
    return Table("environment", "Where it was measured", ["configuration", "what", "value"], rows, words=True)


def absent_table(evaluation):
    """What is missing."""
    rows = [[name, "all", why] for name, why in evaluation["absent"].items()]
    for name, result in evaluation["configurations"].items():
        rows += [[name, figure, why] for figure, why in result.get("not_measured", {}).items()]
    return Table("absent", "What was not measured, and why", ["configuration", "figure", "why"], rows, words=True)


def save(folder, name, plot):
    """As SVG; the same data give the same bytes. Returns the element for the page."""
    path = os.path.join(folder, f"{name}.svg")
    plot.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(plot)
    with open(path, encoding="utf-8") as file:
        text = file.read()[len("<?xml"):]
    # The page has several: names of one must not hide those of another.
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg"):])
    return f"<figure>{text}</figure>"


def plot_workload(folder, evaluation):
    """Change under the monitor, with the intervals' ends as the worst cases."""
    names = [row[0] for row in workload_table(evaluation).rows]
    if not names:
        return ""
    plot, axes = pyplot.subplots(figsize=(7, 0.5 + 0.4 * len(names)))
    for at, name in enumerate(names):
        native, monitor = (figure_of(evaluation, key, name) for key in ("native", "monitor"))
        middle = (monitor["median"] / native["median"] - 1) * 100
        ends = [(monitor[first] / native[second] - 1) * 100 if monitor["low"] is not None and native["low"] is not None else middle
                for first, second in (("low", "high"), ("high", "low"))]
        axes.barh(at, middle, color=COLOURS[0], height=0.6)
        axes.plot(ends, [at, at], color="black", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("change under the monitor, per cent; line: from the intervals' ends")
    return save(folder, "workload", plot)


def plot_guests(folder, evaluation):
    """Exits, on a logarithmic scale."""
    names = [name for name in GUEST if name != "start_64m" and any(figure_of(evaluation, configuration, f"{family}.{name}")
                                                                   for _, configuration, family in GUEST_COLUMNS)]
    if not names:
        return ""
    plot, axes = pyplot.subplots(figsize=(7, 3))
    for at, (title, configuration, family) in enumerate(GUEST_COLUMNS):
        figures = [figure_of(evaluation, configuration, f"{family}.{name}") for name in names]
        places = [place + (at - 1) * 0.27 for place, figure in enumerate(figures) if figure]
        if not places:
            continue
        axes.bar(places, [figure["median"] for figure in figures if figure], 0.25, label=title, color=COLOURS[at])
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [GUEST[name].replace(", to user space and back", ",\nuser space").replace(" of a", "\nof a") for name in names], fontsize=8)
    axes.set_ylabel("ticks")
    axes.legend(frameon=False)
    return save(folder, "guests", plot)


def plot_scale(folder, evaluation):
    """Cost of a page by the size of a VM."""
    plot, axes = pyplot.subplots(figsize=(7, 2.6))
    drawn = False
    for colour, (prefix, title) in zip(COLOURS, (("map.scale.", "4 KiB pages"), ("map.scale.large.", "2 MiB pages"))):
        points = sorted((int(found.group(1)), figure["median"]) for name, figure in evaluation["configurations"].get("monitor", {}).get("figures", {}).items()
                        if (found := re.fullmatch(re.escape(prefix) + r"(\d+)m", name)))
        if points:
            axes.plot(*zip(*points), marker="o", label=title, color=colour)
            drawn = True
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("MiB mapped")
    axes.set_ylabel("ticks for each 4 KiB")
    if not drawn:
        pyplot.close(plot)
        return ""
    axes.legend(frameon=False)
    return save(folder, "scale", plot)


def plot_trusted(folder, evaluation):
    """Lines by folder."""
    folders = evaluation["trusted"]["folders"]
    plot, axes = pyplot.subplots(figsize=(7, 2.6))
    for at, key in enumerate(("lines", "cloc")):
        axes.bar([place + at * 0.4 for place in range(len(folders))], [entry[key] for entry in folders.values()], 0.38, color=COLOURS[at],
                 label={"lines": "make tcb-lines", "cloc": "cloc"}[key])
    axes.set_xticks([place + 0.2 for place in range(len(folders))], [f"{folder}/" for folder in folders])
    axes.set_ylabel("lines of code")
    axes.legend(frameon=False)
    return save(folder, "trusted", plot)


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { max-width: 46rem; } .lead { color: #777; margin-top: .2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words th, .words td { text-align: left; overflow-wrap: anywhere; } tbody tr:hover { background: var(--soft); }
.good { color: #2a8a3e; } .bad { color: #c62828; font-weight: bold; } .open { color: #b26a00; } .none { color: #777; }
figure { background: #fff; border-radius: 6px; margin: 1rem 0; padding: .5rem; } figure svg { max-width: 100%; height: auto; }
.sum { display: flex; gap: 1rem; flex-wrap: wrap; } .sum div { border: 1px solid var(--line); border-radius: 6px; padding: .5rem 1rem; } .sum b { font-size: 1.4rem; display: block; }
"""


def summary(evaluation):
    """What a reader wants first."""
    verdicts = [claim_verdict(claim) for claim in evaluation["claims"]]
    attacks = evaluation["attacks"]
    refused = sum(entry["refused"] and entry["control"] for entry in attacks)
    boxes = [(f"{verdicts.count('holds')} of {len(verdicts)}", f"claims hold; {verdicts.count('does not hold')} do not, "
              f"{len(verdicts) - verdicts.count('holds') - verdicts.count('does not hold')} were not checked, or are aims"),
             (f"{evaluation['trusted']['lines']:,}", "trusted lines of code"), (f"{refused} of {len(attacks)}", "attack runs refused"),
             (str(len(evaluation["configurations"])), "configurations measured")]
    return "<div class=sum>" + "".join(f"<div><b>{html.escape(big)}</b>{html.escape(small)}</div>" for big, small in boxes) + "</div>"


def readme(tables, plots):
    """How each file is made."""
    rules = "\n".join(f"| `{pattern.replace(chr(92), '').replace('|', ' or ')}` | {text} |" for pattern, text in HOW)
    files = "\n".join(f"| `{table.name}.csv`, `{table.name}.tex` | {table.title} |" for table in tables)
    return f"""# What is here

`make evaluation` made this. `report.html` is for reading and needs no other file. `evaluation.json` has everything, with all samples; `results/` what each
configuration gave: a file that is removed there is measured again. `samples.csv` has each sample in a line. The LaTeX tables want the package booktabs.

| file | what |
|---|---|
{files}
| {", ".join(f"`{name}.svg`" for name in plots)} | plots of these |

| figures whose names begin with | how they are made |
|---|---|
{rules}

A figure is the median of its samples; the interval is where the median lies with 95 % confidence, by the percentile bootstrap (SciPy). Figures of one
sample have none. **Ticks are instructions of an emulator**: the length of the software's path, not the cost on hardware, where an exit takes far longer than
its instructions. Attacks come from build/attacks*.json, claims from docs/claims.toml, lines from make tcb-lines and cloc.

`test/evaluation/compare.py A B` says what changed between two such folders beyond noise.
"""


def write(folder, evaluation):
    """All of it."""
    tables = [claim_table(evaluation), workload_table(evaluation), operation_table(evaluation), guest_table(evaluation), *other_tables(evaluation),
              trusted_table(evaluation), attack_table(evaluation), absent_table(evaluation), environment_table(evaluation)]
    plots = {"workload": plot_workload(folder, evaluation), "operations": plot_scale(folder, evaluation), "guests": plot_guests(folder, evaluation),
             "trusted": plot_trusted(folder, evaluation)}
    body = "\n".join(table.html() + plots.get(table.name, "") for table in tables)
    ticks = any(figure["unit"] == "ticks" for result in evaluation["configurations"].values() for figure in result["figures"].values())
    warning = "<p><b>A tick is one instruction of an emulator.</b> Ticks are the length of the software's path. They are not what anything costs on " \
        "hardware, where a VM exit takes far longer than its instructions.</p>" if ticks else ""
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>HyperPS: evaluation</title><style>{STYLE}</style></head><body>
<h1>HyperPS: evaluation</h1><p class=lead>{html.escape(evaluation["environment"]["commit"])}, {html.escape(evaluation["date"])}</p>
{summary(evaluation)}{warning}
{body}
</body></html>
"""
    samples = Table("samples", "", ["configuration", "figure", "unit", "sample"],
                    [[name, key, figure["unit"], sample] for name, result in evaluation["configurations"].items()
                     for key, figure in result["figures"].items() for sample in figure["samples"]])
    texts = {"report.html": page, "samples.csv": samples.csv(), "README.md": readme(tables, ("workload", "scale", "guests", "trusted")),
             **{f"{table.name}.csv": table.csv() for table in tables}, **{f"{table.name}.tex": table.latex() for table in tables}}
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
