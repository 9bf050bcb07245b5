#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""compare.py A B: what changed from one evaluation to another beyond noise. A and B are folders of make evaluation's, their
evaluation.json, or what `hpsctl bench --json` printed.

Each figure that both have is tested by permutation of its samples; the probabilities are corrected for the number of figures
(Holm). Ends with 1 if a figure changed, 2 if A or B can't be read."""

import argparse
import json
import os
import sys

import noise

SIGNIFICANT = 0.05
CHANGED, NOISE, ONE, ABSENT = "changed", "noise", "one value each: no test", "only in one"


def load(path):
    """An evaluation, or one made of a single result of hpsctl bench."""
    if os.path.isdir(path):
        path = os.path.join(path, "evaluation.json")
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    return told if "configurations" in told else {"configurations": {"machine": told}}


def compare(before, after):
    """A row for each figure of either: configuration, figure, unit, before, after, change (per cent), probability, verdict."""
    rows, tested = [], []
    for configuration in sorted(set(before["configurations"]) | set(after["configurations"])):
        first, second = (run["configurations"].get(configuration, {}).get("figures", {}) for run in (before, after))
        for name in sorted(set(first) | set(second)):
            row = {"configuration": configuration, "figure": name, "unit": (first.get(name) or second[name])["unit"], "before": None, "after": None,
                   "change": None, "probability": None, "verdict": ABSENT}
            rows.append(row)
            if name not in first or name not in second:
                continue
            samples = [run[name]["samples"] for run in (first, second)]
            row["before"], row["after"] = (noise.median(some) for some in samples)
            if row["before"]:
                row["change"] = (row["after"] / row["before"] - 1) * 100
            row["verdict"] = ONE
            if min(len(some) for some in samples) > 2:
                row["probability"] = noise.probability(*samples)
                tested.append(row)
    for row, probability in zip(tested, noise.holm([row["probability"] for row in tested])):
        row["probability"] = probability
        row["verdict"] = CHANGED if probability < SIGNIFICANT else NOISE
    return rows


def main():
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("before", metavar="A")
    parser.add_argument("after", metavar="B")
    parser.add_argument("--all", action="store_true", help="also what did not change")
    arguments = parser.parse_args()
    try:
        rows = compare(load(arguments.before), load(arguments.after))
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        sys.exit(2)
    shown = [row for row in rows if arguments.all or row["verdict"] == CHANGED or row["verdict"] == ONE and row["change"]]
    if shown:
        print(f"{'configuration':14}{'figure':34}{'A':>16}{'B':>16}{'change':>10}{'p':>8}")
    for row in shown:
        numbers = "".join(f"{row[key]:16,.1f}" if row[key] is not None else f"{'-':>16}" for key in ("before", "after"))
        change = f"{row['change']:+9.2f}%" if row["change"] is not None else f"{'-':>10}"
        chance = f"{row['probability']:8.4f}" if row["probability"] is not None else f"{'-':>8}"
        print(f"{row['configuration']:14}{row['figure']:34}{numbers}{change}{chance}  {row['verdict']}")
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in (CHANGED, NOISE, ONE, ABSENT)}
    print(f"{count[CHANGED]} changed beyond noise (p < {SIGNIFICANT}, corrected), {count[NOISE]} did not, {count[ONE]} have one value each, "
          f"{count[ABSENT]} are in one of the two only")
    sys.exit(1 if count[CHANGED] else 0)


if __name__ == "__main__":
    main()
