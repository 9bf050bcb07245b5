#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""dma.py DMA CPUS FLAVOUR SECONDS [WORD]...: devices in QEMU with VT-d, under nested KVM, in Bochs.

DMA is what hyperps.conf says. `auto`: innocent devices are under load for so many seconds, and attack 18 is refused. `off`: the same
attack gets through, which is its control. build/attacks-nested.json gets the results of the former. Words: `caching` makes a unit that
caches what is not present; `reset` restarts the machine and begins anew; `kexec` and `crash` end with another kernel in the host."""

import json
import os
import re
import sys

from live import COMPLAINTS, PROMPT, kernel, main, monitor_lines, note, ok, record_attacks, relay, shell
from machine import BUILD, Machine

DMA, CPUS, FLAVOUR, SECONDS, WORDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]
LABEL = f"nested KVM with VT-d, dma = {DMA}, {CPUS} CPUs, {' '.join([FLAVOUR, *WORDS])}:"
BOOT_TIMEOUT, TIMEOUT = 1800, 2400
# The disks are files of zeros that tools/nested/init makes; a network card's number is the last byte of its address.
VIRTIO = "iommu_platform=on,disable-legacy=on"
EDU = "-device edu,dma_mask=0xffffffffffffffff"
DISKS = [f"-drive if=none,id=disk{n},format=raw,file=/tmp/disk{n}" for n in range(1, 5)]
NETS = [f"-netdev user,id=net{n},net=10.0.{n}.0/24,tftp=share" for n in range(1, 4)]
INNOCENT = [DISKS[0], "-device nvme,serial=disk1,drive=disk1", DISKS[1], "-device ide-hd,bus=ide.0,drive=disk2",
            DISKS[2], f"-device virtio-blk-pci,drive=disk3,{VIRTIO}",
            NETS[0], "-device e1000e,netdev=net1,mac=52:54:00:00:00:01,romfile=",
            NETS[1], f"-device virtio-net-pci,netdev=net2,mac=52:54:00:00:00:02,romfile=,{VIRTIO}",
            # These go around the unit.
            DISKS[3], "-device virtio-blk-pci,drive=disk4",
            NETS[2], "-device virtio-net-pci,netdev=net3,mac=52:54:00:00:00:03,romfile=",
            "-device qemu-xhci -device usb-tablet"]


KERNELS = {"kexec": ("kexec_same", "after_kexec"), "crash": ("kexec_crash", "after_crash")}


def make_machine(initrd, append):
    """QEMU with a unit, the device that is programmed, and the innocent ones."""
    unit = "intel-iommu,intremap=on" + (",caching-mode=on" if "caching" in WORDS else "")
    devices = [f"-machine kernel-irqchip=split -device {unit}", EDU, *(INNOCENT if SECONDS else [])]
    return Machine(cpus=CPUS, emulator="nested", kernel=kernel(FLAVOUR), initrd=os.path.join(BUILD, f"{initrd}-{FLAVOUR}.img"),
                   stick_device="nvme,serial=stick", emulator_options=" ".join(devices).split(),
                   append=f"loglevel=1 intel_iommu=off {append}", settings={"gate": "vmcall", "dma": DMA})


def check_load(machine):
    """All devices work, and are not refused anything."""
    text, code = shell(machine, f"/test/dma_load {SECONDS}", TIMEOUT)
    lines = re.findall(r"^(ok|not ok) - (.*)$", text, re.M)
    for result, what in lines:
        ok(result == "ok", f"{LABEL} {what}")
    ok(lines and not code, f"{LABEL} innocent devices under load: {len(lines)} checks, exit status {code}")
    note(text if code else "\n".join(line for line in text.splitlines() if line.startswith("#")))


def check_attack(machine, is_on):
    """Attack 18, which must be refused, or, as the control of all its checks, get through."""
    _, code = shell(machine, "hpsctl attack -jv dma >/tmp/json 2>/tmp/log", TIMEOUT)
    result = json.loads(shell(machine, "cat /tmp/json")[0])[0]
    log = shell(machine, "cat /tmp/log")[0]
    ok(result["control"] and not result["skipped"], f"{LABEL} attack 18: the controls work")
    if is_on:
        ok(result["refused"] and code == 0, f"{LABEL} attack 18 is refused")
        record_attacks(re.sub(r"\W+", "-", f"dma {' '.join(sys.argv[1:])}"), [result], "attacks-nested")
    else:
        # Each part of it, but what needs a unit that is on.
        through = re.findall(r"^not ok - (.*)$", log, re.M)
        ok(code == 1 and len(through) >= 10, f"{LABEL} attack 18 gets through ({len(through)} of its checks fail)")
    note(log)


def check_host(machine, is_on):
    """From its shell's first prompt on."""
    machine.expect(PROMPT, BOOT_TIMEOUT)
    text = shell(machine, "hpsctl status", TIMEOUT)[0]
    status = json.loads(shell(machine, "hpsctl status -j", TIMEOUT)[0])
    ok(status["cpus_taken"] == CPUS and status["dma_units"] == is_on, f"{LABEL} {CPUS} CPUs, {status['dma_units']} units are on")
    # A hypervisor's devices may go around its unit; the status says that they are held back as far as it does.
    ok(status["dma"].startswith("DMA is held back" if is_on else "DMA is not held back: ") and status["dma"] in text,
       f"{LABEL} the status says: {status['dma']}")
    ok(status["refused_dma"] == 0, f"{LABEL} booting needed nothing that the unit refuses ({status['refused_dma']})")
    if SECONDS:
        check_load(machine)
    check_attack(machine, is_on)


def check_other_kernel(program, name):
    """A kernel that kexec starts finds the units as they were: its own devices work, and so does the monitor."""
    with make_machine("initrd-test", f"hyperps.run={program} crashkernel=128M") as machine:
        for _ in range(2):
            machine.expect("HyperPS host: Linux", BOOT_TIMEOUT)
        relay(machine, name, LABEL, TIMEOUT)
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


def test():
    """See the module's text."""
    for word in WORDS:
        if word in KERNELS:
            check_other_kernel(*KERNELS[word])
            return
    with make_machine("initrd-dma", "hyperps.demo=no") as machine:
        check_host(machine, DMA != "off")
        if "reset" in WORDS:
            machine.send("reboot -f")
            check_host(machine, DMA != "off")
        complaints = [line for line in shell(machine, "dmesg", TIMEOUT)[0].splitlines() if re.search(COMPLAINTS, line)]
        ok(not complaints, f"{LABEL} Linux has nothing to complain of")
        note("\n".join(complaints) or "no complaints")
        machine.send("exit")
        ok(machine.wait(TIMEOUT) and machine.powered_off(), f"{LABEL} poweroff ends QEMU and the Linux around it")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
