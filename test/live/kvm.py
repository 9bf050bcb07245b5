#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm.py native|monitor CPUS FLAVOUR [TEST[,TEST]...]: the stock kernel's KVM in the host: test/guestfs/kvm.

`native`: without the monitor. `monitor`: with `kvm = on`, and each check of the native run must be there, with the same result; that
run comes first if build/kvm-native-CPUS-FLAVOUR.json is not there. TESTs are words for kvm_probe: --quick, names of its tests."""

import json
import os
import re
import sys

from live import BOOT_TIMEOUT, COMPLAINTS, main, monitor_lines, note, ok, test_machine
from machine import BUILD

MODE, CPUS, FLAVOUR, WORDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else ""
LABEL = f"KVM, {MODE}, {CPUS} CPUs, {FLAVOUR}:"
TIMEOUT = 2400
NATIVE = os.path.join(BUILD, f"kvm-native-{re.sub(r'[^a-z0-9.]+', '-', f'{CPUS}-{FLAVOUR}-{WORDS}').strip('-')}.json")


def boot(native):
    """Runs test/guestfs/kvm once; returns its checks, [[whether it passed, text], ...], and all output."""
    tests = ["kvm"] if native else ["kvm", "status_json", "kvm_exits", "kernel_log"]
    settings = {} if native else {"gate": "vmfunc", "kvm": "on"}
    # KVM wants a CPU with MWAIT; where Linux waits by it each wait flushes all TLBs of the emulator.
    with test_machine(FLAVOUR, ",".join(tests), f"idle=nomwait kvm.tests={WORDS}", cpus=CPUS, native=native, mwait=True,
                      settings=settings) as machine:
        machine.expect("HYPERPS-TEST-BEGIN kvm\n", BOOT_TIMEOUT)
        start = machine.taken
        machine.expect(r"HYPERPS-TEST-END kvm \d+\n", TIMEOUT)
        text = machine.output[start:machine.taken]
        machine.expect(r"HYPERPS-TEST-DONE \d+\n", BOOT_TIMEOUT)
        ended = machine.wait(120) and machine.powered_off()
        ok(ended, f"{LABEL} {'' if native else 'with the monitor '}poweroff switches the machine off")
        checks = [[result == "ok", what] for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M)]
        if not all(passed for passed, _ in checks):
            note(text)
        return checks, machine.output, text


def native_checks():
    """Those of the native run, which is made if there is none."""
    try:
        with open(NATIVE, encoding="utf-8") as file:
            return json.load(file)
    except OSError:
        checks = boot(True)[0]
        record(checks)
        return checks


def record(checks):
    """Keeps the native run's."""
    with open(NATIVE + ".new", "w", encoding="utf-8") as file:
        json.dump(checks, file, indent=0)
    os.replace(NATIVE + ".new", NATIVE)


def check_monitor(checks, output):
    """What only the run under the monitor has."""
    native = native_checks()
    ok(checks == native, f"{LABEL} all {len(native)} checks are as they are natively")
    for mine, theirs in zip(checks, native):
        if mine != theirs:
            note(f"here {mine}, natively {theirs}")
            break
    ok("panic" not in "\n".join(monitor_lines(output)), f"{LABEL} the monitor did not panic")
    status = re.search(r"(?s)HYPERPS-TEST-BEGIN status_json\n(.*?)HYPERPS-TEST-END", output).group(1)
    ok(json.loads(status).get("kvm") == "on", f"{LABEL} the status says that KVM can be used")


def test():
    """See the module's text."""
    checks, output, text = boot(MODE == "native")
    for passed, what in checks:
        ok(passed, f"{LABEL} {what}")
    ok(len(checks) > 10, f"{LABEL} {len(checks)} checks")
    note("\n".join(line for line in text.splitlines() if line.startswith("# time: ")))
    complaints = [line for line in output.splitlines() if re.search(COMPLAINTS, line)]
    ok(not complaints, f"{LABEL} Linux has nothing to complain of")
    note("\n".join(complaints) or "no complaints")
    if MODE == "native":
        record(checks)
    else:
        check_monitor(checks, output)


main(test)
