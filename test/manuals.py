#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""manuals.py PAGE...: the manual pages have no faults, and hyperps.conf(5) has the keys and words that boot/conf.c takes. As TAP."""

import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The other pages are not installed here; and .Os is meant.
FINE = "referenced manual not found: Xr (hyperps|hpsctl)|operating system explicitly specified"


def read(path):
    """A file of the sources."""
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def check_page(path):
    """What mandoc and man complain of."""
    name = os.path.basename(path)
    for tool, command in (("mandoc", ["mandoc", "-Tlint"]), ("man", ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])):
        if not shutil.which(tool):
            ok(True, f"{name}: {tool} # SKIP {tool} is not installed")
            continue
        done = subprocess.run([*command, path], env=dict(os.environ, MANWIDTH="80", MANROFFSEQ=""), text=True, check=False,
                              capture_output=True)
        lines = [line for line in (done.stdout if tool == "mandoc" else done.stderr).splitlines() if not re.search(FINE, line)]
        if not ok(not lines, f"{name}: {tool} has nothing to complain of"):
            note("\n".join(lines))


def check_keys():
    """Keys, and the words that each takes: the parser's table against the page."""
    source, page = read("boot/conf.c"), read("docs/man/hyperps.conf.5.in")
    table = dict(re.findall(r'^\t\{ "(\w+)", (set_\w+),', source.split("struct key")[1], re.M))
    shown = dict(re.findall(r"^\.It Cm (\w+) No = (.*)$", page, re.M))
    ok(len(table) > 5 and list(table) == list(shown), f"hyperps.conf(5) has the parser's keys, in its order: {' '.join(shown)}")
    ok(f'"The keys are {", ".join(table)}"' in re.sub(r'"\s*\n\s*"', "", source), "the loader's message names them, too")
    for key, function in table.items():
        body = source.split(f"static bool {function}(")[1].split("\n}\n")[0]
        words = set(re.findall(r'"(\w+)"', body))
        known = set(re.findall(r"\w+", re.sub(r"\b(Ar \w+|Ns|Op|Cm)\b", "", shown.get(key, ""))))
        ok(words <= known and (not re.search(r"words\[\]", body) or words == known), f"{key}: the words are {' '.join(sorted(words)) or 'free'}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check_page(argument)
    check_keys()
    finish()
