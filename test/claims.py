#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What docs/claims.toml says, against what is. As TAP: the claims that can be seen without booting a machine.

claims.py [--complete]                     --complete: results that make test leaves must be there
claims.py --refused FILE                   ends with 0 if each attack of these results was refused
claims.py --figure FOLDER CONFIGURATION NAME         prints a figure of make evaluation's
claims.py --change FOLDER BEFORE AFTER NAME          prints what is left of 100 % or added to them"""

import json
import os
import re
import subprocess
import sys
import tomllib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLAIMS = os.path.join(TOP, "docs", "claims.toml")
HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "not checked"
TIME_LIMIT = 60  # seconds for a command


def load(path=CLAIMS):
    """The claims, as dictionaries."""
    with open(path, "rb") as file:
        return tomllib.load(file)["claim"]


def is_said(claim):
    """Whether the document still says it."""
    with open(os.path.join(TOP, claim["where"]), encoding="utf-8") as file:
        return re.search(claim["quote"], file.read()) is not None


def missing(claim):
    """The first of the files that it needs and that are not there, or None."""
    cache = os.environ.get("HYPERPS_CACHE") or os.path.join(TOP, ".cache")
    for name in claim.get("needs", []):
        if not os.path.exists(os.path.join(TOP, re.sub("^CACHE", cache, name))):
            return name
    return None


def within(claim, number):
    """Whether the number is what was claimed."""
    slack = abs(claim.get("value", 0)) * claim.get("tolerance", 0) / 100
    return ("value" not in claim or abs(number - claim["value"]) <= slack) and number <= claim.get("at_most", number) \
        and number >= claim.get("at_least", number)


def verdict(claim, evaluation=None):
    """Runs the command. Returns a verdict and what was seen."""
    if claim.get("measured") and not evaluation:
        return UNKNOWN, "make evaluation measures it"
    if "tested" in claim:
        return UNKNOWN, f"make test sees it by {claim['tested']}"
    absent = missing(claim)
    if absent:
        return UNKNOWN, f"there is no {absent}"
    try:
        done = subprocess.run(["bash", "-c", claim["command"]], cwd=TOP, capture_output=True, text=True, check=False, timeout=TIME_LIMIT,
                              env=dict(os.environ, EVALUATION=evaluation or ""))
    except subprocess.TimeoutExpired:
        return UNKNOWN, f"its command takes more than {TIME_LIMIT} s"
    text = (done.stdout + done.stderr).strip()
    if done.returncode == 77:
        return UNKNOWN, text
    if not {"value", "at_most", "at_least"} & set(claim):
        return (FAILS if done.returncode else HOLDS), text[-300:]
    numbers = re.findall(r"-?\d+(?:\.\d+)?", done.stdout)
    if done.returncode or len(numbers) != 1:
        return FAILS, f"its command prints no number: {text[-300:]}"
    return (HOLDS if within(claim, float(numbers[0])) else FAILS), numbers[0]


def expected(claim):
    """In words."""
    parts = [f"{claim['value']:,}" + (f" ± {claim['tolerance']} %" if claim.get("tolerance") else "")] if "value" in claim else []
    parts += [f"{word} {claim[key]:,}" for key, word in (("at_most", "at most"), ("at_least", "at least")) if key in claim]
    return ", ".join(parts) or "so it is"


def refused(path):
    """Ends the program: whether each attack was refused, and its control worked."""
    with open(path, encoding="utf-8") as file:
        results = json.load(file)
    bad = [entry for entry in results if not entry["refused"] or not entry["control"]]
    print(f"{len(results)} results; not refused, or without a control that worked: {bad or 'none'}")
    sys.exit(1 if bad or not results else 0)


def find_figure(folder, configuration, name):
    """A figure's value; ends the program with 77 if it was not measured."""
    try:
        with open(os.path.join(folder, "evaluation.json"), encoding="utf-8") as file:
            return json.load(file)["configurations"][configuration]["figures"][name]["median"]
    except (FileNotFoundError, KeyError):
        print(f"{configuration}: {name} was not measured")
        sys.exit(77)


def test(complete):
    """All claims."""
    claims = load()
    names = [claim["name"] for claim in claims]
    ok(len(claims) > 10 and len(set(names)) == len(names), f"there are claims, each with a name of its own: {len(claims)}")
    for claim in claims:
        name = claim["name"]
        ok(is_said(claim), f"{name}: {claim['where']} says it")
        if "tested" in claim:
            ok(os.path.exists(os.path.join(TOP, claim["tested"])), f"{name}: {claim['tested']} is there")
        elif not claim.get("measured"):
            result, seen = verdict(claim)
            skip = f" # SKIP {seen}" if result == UNKNOWN and not complete else ""
            if not ok(result == HOLDS or skip, f"{name}: {expected(claim)}{skip}"):
                note(f"{result}: {seen}")
    # The comparison itself, on both sides of each bound.
    claim = {"value": 100, "tolerance": 2}
    ok([within(claim, number) for number in (97.9, 98, 102, 102.1)] == [False, True, True, False], "a tolerance is one of both sides")
    ok([within({"at_most": 3}, number) for number in (3, 3.1)] == [True, False], "a bound from above")
    ok([within({"at_least": 3}, number) for number in (3, 2.9)] == [True, False], "a bound from below")
    false = dict(claims[0], value=claims[0]["value"] * 2)
    ok(verdict(false)[0] == FAILS, "a claim that is false is found")
    finish()


def main(words):
    """See the module's text."""
    if words[:1] == ["--refused"] and len(words) == 2:
        refused(words[1])
    if words[:1] == ["--figure"] and len(words) == 4:
        print(f"{find_figure(*words[1:]):.4f}")
    elif words[:1] == ["--change"] and len(words) == 5:
        print(f"{find_figure(words[1], words[3], words[4]) / find_figure(words[1], words[2], words[4]) * 100:.4f}")
    elif words in ([], ["--complete"]):
        test(bool(words))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
