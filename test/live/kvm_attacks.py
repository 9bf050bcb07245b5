#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm_attacks.py CPUS GATE COUNT ATTACK[,ATTACK]...|beside: with `kvm = on` the host image boots, and hpsctl attack runs these in it.

COUNT: attack 19's instructions at random. Each attack's control must work, and each must be refused. `beside`: all, in the test
initrd, while a VM of the host's KVM runs on the last CPU; but attack 19, for which no one else may be in VMX operation, after it.
build/attacks-kvm.json gets the results of all such runs."""

import json
import os
import re
import sys

from live import ATTACKS, BOOT_TIMEOUT, COMPLAINTS, PROMPT, kernel, main, monitor_lines, note, ok, record_attacks, shell
from machine import BUILD, Machine

CPUS, GATE, COUNT = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
BESIDE = sys.argv[4] == "beside"
NAMES = list(ATTACKS) if BESIDE else sys.argv[4].split(",")
LABEL = f"{CPUS} CPUs, gate = {GATE}, kvm = on{', a VM beside' if BESIDE else ''}:"
TIMEOUT = (2400 if BESIDE else 900) + COUNT // 50


def check_abort(machine):
    """An exit of the host's own VM that can't be made ends the machine, as on a bare one, and not by a panic."""
    base = json.loads(shell(machine, "hpsctl status -j")[0])["memory_base"]
    shell(machine, f"insmod /test/modules/nested.ko abort=1 refuse={base}")
    machine.send("cat /proc/nested")
    machine.expect(r"VMX abort in the host at .*: resetting the machine", 60)
    machine.expect("HyperPS loader", BOOT_TIMEOUT)
    ok(True, f"{LABEL} a list of MSRs in the monitor's memory is a VMX abort: the machine is reset")


def l2_exits(machine):
    """How many exits the host's own VMs have made."""
    return json.loads(shell(machine, "hpsctl exits --l2 -j")[0])["total"]


def start_vm(machine):
    """A VM of the host's KVM, which reads and writes without end. Lines must be short, as the terminal's are."""
    shell(machine, "k=/test/modules; for m in irqbypass kvm; do insmod $k/$m.ko; done")
    ok(shell(machine, "insmod $k/kvm-intel.ko enable_apicv=0")[1] == 0, f"{LABEL} kvm_intel loads")
    shell(machine, f"vm='nice -n 19 taskset -c {CPUS - 1} /test/kvm_probe'")
    shell(machine, "$vm endless >/tmp/vm 2>&1 & true")
    _, status = shell(machine, "until grep ^ok /tmp/vm; do sleep 0.1; done", 300)
    ok(status == 0, f"{LABEL} a VM of KVM's runs")


def stop_vm(machine, before):
    """Ends it, and makes room for attack 19."""
    now = l2_exits(machine)
    ok(now > before + 1000, f"{LABEL} the VM has run all the time ({now - before} exits)")
    ok(shell(machine, "! grep '^not ok' /tmp/vm && kill -9 %1")[1] == 0, f"{LABEL} the VM has not ended")
    _, status = shell(machine, "until rmmod kvm_intel; do sleep 0.1; done", 300)
    ok(status == 0, f"{LABEL} kvm_intel can be removed")


def attack(machine, names):
    """Runs these; returns the results by name, and hpsctl's status."""
    shell(machine, "a=''")
    for at in range(0, len(names), 3):
        shell(machine, f"a=\"$a {' '.join(names[at:at + 3])}\"")
    _, status = shell(machine, "hpsctl attack -jv $a >/tmp/json 2>/tmp/log", TIMEOUT)
    results = {entry["name"]: entry for entry in json.loads(shell(machine, "cat /tmp/json")[0])}
    note(shell(machine, r"grep -E '^not ok|SKIP|at random|rounds' /tmp/log")[0])
    if status:
        note(shell(machine, "cat /tmp/log")[0])
    return results, status


def test():
    """See the module's text."""
    # As in kvm.py: KVM wants MWAIT, and the emulator is slow while Linux waits by it.
    initrd = os.path.join(BUILD, f"initrd-{'test-' if BESIDE else ''}cloud.img")
    with Machine(kernel=kernel("cloud"), initrd=initrd, cpus=CPUS, emulator="bochs", mwait=True,
                 append="loglevel=1 idle=nomwait hyperps.demo=no", settings={"gate": GATE, "kvm": "on"}) as machine:
        machine.expect(PROMPT, BOOT_TIMEOUT)
        ok(shell(machine, "grep -qw vmx /proc/cpuinfo")[1] == 0, f"{LABEL} Linux sees VMX")
        shell(machine, f"export NESTED_COUNT={COUNT}")
        results, status = {}, 0
        if BESIDE:
            start_vm(machine)
            before = l2_exits(machine)
            results, status = attack(machine, NAMES[:-1])
            stop_vm(machine, before)
        more, last_status = attack(machine, NAMES[-1:] if BESIDE else NAMES)
        results.update(more)
        for name in NAMES:
            result = results.get(name, {})
            good = result.get("cpus") == CPUS and result.get("gate") == GATE
            if name == "dma":
                ok(good and result["skipped"], f"{LABEL} {name}: skipped, for lack of a device")
                continue
            ok(good and result.get("control"), f"{LABEL} {name}: the control works")
            ok(good and result.get("refused"), f"{LABEL} {name}: refused")
        ok(status == last_status == 0 and len(results) == len(NAMES), f"{LABEL} hpsctl attack ends with 0")
        record_attacks(f"cloud-{CPUS}-{GATE}-{sys.argv[4].replace(',', '-')}", results.values(), "attacks-kvm")
        ok(not re.search(COMPLAINTS, shell(machine, "dmesg")[0]), f"{LABEL} Linux has nothing to complain of")
        if "nested" in NAMES:
            check_abort(machine)
        else:
            machine.send("exit")
            ok(machine.wait(120) and machine.powered_off(), f"{LABEL} poweroff switches the machine off")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
