#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""host.py FLAVOUR CPUS TEST[,TEST]... [KEY=VALUE]...: with these lines in hyperps.conf a stock kernel boots to user space under the monitor; the machine's state is as claimed.

The monitor's page tables and the host view are walked from outside; then the given programs of test/guestfs run."""

import json
import os
import re
import sys

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok, relay, test_machine
from gate_walk import check_gate
from walk import check_host_view, check_monitor_tables, check_page_marks

FLAVOUR, CPUS, TESTS = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
# So much that what vm_donate donates lies above the first GiB; `gate` after it then walks tables there. kexec_crash fills all.
MEMORY = 2048 if TESTS[0] == "vm_donate" else 512 if "kexec_crash" in TESTS else 1024
# What Linux's drivers look for.
MSRS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "msrs.def") if "drivers" in TESTS else None
SETTINGS = {"gate": "vmfunc", **dict(word.split("=") for word in sys.argv[4:])}
LABEL = f"{', '.join([FLAVOUR, f'{CPUS} CPUs', *sys.argv[4:]])}:"
# The kernel that these start reports in their place.
SECOND_KERNELS = {"kexec_same": "after_kexec", "kexec_crash": "after_crash"}
# KVM wants a CPU with MWAIT, and the emulator is slow while Linux waits by it on several.
KVM = "kvm_start" in TESTS
WORDS = ("crashkernel=128M " if "kexec_crash" in TESTS else "") + ("idle=nomwait" if KVM else "")
LOW_PAGES = re.compile(r"low pages at ([0-9a-f]+), (\d+) KiB")


def check_gates(read, status, region, hidden):
    """The views of each CPU's gate."""
    faults, count = check_gate(read, region, hidden, status["host_view_eptp"], CPUS)
    ok(not faults, f"{LABEL} {count} gates: no frame of an airlock serves as page-table root; the monitor view holds the monitor alone")
    note("\n".join(faults[:10]) or "no faults")
    # Positive controls: with another list, or monitor memory that is smaller, the same check must complain.
    ok(check_gate(read, region, hidden, status["host_view_eptp"], CPUS + 1)[0], f"{LABEL} the check misses a gate that is not there")

    def lie(address, length):
        """Memory in which every entry of a table is global."""
        data = read(address, length)
        words = [int.from_bytes(data[i:i + 8], "little") for i in range(0, length, 8)]
        if data[0] == 0xCC or words[0] == status["host_view_eptp"]:
            return data
        return b"".join((value | (0x100 if value else 0)).to_bytes(8, "little") for value in words)

    faults = check_gate(lie, region, hidden, status["host_view_eptp"], CPUS)[0]
    ok(any("leaf for" in fault for fault in faults), f"{LABEL} the check finds a global entry in an airlock")
    less = [(base, size - 4096) for base, size in hidden]
    ok(check_gate(read, region, less, status["host_view_eptp"], CPUS)[0], f"{LABEL} the check finds a frame that is not the monitor's")


def check_tables(machine, status, frames):
    """Walks both hierarchies in the machine's memory while it stands still."""
    machine.pause()
    try:
        read = machine.read_physical
        faults, count, spans = check_monitor_tables(read, status["monitor_cr3"])
        ok(not faults, f"{LABEL} the monitor's {count} mappings: none writable and executable, none outside its slots")
        note("\n".join(faults[:10]) or "no faults")
        region = (status["memory_base"], status["memory_size"])
        low = LOW_PAGES.search("\n".join(monitor_lines(machine.output)))
        hidden = [region, (int(low.group(1), 16), int(low.group(2)) << 10), (status["kvm_pool_base"], status["kvm_pool_size"])]
        faults = check_host_view(read, status["host_view_eptp"], status["physical_address_bits"], hidden)
        ok(not faults, f"{LABEL} the host view is identity without the monitor's memory")
        note("\n".join(faults[:10]) or "no faults")
        # The other way round: whatever the monitor maps but the APIC is its own, and so hidden from the host.
        outside = [f"{base:#x}" for base, size in spans
                   if base != 0xFEE00000 and not any(b <= base and base + size <= b + s for b, s in hidden)]
        ok(not outside, f"{LABEL} every frame that the monitor maps is hidden from the host")
        note(" ".join(outside) or "none outside")
        # Not kvm_pool: the monitor view has nothing whose bytes the host chooses.
        check_gates(read, status, region, hidden[:2])
        states = [key for key in frames if not key.startswith("table_")]
        faults = check_page_marks(read, frames, states, hidden)
        ok(not faults and frames["host"] > 0, f"{LABEL} the page marks name exactly the hidden frames as the monitor's")
        note("\n".join(faults[:10]) or "no faults")
        ok(check_page_marks(read, frames, states, hidden[:1]), f"{LABEL} the check finds a frame that is marked wrongly")
        # Positive control: with one frame of the host's in the list of hidden ones, the same check must complain.
        wrong = check_host_view(read, status["host_view_eptp"], status["physical_address_bits"], hidden + [(1 << 20, 4096)])
        ok(wrong, f"{LABEL} the check finds a frame that is not hidden")
    finally:
        machine.resume()


def check_donated(machine, status):
    """What the host has donated meanwhile is mapped for the monitor, and hidden from the host."""
    machine.pause()
    try:
        read = machine.read_physical
        faults, _, spans = check_monitor_tables(read, status["monitor_cr3"])
        region = (status["memory_base"], status["memory_size"])
        low = LOW_PAGES.search("\n".join(monitor_lines(machine.output)))
        known = [region, (int(low.group(1), 16), int(low.group(2)) << 10),
                 (status["kvm_pool_base"], status["kvm_pool_size"]), (0xFEE00000, 4096)]
        donated = [(base, size) for base, size in spans if not any(b <= base and base + size <= b + s for b, s in known)]
        good = donated and all(size == 2 << 20 for _, size in donated)
        ok(not faults and good, f"{LABEL} the monitor maps what was donated, writable and not executable")
        note("\n".join(faults[:10]) or f"{len(donated)} ranges")
        faults = check_host_view(read, status["host_view_eptp"], status["physical_address_bits"], known[:3] + donated)
        ok(not faults, f"{LABEL} the host view lacks what was donated and nothing else")
        note("\n".join(faults[:10]) or "no faults")
    finally:
        machine.resume()


def test():
    """See the module's text."""
    tests = ",".join(["status_json", "frames_json", *TESTS])
    with test_machine(FLAVOUR, tests, WORDS, cpus=CPUS, memory=MEMORY, msrs=MSRS, settings=SETTINGS,
                      mwait=SETTINGS.get("kvm") == "on" and (KVM or CPUS == 1)) as machine:
        machine.expect(r"HyperPS host: Linux", BOOT_TIMEOUT)
        lines = monitor_lines(machine.output)
        ok(any(re.search(rf"\b{CPUS} CPUs de-privileged", line) for line in lines), f"{LABEL} all CPUs are in VMX before Linux")
        machine.expect("HYPERPS-TEST-BEGIN status_json", BOOT_TIMEOUT)
        status = json.loads(machine.expect(r"(?s)\{.*?\n\}", BOOT_TIMEOUT).group(0))
        ok(status["cpus_taken"] == status["cpus_listed"] == CPUS, f"{LABEL} status counts {CPUS} CPUs, all taken")
        kvm, size = SETTINGS.get("kvm", "off"), status["kvm_pool_size"]
        good = status["kvm"].startswith(kvm if size else "not enough free memory" if kvm == "on" else "kvm = off")
        ok(good and (size > 0) == (status["kvm_tables"] > 0), f"{LABEL} with {size >> 20} MiB of kvm_pool VMX is {status['kvm']}")
        machine.expect("HYPERPS-TEST-BEGIN frames_json", BOOT_TIMEOUT)
        frames = json.loads(machine.expect(r"(?s)\{.*?\n\}", BOOT_TIMEOUT).group(0))
        check_tables(machine, status, frames)
        for name in TESTS:
            if name == "kexec_crash":
                text = machine.expect(r"(?s)HYPERPS-TEST-BEGIN kexec_crash\n(.*?)# the kernel panics\n", BOOT_TIMEOUT).group(1)
                for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M):
                    ok(result == "ok", f"{LABEL} kexec_crash: {what}")
                note(text)
            relay(machine, SECOND_KERNELS.get(name, name), LABEL)
            if name == "vm_donate":
                check_donated(machine, status)
        if TESTS[-1] not in SECOND_KERNELS:
            ok(machine.expect(r"HYPERPS-TEST-DONE (\d+)\n").group(1) == "0", f"{LABEL} all test programs passed")
            ok(machine.wait(120) and machine.powered_off(), f"{LABEL} poweroff switches the machine off")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
