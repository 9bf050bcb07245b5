#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each way in which the host restarts the machine leads back to the firmware, which boots the stick under the monitor again.

What a guest had in its memory is not in the RAM any more then; what the host had is."""

import re
import struct
import time

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok, record_attacks, test_machine

CLEARED = "the memory that is not the host's is cleared first"
RESETS = "the host resets the machine, or has it sleep: " + CLEARED
TRIPLE_FAULT = "triple fault in the host at .*: resetting the machine"
# What is done, by which command, and what the monitor says of it. /test/ports writes as a hostile host would, past Linux.
RESTARTS = [
    ("triple fault", "echo triple > /sys/kernel/reboot/type; reboot -f", [TRIPLE_FAULT, "triple fault: " + CLEARED]),
    ("keyboard controller", "echo kbd > /sys/kernel/reboot/type; reboot -f", [RESETS]),
    ("EFI runtime service", "echo efi > /sys/kernel/reboot/type; reboot -f", [RESETS]),
    ("reset control register as part of a word", "/test/ports out w 0xcf8 0x0600", [RESETS]),
    ("system control port A", "/test/ports out b 0x92 0x01", [RESETS]),
    ("reset by a CPU without its APIC", "insmod /test/modules/escape.ko parts=reset; cat /proc/escape",
     ["1 CPUs do not answer", RESETS]),
    ("reset by the boot CPU, after an INIT", "insmod /test/modules/escape.ko parts=boot_cpu; taskset 2 cat /proc/escape", [RESETS]),
    ("crash", "sysctl -w kernel.panic=1; echo c > /proc/sysrq-trigger", [RESETS]),
]
# SLP_EN with a sleep type that means nothing to this chipset, so that it stays as it is. (S3 is a reset here, after which this
# firmware does not find its way.)
SLEEP = "/test/ports out w 0x$(sed -n 's/ *\\([0-9a-f]*\\)-.*PM1a_CNT_BLK.*/\\1/p' /proc/ioports) 0x3400"
# What does not restart it, though it reaches the same ports, and is done as without the monitor.
HARMLESS = [
    ("in b 0x64", r"0x[0-9a-f]{1,2}"), ("in b 0xcf9", r"0x[0-9a-f]{1,2}"), ("out l 0xcf8 0x80000600", ""), ("in l 0xcf8", "0x80000600"),
    ("out b 0x64 0xd1", ""), ("out b 0x60 0xf2", ""), ("out b 0xcf9 0x02", ""), ("in w 0xcf8", r"0x[0-9a-f]+"),
]
CPUS = 2
FOUND = []  # before and after each end: (pages of the guest's are there, or not any more; pages of the host's are)
MULTIPLIER = 0xbf58476d1ce4e5b9  # of test/guests/burner.c
HOST_PATTERN = b"the host keeps this\n"

# What private_page.ko gives away, and what it prints before.
CONTROL = {"idt": "exception 13", "tables": "page tables"}


def started_monitors(machine, cpus):
    """How many times a monitor took all the CPUs."""
    return sum(line == f"{cpus} CPUs de-privileged" for line in monitor_lines(machine.output))


def count_pages(machine):
    """How many pages of RAM hold what the guest wrote, and what the host wrote."""
    guest = host = 0
    step, sample = 8 * MULTIPLIER % 2**64, HOST_PATTERN * 3
    for base in range(0, machine.memory << 20, 1 << 20):
        block = machine.read_physical(base, 1 << 20)
        for at in range(0, 1 << 20, 4096):
            words = struct.unpack_from("<8Q", block, at + 2048)
            guest += all((b - a) % 2**64 == step for a, b in zip(words, words[1:]))
            host += sample in block[at:at + 100]
    return guest, host


def look(machine):
    """The same while the machine stands still."""
    machine.pause()
    try:
        return count_pages(machine)
    finally:
        machine.resume()


def command(machine, line, answer):
    """A line for the shell, and the answer in its output."""
    machine.send(line)
    found = machine.expect(rf"(?s)\n({answer}).*?/root # ")
    return found.group(1)


def test_harmless(machine):
    """Accesses to the trapped ports that must do what they do without the monitor."""
    for access, answer in HARMLESS:
        found = command(machine, f"/test/ports {access}", answer + "\r?\n" if answer else "")
        ok(True, f"ports {access}: {found.strip() or 'done'}")


def start_guest(machine, what):
    """From the loader to a guest at work; what it writes is in the RAM."""
    # Whatever else ends the run, a watchdog or the reset button, is the firmware's to handle; the harness plays its variables.
    machine.expect(r"MemoryOverwriteRequestControl is 0x0*11\s+.*\s+MemoryOverwriteRequestControlLock is 0x0*1\s", BOOT_TIMEOUT)
    ok(True, f"{what}: before it the firmware was asked to overwrite the memory, and not to let that be taken back")
    count = machine.expect(r"HyperPS host: Linux .*, (\d+) CPUs", BOOT_TIMEOUT).group(1)
    ok(int(count) == CPUS, f"{what}: before it Linux has all CPUs")
    machine.expect("/root # ", BOOT_TIMEOUT)
    machine.send("hpsctl run --memory 32M /guests/burner -- 24 1000000 > /tmp/burner & yes 'the host keeps this' | head -c 4194304 > /tmp/host; "
                 "until grep -q 'round 1 of' /tmp/burner; do sleep 0.1; done; echo guest is ready")
    machine.expect(r"(?s)\nguest is ready.*?/root # ", BOOT_TIMEOUT)
    guest, host = look(machine)
    FOUND.append((guest > 1000, host > 500))
    ok(guest > 1000 and host > 500, f"{what}: {guest} pages of RAM hold what a guest wrote, {host} what the host wrote")


def test_restart(machine, what, line, told):
    """A restart, up to the second loader banner."""
    started = started_monitors(machine, CPUS)
    start_guest(machine, what)
    ok(started_monitors(machine, CPUS) == started + 1, f"{what}: before it all CPUs are under a monitor")
    before = len(machine.output)
    machine.send(line)
    machine.expect("HyperPS loader", BOOT_TIMEOUT)
    guest, host = look(machine)
    FOUND.append((guest == 0, host > 500))
    ok(guest == 0, f"{what}: after it {guest} pages hold what the guest wrote")
    ok(host > 500, f"{what}: after it {host} pages hold what the host wrote")
    lines = monitor_lines(machine.output[before:])
    good = len(lines) == len(told) and all(re.search(pattern, text) for pattern, text in zip(told, lines))
    ok(good, f"{what}: the monitor said {len(told)} lines, as it should")
    note("\n".join(lines) or "the monitor said nothing")


def test_sleep(machine):
    """The last one: it does not come back."""
    start_guest(machine, "sleep")
    test_harmless(machine)
    machine.send(SLEEP)
    machine.expect(RESETS)
    for _ in range(60):
        guest, host = look(machine)
        if not guest:
            break
        time.sleep(1)
    FOUND.append((guest == 0, host > 500))
    ok(guest == 0, f"sleep: after it {guest} pages hold what the guest wrote")
    ok(host > 500, f"sleep: after it {host} pages hold what the host wrote")


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
    with test_machine(words="quiet hyperps.demo=no", cpus=CPUS) as machine:
        for case in RESTARTS:
            test_restart(machine, *case)
        test_sleep(machine)
        # Before: what can be found is found; after: nothing of the guest's is, but what the RAM kept of the host.
        control = all(guest for guest, _ in FOUND[::2]) and all(host for _, host in FOUND)
        record_attacks("restart", [{"name": "escape", "cpus": CPUS, "gate": "vmfunc", "control": control,
                                    "refused": all(cleared for cleared, _ in FOUND[1::2])}])
        ok("panic:" not in "\n".join(monitor_lines(machine.output)), "no panic of the monitor's")
    for what in CONTROL:
        test_private(what)


main(test)
