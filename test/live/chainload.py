#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The stick starts the boot loader of a system installed on another disk; that loader's Linux runs under the monitor."""

import json
import os
import tempfile

from live import BOOT_TIMEOUT, TOP, kernel, main, monitor_lines, ok
from machine import BOCHS_OPTIONS, BUILD, CACHE, Machine, Stick, need, run

OPTIONS = f"{BOCHS_OPTIONS} loglevel=1 hyperps.run=status_json"
# For each boot loader: its file, where tools/setup has it from Debian, its place on the disk, and its configuration files.
LOADERS = [
    ("systemd-boot", "systemd-boot-efi/usr/lib/systemd/boot/efi/systemd-bootx64.efi", r"\EFI\systemd\systemd-bootx64.efi", {
        r"\loader\loader.conf": "timeout 0\ndefault debian.conf\n",
        r"\loader\entries\debian.conf":
            f"title Debian\nlinux /debian/vmlinuz\ninitrd /debian/initrd.img\noptions {OPTIONS}\n"}),
    ("GRUB", "grub-efi-amd64-bin/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", r"\EFI\debian\grubx64.efi", {
        r"\EFI\debian\grub.cfg": f"linux /debian/vmlinuz {OPTIONS}\ninitrd /debian/initrd.img\nboot\n"}),
]


def make_disk(path, program, place, texts):
    """A disk like the stick, but it holds an installed system and no HyperPS."""
    run(os.path.join(TOP, "tools", "mkimage"), path, "--loader",
        need(os.path.join(CACHE, "packages", program), "run tools/setup"))
    run("sgdisk", "--disk-guid=R", "--partition-guid=1:R", path)
    disk = Stick(path)
    for name in r"\EFI\BOOT\BOOTX64.EFI", r"\EFI\HYPERPS\hyperps.efi":
        disk.remove(name)
    disk.write(place, os.path.join(CACHE, "packages", program))
    disk.write(r"\debian\vmlinuz", kernel("cloud"))
    disk.write(r"\debian\initrd.img", os.path.join(BUILD, "initrd-test-cloud.img"))
    for name, text in texts.items():
        disk.write_text(name, text)


def test_loader(scratch, name, program, place, texts):
    """One boot loader, to Linux's own report."""
    disk, conf = os.path.join(scratch, "disk.img"), os.path.join(scratch, "hyperps.conf")
    make_disk(disk, program, place, texts)
    with open(conf, "w", encoding="ascii") as file:
        file.write(f"chainload = {place}\n")
    with Machine(emulator="bochs", cpus=2, conf=conf, second_disk=disk) as machine:
        machine.expect("HyperPS host: Linux .*, 2 CPUs", BOOT_TIMEOUT)
        lines = monitor_lines(machine.output)
        ok(lines.count("2 CPUs de-privileged") == 1, f"{name}: the hook of ExitBootServices worked")
        machine.expect("HYPERPS-TEST-BEGIN status_json", BOOT_TIMEOUT)
        status = json.loads(machine.expect(r"(?s)\{.*?\n\}", BOOT_TIMEOUT).group(0))
        ok(status["cpus_taken"] == status["cpus_listed"] == 2, f"{name}: Linux with 2 CPUs, both taken")
        ok(machine.wait(BOOT_TIMEOUT) and machine.powered_off(), f"{name}: poweroff switches the machine off")
        ok("panic" not in machine.output, f"{name}: no panic")


def test():
    """See the module's text."""
    for case in LOADERS:
        with tempfile.TemporaryDirectory() as scratch:
            test_loader(scratch, *case)


main(test)
