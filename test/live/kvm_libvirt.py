#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm_libvirt.py native|monitor CPUS: Debian's libvirt and QEMU in an installed Debian 12, by test/live/at_boot_libvirt.

`native`: without the monitor. `monitor`: with `kvm = on`; each check of the native run must be there, with the same result, and libvirt
must tell the same of the CPU, but for what is hidden. That run comes first if build/ has none of the same disk and CPUS."""

import difflib
import json
import os
import re
import sys

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok
from machine import BUILD, Machine, need

MODE, CPUS = sys.argv[1], int(sys.argv[2])
LABEL = f"libvirt, {MODE}, {CPUS} CPUs:"
DISK, KERNEL, INITRD = (os.path.join(BUILD, name) for name in ("libvirt.img", "libvirt-vmlinuz", "libvirt-initrd.img"))
NATIVE = os.path.join(BUILD, f"libvirt-native-{CPUS}.json")
ROOT = "PARTUUID=48595053-0000-4000-8000-000000000012"  # of mkdebian
TIMEOUT = 5400
# What libvirt tells otherwise under the monitor: docs/host.md, "CPUID", and docs/nested.md, "Hidden".
HIDDEN = ["+ <counter name='tsc' frequency='200000000' scaling='no'/>", "- <counter name='tsc' frequency='200000000' scaling='yes'/>",
          "- <feature name='ds'/>", "- <feature name='ds_cpl'/>", "- <feature name='dtes64'/>", "- <feature policy='require' name='umip'/>"]


def boot(native):
    """Boots the Debian once; returns its checks, [[whether it passed, text], ...], and all output."""
    # Why nomwait: kvm.py. Why enable_apicv: tools/tools.mk; under the monitor it is hidden.
    words = f"root={ROOT} ro quiet loglevel=1 idle=nomwait" + (" kvm_intel.enable_apicv=0" if native else "")
    with Machine(emulator="bochs", cpus=CPUS, memory=2048, kernel=KERNEL, initrd=INITRD, second_disk=need(DISK, "run make build/libvirt.img"),
                 append=words, native=native, mwait=True, settings={} if native else {"gate": "vmfunc", "kvm": "on"}) as machine:
        machine.expect("LIBVIRT begin", TIMEOUT)  # systemd, on a machine that may be busy
        start = machine.taken
        machine.expect(r"LIBVIRT end \d+ checks, \d+ failed\n", TIMEOUT)
        text = machine.output[start:machine.taken]
        ok(machine.wait(BOOT_TIMEOUT) and machine.powered_off(), f"{LABEL} {'native: ' if native else ''}Debian switches the machine off")
        checks = [[result == "ok", what] for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M)]
        note(text if not all(passed for passed, _ in checks) else "")
        return checks, machine.output


def capabilities(output):
    """What libvirt says of the host's CPU, and of what it would give a VM, in lines."""
    return [line.strip() for line in re.search(r"(?s)CAPABILITIES begin\n(.*?)CAPABILITIES end\n", output).group(1).splitlines()]


def record(checks, output):
    """Keeps the native run's."""
    with open(NATIVE + ".new", "w", encoding="utf-8") as file:
        json.dump({"checks": checks, "capabilities": capabilities(output)}, file, indent=0)
    os.replace(NATIVE + ".new", NATIVE)


def native_run():
    """The native run's, which is made if there is none."""
    if not os.path.exists(NATIVE) or os.path.getmtime(NATIVE) < os.path.getmtime(DISK):
        record(*boot(True))
    with open(NATIVE, encoding="utf-8") as file:
        return json.load(file)


def printed(output, name):
    """The JSON that hpsctl printed."""
    return json.loads(re.search(rf"(?s){name} begin\n(\{{\n.*?\n\}})\n", output).group(1))


def check_monitor(checks, output):
    """What only the run under the monitor has."""
    native = native_run()
    ok(checks == native["checks"], f"{LABEL} all {len(native['checks'])} checks are as they are natively")
    for mine, theirs in zip(checks, native["checks"]):
        if mine != theirs:
            note(f"here {mine}, natively {theirs}")
            break
    changed = sorted(line for line in difflib.ndiff(native["capabilities"], capabilities(output)) if line[0] in "-+")
    ok(changed == HIDDEN, f"{LABEL} libvirt tells the same of the CPU, but for what is hidden")
    note("\n".join(changed))
    ok("panic" not in "\n".join(monitor_lines(output)), f"{LABEL} the monitor did not panic")
    status = printed(output, "STATUS")
    ok(status["kvm"] == "on" and status["cpus_taken"] == CPUS, f"{LABEL} the status says that VMX is offered")
    exits = printed(output, "EXITS")
    ok(exits["total"] > 10000, f"{LABEL} hpsctl exits --l2 counts ({exits['total']})")
    note(exits["reasons"])


def test():
    """See the module's text."""
    checks, output = boot(MODE == "native")
    for passed, what in checks:
        ok(passed, f"{LABEL} {what}")
    ok(len(checks) > 50, f"{LABEL} {len(checks)} checks")
    if MODE == "native":
        record(checks, output)
    else:
        check_monitor(checks, output)


main(test)
