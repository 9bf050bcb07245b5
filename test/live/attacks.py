#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""attacks.py FLAVOUR CPUS GATE: the host image boots with `gate = GATE`, and hpsctl attack runs in it.

Each attack's control must work, and each must be refused. build/attacks.json gets the results of all such runs."""

import json
import os
import re
import sys

from live import ATTACKS, BOOT_TIMEOUT, COMPLAINTS, PROMPT, kernel, main, monitor_lines, note, ok, record_attacks, shell
from machine import BUILD, Machine

FLAVOUR, CPUS, GATE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LABEL = f"{FLAVOUR}, {CPUS} CPUs, gate = {GATE}:"
TIMEOUT = 900


def check_listing(machine):
    """Names and numbers are those that docs/testing.md knows."""
    text, status = shell(machine, "hpsctl attack --list")
    ok(status == 0 and [line.split()[:2] for line in text.splitlines()] ==
       [[f"{number:02}", name] for number, name in enumerate(ATTACKS, 1)], f"{LABEL} --list has all {len(ATTACKS)} attacks")
    ok(shell(machine, "hpsctl attack none")[1] == 2 and shell(machine, "hpsctl attack --none")[1] == 2, f"{LABEL} wrong usage is 2")
    ok(shell(machine, "hpsctl attack --directory /tmp")[1] == 2, f"{LABEL} a folder without attacks is 2")


def check_broken(machine):
    """Positive control: attacks that get through, or whose control fails, are told apart from those that are refused."""
    shell(machine, "x=/tmp/x/attacks/01-x; mkdir -p ${x%/*}")
    shell(machine, "echo '#!/bin/sh' >$x; chmod +x $x")
    shell(machine, """echo 'echo "$C - positive control: c"' >>$x""")
    shell(machine, """echo 'echo "$R - refused"' >>$x""")
    for control, refused, wanted in ("ok", "ok", 0), ("ok", "not ok", 1), ("not ok", "ok", 2):
        status = shell(machine, f"C='{control}' R='{refused}' hpsctl attack -d /tmp/x")[1]
        ok(status == wanted, f"{LABEL} control {control}, refusal {refused}: status {wanted}")
    shell(machine, "echo '#!/bin/sh' >$x")
    shell(machine, """echo 'echo "ok - x # SKIP y"; $Z' >>$x""")
    for end, wanted, what in ("true", 0, "skipped: "), ("exit 3", 2, "NOT RUN"):
        text, status = shell(machine, f"Z='{end}' hpsctl attack -d /tmp/x")
        ok(status == wanted and what in text, f"{LABEL} an attack that can't be tried, and ends by {end}: status {wanted}, {what}")


def test():
    """See the module's text."""
    with Machine(kernel=kernel(FLAVOUR), initrd=os.path.join(BUILD, f"initrd-{FLAVOUR}.img"), cpus=CPUS, emulator="bochs",
                 append="loglevel=1 hyperps.demo=no", settings={"gate": GATE}) as machine:
        machine.expect(PROMPT, BOOT_TIMEOUT)
        check_listing(machine)
        check_broken(machine)
        _, status = shell(machine, "hpsctl attack -jv >/tmp/json 2>/tmp/log", TIMEOUT)
        results = {entry["name"]: entry for entry in json.loads(shell(machine, "cat /tmp/json")[0])}
        for name in ATTACKS:
            result = results.get(name, {})
            good = result.get("cpus") == CPUS and result.get("gate") == GATE
            if name == "dma":
                ok(good and result["skipped"] and not result["refused"], f"{LABEL} {name}: skipped, for lack of a device")
                continue
            ok(good and result.get("control"), f"{LABEL} {name}: the control works")
            ok(good and result.get("refused"), f"{LABEL} {name}: refused")
        ok(status == 0 and len(results) == len(ATTACKS), f"{LABEL} hpsctl attack ends with 0, and knows no other")
        record_attacks(f"{FLAVOUR}-{CPUS}-{GATE}", results.values())
        note(shell(machine, r"grep -E '^not ok|SKIP' /tmp/log")[0])
        if status:
            note(shell(machine, "cat /tmp/log")[0])
        ok(not re.search(COMPLAINTS, shell(machine, "dmesg")[0]), f"{LABEL} Linux has nothing to complain of")
        gates = shell(machine, "hpsctl status -j | grep gate_cpus")[0]
        ok(f": {CPUS if GATE == 'vmfunc' else 0}," in gates, f"{LABEL} hyperps.ko uses the gate as before")
        machine.send("exit")
        ok(machine.wait(120) and machine.powered_off(), f"{LABEL} poweroff switches the machine off")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
