#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each way in which Linux restarts the machine leads back to the firmware, which boots the stick under the monitor again."""

import re

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok, test_machine
from machine import Machine

TRIPLE_FAULT = "triple fault in the host at .*: resetting the machine"
# What is done, the number of CPUs, words for the kernel, what is typed, what Linux and what the monitor says of it.
RESTARTS = [
    ("triple fault", 2, "reboot=t", "reboot -f", "Restarting system", [TRIPLE_FAULT]),
    ("keyboard controller", 1, "reboot=k", "reboot -f", "Restarting system", []),
    ("EFI runtime service", 1, "reboot=e", "reboot -f", "Restarting system", []),
    ("crash", 2, "panic=1", "echo c > /proc/sysrq-trigger", "Kernel panic - not syncing: sysrq", []),
]

# What private_page.ko gives away, and what it prints before.
CONTROL = {"idt": "exception 13", "tables": "page tables"}


def started_monitors(machine, cpus):
    """How many times a monitor took all the CPUs."""
    return sum(line == f"{cpus} CPUs de-privileged" for line in monitor_lines(machine.output))


def test_second_linux():
    """A plain reboot with 2 CPUs: the second boot is like the first, to Linux and to the test program."""
    with test_machine(tests="reboot", cpus=2) as machine:
        for boot in 1, 2:
            machine.expect("HyperPS loader", BOOT_TIMEOUT)
            count = machine.expect(r"HyperPS host: Linux .*, (\d+) CPUs", BOOT_TIMEOUT).group(1)
            ok(count == "2" and started_monitors(machine, 2) == boot, f"boot {boot}: Linux with 2 CPUs, all under the monitor")
        ok("panic" not in machine.output, "reboot: no panic")


def test_restart(what, cpus, words, line, linux, told):
    """From the shell to the second loader banner."""
    with Machine(cpus=cpus, append=f"quiet hyperps.demo=no {words}") as machine:
        machine.expect("/root # ", BOOT_TIMEOUT)
        ok(started_monitors(machine, cpus) == 1, f"{what}, {cpus} CPUs: all under the monitor before")
        before = len(machine.output)
        machine.send(line)
        machine.expect(linux)
        machine.expect("HyperPS loader", BOOT_TIMEOUT)
        lines = monitor_lines(machine.output[before:])
        good = len(lines) == len(told) and all(re.search(pattern, text) for pattern, text in zip(told, lines))
        ok(good, f"{what}, {cpus} CPUs: the loader runs again; the monitor said {len(told)} lines, as it should")
        note("\n".join(lines) or "the monitor said nothing")
        machine.expect("hyperps: cpu0: HyperPS ", BOOT_TIMEOUT)
        ok(True, f"{what}, {cpus} CPUs: the monitor starts again")


def test_private(what):
    """A host that gives away what its CPU needs to deliver an exception, then has one."""
    with test_machine(tests="private_fatal", words=f"hyperps.fatal={what}", cpus=2) as machine:
        machine.expect("HyperPS host: Linux", BOOT_TIMEOUT)
        before = len(machine.output)
        machine.expect("HyperPS loader", BOOT_TIMEOUT)
        text = machine.output[before:]
        ok(f"private_page: {CONTROL[what]}" in text, f"private {what}: works before it is given away")
        ok(re.search(TRIPLE_FAULT, text) and "panic" not in text, f"private {what}: a triple fault, and the loader runs again")
        note("\n".join(monitor_lines(text)))


def test():
    """See the module's text."""
    test_second_linux()
    for case in RESTARTS:
        test_restart(*case)
    for what in CONTROL:
        test_private(what)


main(test)
