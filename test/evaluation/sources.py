# SPDX-License-Identifier: MIT
"""What the tree and the results of earlier tests say by themselves: lines and bytes that are trusted, and the attacks."""

import json
import os
import re
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, "build")
# What each emulator's attacks are recorded in (live.py), and what it is called.
ATTACK_FILES = {"attacks.json": "Bochs", "attacks-kvm.json": "Bochs, kvm = on", "attacks-nested.json": "QEMU in KVM in Bochs"}
LANGUAGES = ("C", "C/C++ Header", "Assembly")  # as cloc calls them


def run(*command):
    """What a command prints."""
    return subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout


def trusted_lines():
    """{folder: lines of code} by the Makefile's own counter; `all` is the sum that it prints."""
    text = run("make", "-s", "--no-print-directory", "tcb-lines")
    lines = {folder: int(count) for folder, count in re.findall(r"(\w+)/ (\d+)", text)}
    return {**lines, "all": int(re.search(r"(\d+) of code", text).group(1))}


def cloc_lines(files):
    """{folder: lines of code} by cloc, which is independent of it."""
    told = json.loads(run("cloc", "--quiet", "--json", "--by-file", "--skip-uniqueness", "--force-lang=Assembly,asm", "--force-lang=Assembly,inc", *files))
    lines = {}
    for name, entry in told.items():
        if name not in ("header", "SUM") and entry["language"] in LANGUAGES:
            folder = name.split("/")[0]
            lines[folder] = lines.get(folder, 0) + entry["code"]
    return {**lines, "all": sum(lines.values())}


def sections(path):
    """[(section, bytes)] of an object file that are loaded."""
    told = run("objdump", "-h", path)
    return [(name, int(size, 16)) for name, size, flags in
            re.findall(r"^ *\d+ (\S+) +([0-9a-f]+) .*\n +(.*)$", told, re.M) if "ALLOC" in flags]


def trusted():
    """All of it, for the report."""
    files = run("make", "-s", "--no-print-directory", "trusted-sources").split()
    own, cloc = trusted_lines(), cloc_lines(files)
    result = {"folders": {folder: {"lines": own[folder], "cloc": cloc.get(folder, 0), "files": sum(file.startswith(f"{folder}/") for file in files)}
                          for folder in own if folder != "all"},
              "lines": own["all"], "cloc": cloc["all"], "files": len(files), "bytes": {}}
    for name in "hyperps.efi", "monitor.elf":
        path = os.path.join(BUILD, name)
        if os.path.exists(path):
            result["bytes"][name] = dict(sections(path))
    return result


def attacks(folder=BUILD):
    """[{name, cpus, gate, platform, control, refused}] of all runs that have left their results."""
    found = []
    for name, platform in ATTACK_FILES.items():
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                found += [{**entry, "platform": platform} for entry in json.load(file)]
        except FileNotFoundError:
            pass
    return found


def attack_names():
    """As the folders of the attacks have them: number and name."""
    return [name for name in sorted(os.listdir(os.path.join(TOP, "host", "attacks"))) if re.match(r"\d\d-", name)]
