#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""nested.py GATE CPUS [ATTACK[,ATTACK]...] [kvm=on] [QEMU-ARGUMENT]...: the host image runs in QEMU with nested KVM, in Bochs.

KVM is a second implementation of VMX: it checks controls and state itself, keeps translations until they are flushed, and emulates
instructions of the monitor. status, the demo, a guest and these attacks (`all`, `none`) must end as they do elsewhere.
With `kvm=on` in hyperps.conf the image is the test initrd, whose kvm_probe runs some of its tests on the host's own KVM.
build/attacks-nested.json gets the results of all such runs, build/attacks-kvm.json those with `kvm=on`."""

import json
import os
import re
import sys

from live import ATTACKS, COMPLAINTS, PROMPT, main, monitor_lines, note, ok, record_attacks, shell
from machine import BUILD, Machine

GATE, CPUS = sys.argv[1], int(sys.argv[2])
NAMES = {"all": list(ATTACKS), "none": []}.get(sys.argv[3], sys.argv[3].split(","))
KVM = "kvm=on" in sys.argv[4:5]
QEMU_ARGUMENTS = sys.argv[5 if KVM else 4:]
LABEL = f"nested KVM, {CPUS} CPUs, gate = {GATE}{' '.join(['', *sys.argv[4:]])}:"
BOOT_TIMEOUT, TIMEOUT = 1200, 2400
COUNT = 2000  # attack 19's instructions at random
# Each exit of a VM there is dozens of the machine's, and dozens times dozens of KVM's around it: not what counts on time.
PROBE = "real modes mmio touch interrupt msr"


def check_kvm(machine):
    """The host's own KVM, and its VMs."""
    for name in "irqbypass", "kvm", "kvm-intel":
        ok(shell(machine, f"insmod /test/modules/{name}.ko", TIMEOUT)[1] == 0, f"{LABEL} {name} loads")
    text, code = shell(machine, f"/test/kvm_probe {PROBE}", TIMEOUT)
    for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M):
        ok(result == "ok", f"{LABEL} {what}")
    ok(code == 0, f"{LABEL} kvm_probe ends with 0")
    note("\n".join(re.findall(r"^# .* took .*$", text, re.M)) if code == 0 else text)
    exits = json.loads(shell(machine, "hpsctl exits --l2 -j")[0])
    ok(exits["total"] > 1000, f"{LABEL} hpsctl exits --l2 counts ({exits['total']})")
    ok(shell(machine, "rmmod kvm_intel", TIMEOUT)[1] == 0, f"{LABEL} kvm_intel can be removed")


def test():
    """See the module's text."""
    settings = {"gate": GATE, "kvm": "on"} if KVM else {"gate": GATE}
    initrd = os.path.join(BUILD, f"initrd-{'test-' if KVM else ''}cloud.img")
    with Machine(cpus=CPUS, emulator="nested", initrd=initrd, emulator_options=QEMU_ARGUMENTS,
                 append="loglevel=1 hyperps.demo=no", settings=settings) as machine:
        machine.expect(PROMPT, BOOT_TIMEOUT)
        status = json.loads(shell(machine, "hpsctl status -j", TIMEOUT)[0])
        ok(status["cpus_taken"] == CPUS, f"{LABEL} all {CPUS} CPUs are de-privileged")
        ok(status["gate_cpus"] == (CPUS if GATE == "vmfunc" else 0), f"{LABEL} hyperps.ko calls by the gate that was asked for")
        text, code = shell(machine, "hpsctl run /guests/hello", TIMEOUT)
        ok(code == 0 and "Hello" in text, f"{LABEL} a guest runs")
        note(text if code else "")
        text, code = shell(machine, "hpsctl demo", TIMEOUT)
        ok(code == 0, f"{LABEL} the demo succeeds")
        note(text if code else "")
        if KVM:
            ok(status["kvm"] == "on", f"{LABEL} the status says that VMX is offered")
            note(status["kvm"])
            check_kvm(machine)
            shell(machine, f"export NESTED_COUNT={COUNT}")
        results = {}
        for name in NAMES:
            _, code = shell(machine, f"hpsctl attack -jv {name} >/tmp/json 2>/tmp/log", TIMEOUT)
            results[name] = result = json.loads(shell(machine, "cat /tmp/json")[0])[0]
            good = result["cpus"] == CPUS and result["gate"] == GATE and code == 0
            if name == "dma":
                ok(good and result["skipped"], f"{LABEL} {name}: skipped, for lack of a device: dma.py has one")
            else:
                ok(good and result["control"] and result["refused"], f"{LABEL} {name}: the control works, the attack is refused")
            if code:
                log = shell(machine, "cat /tmp/log")[0]
                note(log)
                print("\n".join(line for line in log.splitlines() if "not ok" in line), file=sys.stderr)
        if results:
            record_attacks(re.sub(r"\W+", "-", " ".join(sys.argv[1:]))[:200], results.values(), "attacks-kvm" if KVM else "attacks-nested")
        complaints = [line for line in shell(machine, "dmesg", TIMEOUT)[0].splitlines() if re.search(COMPLAINTS, line)]
        # Two CPUs take turns on one, and so may wait for each other as long as Linux looks after.
        complaints = [line for line in complaints if CPUS == 1 or not re.search("soft lockup|rcu.*stall", line)]
        ok(not complaints, f"{LABEL} Linux has nothing to complain of")
        note("\n".join(complaints) or "no complaints")
        machine.send("exit")
        ok(machine.wait(TIMEOUT) and machine.powered_off(), f"{LABEL} poweroff ends QEMU and the Linux around it")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
