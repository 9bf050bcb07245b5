#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm.py native|monitor CPUS FLAVOUR [WORD[,WORD]...]: the stock kernel's KVM in the host, by test/guestfs/kvm.

`native`: without the monitor. `monitor`: with `kvm = on`; each check of the native run must be there, with the same result. That run
comes first if build/ has none of the same arguments and initrd. WORDs are kvm_probe's: --quick, or names of its tests; those that
begin with `qemu` are cases of test/guestfs/kvm_qemu, which runs instead. Its checks "with HyperPS: ..." are the monitor's runs' alone."""

import json
import os
import re
import sys

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok, test_machine
from machine import BUILD, NESTED_DISK

MODE, CPUS, FLAVOUR, WORDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else ""
PROGRAM = "kvm_qemu" if WORDS.startswith("qemu") else "kvm"
LABEL = f"KVM, {MODE}, {CPUS} CPUs, {FLAVOUR}:"
TIMEOUT = 3600
NATIVE = os.path.join(BUILD, re.sub(r"[^a-z0-9.]+", "-", f"kvm-native {CPUS} {FLAVOUR} {WORDS}").strip("-") + ".json")


def boot(native):
    """Runs the program once; returns its checks, [[whether it passed, text], ...], and all output."""
    tests = [PROGRAM, "kernel_log"] if native else [PROGRAM, "kernel_log", "status_json", "kvm_exits"]
    settings = {} if native else {"gate": "vmfunc", "kvm": "on"}
    options = {}
    if PROGRAM == "kvm_qemu":
        initrd = f"initrd-kvm-{'kernels-' if 'qemu-kernels' in WORDS else ''}{FLAVOUR}.img"
        options = {"second_disk": NESTED_DISK, "initrd": os.path.join(BUILD, initrd)}
    # KVM wants a CPU with MWAIT; while Linux waits by it, all TLBs of the emulator are flushed again and again.
    with test_machine(FLAVOUR, ",".join(tests), f"idle=nomwait kvm.tests={WORDS}", cpus=CPUS, native=native, mwait=True,
                      settings=settings, **options) as machine:
        machine.expect(f"HYPERPS-TEST-BEGIN {PROGRAM}\n", BOOT_TIMEOUT)
        start = machine.taken
        machine.expect(r"HYPERPS-TEST-END kernel_log \d+\n", TIMEOUT)
        text = machine.output[start:machine.taken]
        machine.expect(r"HYPERPS-TEST-DONE \d+\n", BOOT_TIMEOUT)
        ok(machine.wait(120) and machine.powered_off(), f"{LABEL} {'native: ' if native else ''}poweroff switches the machine off")
        checks = [[result == "ok", what] for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M)]
        note(text if not all(passed for passed, _ in checks) else "\n".join(re.findall(r"^# time: .*$", text, re.M)))
        return checks, machine.output


def native_checks():
    """Those of the native run, which is made if there is none."""
    initrd = os.path.join(BUILD, f"initrd-{'kvm' if PROGRAM == 'kvm_qemu' else 'test'}-{FLAVOUR}.img")
    if not os.path.exists(NATIVE) or os.path.getmtime(NATIVE) < os.path.getmtime(initrd):
        record(boot(True)[0])
    with open(NATIVE, encoding="utf-8") as file:
        return json.load(file)


def record(checks):
    """Keeps the native run's."""
    with open(NATIVE + ".new", "w", encoding="utf-8") as file:
        json.dump(checks, file, indent=0)
    os.replace(NATIVE + ".new", NATIVE)


def printed(output, name):
    """The JSON that a program printed."""
    return json.loads(re.search(rf"(?s)HYPERPS-TEST-BEGIN {name}\n.*?(\{{\n.*?\n\}})\n", output).group(1))


def check_monitor(checks, output):
    """What only the run under the monitor has."""
    native = native_checks()
    # What programs at the same time have printed may come in another order.
    checks, native = sorted(entry for entry in checks if not entry[1].startswith("with HyperPS: ")), sorted(native)
    ok(checks == native, f"{LABEL} all {len(native)} checks are as they are natively")
    for mine, theirs in zip(checks, native):
        if mine != theirs:
            note(f"here {mine}, natively {theirs}")
            break
    ok("panic" not in "\n".join(monitor_lines(output)), f"{LABEL} the monitor did not panic")
    ok(printed(output, "status_json")["kvm"] == "on", f"{LABEL} the status says that VMX is offered")
    exits = printed(output, "kvm_exits")
    ok(exits["total"] > 1000, f"{LABEL} hpsctl exits --l2 counts ({exits['total']})")
    note(exits["reasons"])


def test():
    """See the module's text."""
    checks, output = boot(MODE == "native")
    for passed, what in checks:
        ok(passed, f"{LABEL} {what}")
    ok(len(checks) > 10, f"{LABEL} {len(checks)} checks")
    if MODE == "native":
        record(checks)
    else:
        check_monitor(checks, output)


main(test)
