#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""command_line.py HPSCTL: what hpsctl does without a monitor: its help, wrong usage, exit statuses, completion. As TAP."""

import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

HPSCTL = os.path.abspath(sys.argv[1])


def ends(status, *words, says="", on=2):
    """hpsctl with these words ends so, and says that on this stream."""
    done = subprocess.run([HPSCTL, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    text = done.stdout if on == 1 else done.stderr
    if not ok(done.returncode == status and says in text, f"hpsctl {' '.join(words)} ends with {done.returncode} ({status}) and says '{says}'"):
        note(done.stdout + done.stderr)
    return done.stdout


def complete(*words):
    """What bash offers for the last of these words."""
    script = f"source <({HPSCTL} completion); COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _hpsctl; echo ${{COMPREPLY[*]}}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def main():
    """See the module's text."""
    top = ends(0, "--help", says="Commands", on=1)
    commands = re.findall(r"^  (\w+(?: list)?)  ", top, re.M)
    ok(len(commands) >= 10, f"it has commands: {', '.join(commands)}")
    ends(0, "--version", says="hpsctl ", on=1)
    ends(2, says="COMMAND")
    ends(2, "nothing", says="no command 'nothing'")
    ends(2, "vm", says="'list'")
    ends(2, "-x", says="'x'")
    for command in commands:
        words = command.split()
        usage = 125 if command == "run" else 2
        for option in "--help", "-h":
            ends(0, *words, option, says=f"Usage: hpsctl {command} [OPTION...]", on=1)
        # The option is named, not the command.
        ends(usage, *words, "-xj", says="-- 'x'")
        ends(usage, *words, "--nothing", says="'--nothing'")
        ok(words[0] in complete("hpsctl", words[0][:2]), f"bash completes {words[0]}")
        ok("--help" in complete("hpsctl", words[0], "--h"), f"bash completes the options of {command}")
    ends(125, "run", says="which image?")
    ends(125, "run", "a", "b", says="unexpected 'b'")
    ends(125, "run", "--memory", "1", "a", says="--memory wants")
    ends(125, "run", "/nothing", "--json", "--", "--help", says="cannot read /nothing")
    ends(2, "measure", "--lazy", "a", says="--lazy")
    ends(1, "measure", "/nothing", says="cannot read /nothing")
    ends(2, "measure", "--machine", "x", "a", says="--machine wants")
    ends(2, "measure", "--shared-bit", "34", "a", says="--shared-bit wants")
    ends(2, "measure", "--acpi", "12", "a", says="--acpi wants")
    ends(2, "image", "--kernel", "a", says="--kernel and --output")
    ends(1, "image", "--kernel", "/nothing", "--output", "/nothing", says="cannot read /nothing")
    ends(1, "image", "--kernel", HPSCTL, "--output", "/nothing", says="no bzImage")
    ends(2, "exits", "--cpu", "x", says="--cpu wants a number")
    ends(2, "exits", "--l2", "--vm", "all", says="--vm or --l2")
    ends(2, "demo", "--target", "x", says="--target wants")
    ends(2, "attack", "--directory", "/nothing", says="no attacks in /nothing")
    ends(2, "bench", "nothing", says="no figure 'nothing'")
    ends(2, "bench", "gues", says="no figure 'gues'")
    ends(0, "bench", "--list", says="guest.cpuid", on=1)
    figures = json.loads(ends(0, "bench", "--json", "host.cpuid", says="cycles", on=1))
    cpuid = figures["figures"].get("host.cpuid", {"samples": []})
    ok(list(figures["figures"]) == ["host.cpuid"] and len(cpuid["samples"]) == 100 and min(cpuid["samples"]) <= cpuid["low"]
       <= cpuid["median"] <= cpuid["high"] <= max(cpuid["samples"]), "bench measures what was named, and the median lies in its interval")
    ok({"date", "hpsctl", "cpu", "kernel", "command_line", "compiler"} <= set(figures["environment"]), "it says where it measured")
    if not os.path.exists("/dev/hyperps"):
        ends(1, "bench", "vm.populate_2m", says="not measured: /dev/hyperps", on=1)
        ends(0, "bench", "vm", says="not measured: /dev/hyperps", on=1)
    ends(2, "install", "x", says="unexpected 'x'")
    ends(2, "uninstall", "--loader", "x", says="'--loader'")
    with open("/dev/full", "w", encoding="ascii") as full:
        ok(subprocess.run([HPSCTL, "completion"], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode == 1,
           "output that can't be written is an error")
    if not os.path.exists("/dev/hyperps"):
        ends(1, "status", says="load hyperps.ko")
    finish()


if __name__ == "__main__":
    main()
