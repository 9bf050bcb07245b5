#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What make evaluation writes, of a made-up evaluation: each file, nothing from elsewhere, what went wrong is shown; what is kept is not
measured again; a result of another machine is taken. As TAP."""

import copy
import csv
import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE)]
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

try:
    import evaluate
    import machines
    import report
except (ImportError, SystemExit) as error:
    print(f"1..0 # SKIP {error}")
    sys.exit()


def figure(*samples, unit="ticks"):
    """As collect() has them."""
    return {"unit": unit, "samples": list(samples), "median": sorted(samples)[len(samples) // 2], "low": min(samples) if len(samples) > 2 else None,
            "high": max(samples) if len(samples) > 2 else None}


EVALUATION = {
    "date": "2026-01-01T00:00:00+00:00", "environment": {"commit": "abc", "emulator": "Bochs <3>"}, "absent": {"protected": "none yet"},
    "configurations": {
        "native": {"environment": {"kernel": "6.1"}, "figures": {"boot": figure(1000), "workload.fork": figure(100, 101, 102)}, "not_measured": {}},
        "monitor": {"environment": {"kernel": "6.1"}, "not_measured": {"vm.map": "no call & no loop"},
                    "figures": {"boot": figure(1010), "workload.fork": figure(110, 111, 112), "gate.vmfunc": figure(76), "guest.cpuid": figure(200, 210, 220),
                                "map.scale.8m": figure(20), "map.scale.512m": figure(17), "map.scale.large.8m": figure(11)}},
        "kvm-native": {"environment": {}, "figures": {"kvm.cpuid": figure(1000, 1001, 1002)}, "not_measured": {}},
        "desk": {"environment": {"cpu": "a CPU"}, "figures": {"host.cpuid": figure(1200, 1201, 1202, unit="cycles")}, "not_measured": {}}},
    "trusted": {"folders": {"mm": {"lines": 10, "cloc": 11, "files": 1}}, "lines": 10, "cloc": 11, "files": 1, "bytes": {"hyperps.efi": {".text": 4096}}},
    "attack_names": ["01-monitor-memory", "02-remap"],
    "attacks": [{"name": "monitor-memory", "cpus": 1, "gate": "vmcall", "platform": "Bochs", "control": True, "refused": True},
                {"name": "remap", "cpus": 1, "gate": "vmcall", "platform": "Bochs", "control": True, "refused": False}],
    "claims": [{"text": "It holds_it.", "where": "README.md", "expected": "5 ± 1 %", "verdict": "holds", "seen": "5"},
               {"text": "It does not.", "where": "README.md", "expected": "5", "verdict": "does not hold", "seen": "6"},
               {"text": "An aim.", "where": "README.md", "expected": "5", "verdict": "does not hold", "seen": "6", "aim": True}],
}


class Page(html.parser.HTMLParser):
    """Whether each element that is begun is ended, and what comes from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.foreign = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)
        self.foreign += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value and not value.startswith("#")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def read(folder, name):
    """A file's text."""
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()


def test_report(folder):
    """The files."""
    report.write(folder, copy.deepcopy(EVALUATION))
    names = set(os.listdir(folder))
    tables = {"claims", "workload", "operations", "guests", "machine-desk", "trusted", "attacks", "absent", "environment"}
    ok(names == {f"{name}.{kind}" for name in tables for kind in ("csv", "tex")} | {"report.html", "README.md", "samples.csv"} |
       {f"{name}.svg" for name in ("workload", "scale", "guests", "trusted")}, f"all files are there: {len(names)}")
    text, page = read(folder, "report.html"), Page()
    page.feed(text)
    page.close()
    ok(not page.wrong and not page.open, "each element of the page is ended")
    ok(not page.foreign and not re.search(r"url\((?!#)|@import|<script", text), "it takes nothing from elsewhere, and runs nothing")
    ids = re.findall(r' id="([^"]+)"', text)
    ok(len(ids) == len(set(ids)) and set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids), "its pictures' names are their own")
    ok("<td class=bad>NOT REFUSED" in text and "<td class=good>refused" in text, "an attack that got through is told from one that did not")
    ok(text.count("<td class=bad>does not hold") == 1 and "<td class=open>aim, not reached" in text, "a claim that fails is told from an aim")
    ok("Bochs &lt;3&gt;" in text and "no call &amp; no loop" in text and "none yet" in text, "text is text; what was not measured stands there")
    ok("A tick is one instruction of an emulator" in text, "it warns of ticks")
    cycles = copy.deepcopy(EVALUATION)
    cycles["configurations"] = {"desk": cycles["configurations"]["desk"]}
    with tempfile.TemporaryDirectory() as other:
        report.write(other, cycles)
        ok("A tick is one instruction" not in read(other, "report.html"), "and not where there are only cycles")
    rows = {row[0]: row for row in csv.reader(read(folder, "workload.csv").splitlines())}
    ok(rows["workload.fork"] == ["workload.fork", "101 [100, 102]", "111 [110, 112]", "+9.90 %"] and rows["boot"][3] == "+1.00 %", "the workload's table")
    latex = read(folder, "claims.tex")
    ok(r"holds\_it" in latex and r"5 $\pm$ 1 \%" in latex and all(line.count(" & ") == 4 for line in latex.splitlines() if line.endswith(r"\\")),
       "LaTeX: special characters, and as many columns in each row")
    ok(len(read(folder, "samples.csv").splitlines()) == 1 + 1 + 3 + 1 + 3 + 1 + 3 + 3 + 3 + 3, "each sample has its line")
    before = read(folder, "workload.svg")
    report.write(folder, copy.deepcopy(EVALUATION))
    ok(read(folder, "workload.svg") == before, "the same figures give the same picture")


def test_resume(folder):
    """What is kept, what is measured, what fails."""
    measured = []

    def fake(name):
        measured.append(name)
        if name == "monitor":
            raise machines.MachineError("it did not boot\nand more")
        return {"figures": {"boot": {"unit": "ticks", "samples": [1, 2, 3]}}, "not_measured": {}, "environment": {}}

    real, machines.measure = machines.measure, fake
    quiet, evaluate.say = evaluate.say, lambda text: None
    try:
        failed = [evaluate.measure(folder, ["native", "monitor"], again) for again in (False, False, True)]
    finally:
        machines.measure, evaluate.say = real, quiet
    ok(measured == ["native", "monitor", "monitor", "native", "monitor"], "a result is kept, a failure tried again, and --again measures all")
    ok(failed == [{"monitor": "it did not boot"}] * 3, "what failed is named, in a line")
    configurations, absent = evaluate.collect(folder, failed[-1])
    ok(configurations["native"]["figures"]["boot"]["median"] == 2 and absent["monitor"] == "it did not boot" and "protected" in absent,
       "the results have medians; what is missing, its reason")


def test_command(folder):
    """From the command line."""
    command = [os.path.join(HERE, "evaluate.py"), "--report", "--output", folder]
    result = {"unit": "cycles", "environment": {"cpu": "x"}, "figures": {"host.cpuid": {"unit": "cycles", "samples": [5, 6, 7]}}, "not_measured": {}}
    path = os.path.join(folder, "bench.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file)
    for words in [f"native={path}"], ["desk=/nothing"], ["desk"], [f"../x={path}"]:
        done = subprocess.run([*command, "--add", *words], capture_output=True, text=True, check=False)
        if not ok(done.returncode == 2, f"--add {words[0]} is wrong usage"):
            note(done.stderr)


def main():
    """See the module's text."""
    for test in test_report, test_resume, test_command:
        with tempfile.TemporaryDirectory() as folder:
            test(folder)
    finish()


if __name__ == "__main__":
    main()
