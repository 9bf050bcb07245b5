#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""make evaluation: measures each configuration in the emulator, and writes the report, its tables and plots to build/evaluation/.

Each configuration's result stays in results/: what was interrupted goes on with what is missing. --again measures anew.
A result of another machine, as `hpsctl bench --json` prints it, becomes a configuration of its own with --add NAME=FILE."""

import argparse
import datetime
import json
import os
import sys
import threading
import time

try:
    import machines
    import noise
    import report
    import sources
except ImportError as missing:
    sys.exit(f"evaluation: {missing}: run tools/setup --evaluation")
import claims

def say(text):
    """A line of progress."""
    print(f"evaluation: {text}", file=sys.stderr, flush=True)


class Ticking:
    """Says each half minute that it goes on, in a block."""

    def __init__(self):
        self._over = threading.Event()

    def _tick(self, begun):
        while not self._over.wait(30):
            say(f"  ... {time.monotonic() - begun:.0f} s")

    def __enter__(self):
        threading.Thread(target=self._tick, args=(time.monotonic(),), daemon=True).start()

    def __exit__(self, *_):
        self._over.set()


def write_json(path, value):
    """All of it or nothing."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def measure(folder, wanted, again):
    """Measures what is missing in the folder. Returns what could not be measured, and why."""
    failed, total = {}, len(wanted)
    for number, name in enumerate(wanted, 1):
        what, minutes = machines.CONFIGURATIONS[name][:2]
        path = os.path.join(folder, f"{name}.json")
        if os.path.exists(path) and not again:
            say(f"{number}/{total} {name}: kept (--again measures it anew)")
            continue
        say(f"{number}/{total} {name}: {what}: some {minutes} minutes on an idle core ...")
        begun = time.monotonic()
        try:
            with Ticking():
                write_json(path, machines.measure(name))
        except (machines.MachineError, OSError, ValueError) as error:
            failed[name] = str(error).split("\n", maxsplit=1)[0]
            say(f"{name}: failed: {failed[name]}")
            continue
        say(f"{name}: done after {time.monotonic() - begun:.0f} s")
    return failed


def collect(folder, failed):
    """All results, with medians and intervals by SciPy, whoever computed them before."""
    configurations = {}
    order = list(machines.CONFIGURATIONS)
    names = [name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")]
    for name in sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)):
        with open(os.path.join(folder, f"{name}.json"), encoding="utf-8") as file:
            result = json.load(file)
        for figure in result["figures"].values():
            figure["median"] = noise.median(figure["samples"])
            figure["low"], figure["high"] = noise.interval(figure["samples"]) or (None, None)
        result["what"] = machines.CONFIGURATIONS[name][0] if name in machines.CONFIGURATIONS else "measured elsewhere by hpsctl bench"
        configurations[name] = result
    absent = {**machines.NOT_YET, **{name: "not measured yet" for name in order if name not in configurations}, **failed}
    return configurations, absent


def main():
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--output", default=os.path.join(machines.BUILD, "evaluation"), help="folder for all of it (%(default)s)")
    parser.add_argument("--only", action="append", choices=machines.CONFIGURATIONS, help="measure this configuration alone; may be repeated")
    parser.add_argument("--again", action="store_true", help="also measure what was measured before")
    parser.add_argument("--report", action="store_true", help="measure nothing: only write the report")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=FILE", help="a result of hpsctl bench --json, of another machine")
    arguments = parser.parse_args()
    folder = os.path.join(arguments.output, "results")
    os.makedirs(folder, exist_ok=True)
    for word in arguments.add:
        name, _, path = word.partition("=")
        if not name.replace("-", "").isalnum() or name in machines.CONFIGURATIONS or not path:
            parser.error(f"--add wants NAME=FILE, with a new name, not '{word}'")
        try:
            with open(path, encoding="utf-8") as file:
                told = json.load(file)
            write_json(os.path.join(folder, f"{name}.json"), {key: told[key] for key in ("unit", "environment", "figures", "not_measured")})
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"{path} is nothing that hpsctl bench --json printed: {error!r}")
    failed = {} if arguments.report else measure(folder, arguments.only or list(machines.CONFIGURATIONS), arguments.again)
    configurations, absent = collect(folder, failed)
    evaluation = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "environment": machines.build_environment(),
                  "configurations": configurations, "absent": absent, "trusted": sources.trusted(), "attacks": sources.attacks(),
                  "attack_names": sources.attack_names()}
    write_json(os.path.join(arguments.output, "evaluation.json"), evaluation)
    say("claims ...")
    evaluation["claims"] = [{**claim, "expected": claims.expected(claim), **dict(zip(("verdict", "seen"), claims.verdict(claim, arguments.output)))}
                            for claim in claims.load()]
    write_json(os.path.join(arguments.output, "evaluation.json"), evaluation)
    report.write(arguments.output, evaluation)
    say(f"{len(configurations)} configurations; the report is {os.path.relpath(arguments.output)}/report.html")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
