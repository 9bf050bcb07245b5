#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm_attacks.py CPUS GATE COUNT ATTACK[,ATTACK]...: with `kvm = on` the host image boots, and hpsctl attack runs these in it.

COUNT: attack 19's instructions at random. Each attack's control must work, and each must be refused. build/attacks-kvm.json gets the
results of all such runs."""

import json
import os
import re
import sys

from live import BOOT_TIMEOUT, COMPLAINTS, PROMPT, kernel, main, monitor_lines, note, ok, record_attacks, shell
from machine import BUILD, Machine

CPUS, GATE, COUNT, NAMES = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
LABEL = f"{CPUS} CPUs, gate = {GATE}, kvm = on:"
TIMEOUT = 900 + COUNT // 50


def check_abort(machine):
    """An exit of the host's own VM that can't be made ends the machine, as on a bare one, and not by a panic."""
    base = json.loads(shell(machine, "hpsctl status -j")[0])["memory_base"]
    shell(machine, f"insmod /test/modules/nested.ko abort=1 refuse={base}")
    machine.send("cat /proc/nested")
    machine.expect(r"VMX abort in the host at .*: resetting the machine", 60)
    machine.expect("HyperPS loader", BOOT_TIMEOUT)
    ok(True, f"{LABEL} a list of MSRs in the monitor's memory is a VMX abort: the machine is reset")


def test():
    """See the module's text."""
    # As in kvm.py: KVM wants MWAIT, and the emulator is slow while Linux waits by it.
    with Machine(kernel=kernel("cloud"), initrd=os.path.join(BUILD, "initrd-cloud.img"), cpus=CPUS, emulator="bochs", mwait=True,
                 append="loglevel=1 idle=nomwait hyperps.demo=no", settings={"gate": GATE, "kvm": "on"}) as machine:
        machine.expect(PROMPT, BOOT_TIMEOUT)
        ok(shell(machine, "grep -qw vmx /proc/cpuinfo")[1] == 0, f"{LABEL} Linux sees VMX")
        shell(machine, f"export NESTED_COUNT={COUNT}")
        shell(machine, f"a='{' '.join(NAMES)}'")
        _, status = shell(machine, "hpsctl attack -jv $a >/tmp/json 2>/tmp/log", TIMEOUT)
        results = {entry["name"]: entry for entry in json.loads(shell(machine, "cat /tmp/json")[0])}
        for name in NAMES:
            result = results.get(name, {})
            good = result.get("cpus") == CPUS and result.get("gate") == GATE
            ok(good and result.get("control"), f"{LABEL} {name}: the control works")
            ok(good and result.get("refused"), f"{LABEL} {name}: refused")
        ok(status == 0 and len(results) == len(NAMES), f"{LABEL} hpsctl attack ends with 0")
        record_attacks(f"cloud-{CPUS}-{GATE}-{'-'.join(NAMES)}", results.values(), "attacks-kvm")
        note(shell(machine, r"grep -E '^not ok|SKIP|at random|rounds' /tmp/log")[0])
        if status:
            note(shell(machine, "cat /tmp/log")[0])
        ok(not re.search(COMPLAINTS, shell(machine, "dmesg")[0]), f"{LABEL} Linux has nothing to complain of")
        if "nested" in NAMES:
            check_abort(machine)
        else:
            machine.send("exit")
            ok(machine.wait(120) and machine.powered_off(), f"{LABEL} poweroff switches the machine off")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
