#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Coverage of mm/ by its unit tests, as a TAP test: lines and branches must both be covered to 95 % at least.

usage: test/coverage.py     after `make coverage-programs`; `make coverage` does both

Built without optimisation and sanitizers: both would add branches that are not in the source, or merge some."""

import glob
import json
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "test"))
from tap import figure, finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

LEAST = 95.0  # per cent


def main():
    """Runs the programs and looks at what they left out."""
    folder = f"{TOP}/build/test/coverage"
    for path in glob.glob(f"{folder}/*.gcda"):
        os.remove(path)
    programs = [path for path in sorted(glob.glob(f"{folder}/*")) if "." not in os.path.basename(path)]
    for program in programs:
        done = subprocess.run([program], env=os.environ | {"CMOCKA_MESSAGE_OUTPUT": "TAP"}, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not ok(done.returncode == 0, f"{os.path.basename(program)} passes without sanitizers, too"):
            note(done.stdout)
    gcovr = ["gcovr", "--root", TOP, "--filter", f"{TOP}/mm/", folder]
    summary = json.loads(subprocess.check_output(gcovr + ["--json-summary"]))
    names = sorted(os.path.basename(file["filename"]) for file in summary["files"])
    sources = sorted(map(os.path.basename, glob.glob(f"{TOP}/mm/*.c")))
    ok(names == sources, f"{len(sources)} files of mm/ are counted")
    for what in "line", "branch":
        covered, total, percent = (summary[f"{what}_{key}"] for key in ("covered", "total", "percent"))
        figure(f"{what} coverage of mm/ by its unit tests: {percent} % ({covered} of {total})")
        if not ok(percent >= LEAST, f"{what} coverage of mm/ is at least {LEAST} %"):
            note(subprocess.check_output(gcovr + (["--branches"] if what == "branch" else []), text=True))
    finish()


if len(sys.argv) > 1:
    sys.exit(__doc__)
main()
