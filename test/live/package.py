#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A Debian 12 on a disk of its own has the packages installed. hpsctl install in it makes a boot entry, and by that it then starts
under the monitor.

The emulator's firmware forgets its variables with each reset, so test/firmware/ plays its boot manager: it starts what the variable of
the entry names, as hpsctl made it in the first run."""

import base64
import json
import os
import re
import shutil
import struct
import tempfile

from live import BOOT_TIMEOUT, BUILD, main, monitor_lines, note, ok
from machine import NEXT_PATH, Machine, need

ENTRY_PATH = r"\EFI\FIRMWARE\entry.bin"
SHIM = r"\EFI\debian\shimx64.efi"


def debian_entry(disk):
    """The boot entry that the installation of Debian's boot loader makes."""
    with open(disk, "rb") as file:
        file.seek(1024)  # the first entry of the GPT's table
        kind_and_guid, first, last = struct.unpack("<32sQQ", file.read(48))
    path = SHIM.encode("utf-16-le") + b"\0\0"
    nodes = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, first, last - first + 1, kind_and_guid[16:], 2, 2)
    nodes += struct.pack("<BBH", 4, 4, 4 + len(path)) + path + b"\x7f\xff\x04\0"
    return struct.pack("<IH", 1, len(nodes)) + "debian\0".encode("utf-16-le") + nodes


def boot(disk, entry, scratch, cpus):
    """Boots by an entry; returns what the machine printed, and the disk as it is then."""
    paths = {ENTRY_PATH: os.path.join(scratch, "entry.bin"), NEXT_PATH: os.path.join(scratch, "next.txt")}
    with open(paths[ENTRY_PATH], "wb") as file:
        file.write(entry)
    with open(paths[NEXT_PATH], "w", encoding="ascii") as file:
        file.write(f"{ENTRY_PATH}\n\nboot-entry\n")
    with Machine(emulator="bochs", cpus=cpus, second_disk=disk, extra_files=paths) as machine:
        machine.expect("DEBIAN begin", BOOT_TIMEOUT)
        machine.expect("DEBIAN end", BOOT_TIMEOUT)
        ok(machine.wait(BOOT_TIMEOUT) and machine.powered_off(), "Debian switches the machine off")
        changed = os.path.join(scratch, "changed.img")
        shutil.move(os.path.join(machine.scratch, "disk2.img"), changed)
        return machine.output, changed


def runs(output):
    """What the programs printed that were run: {command line: [(output, status), ...]}."""
    found = {}
    for command, text, status in re.findall(r"(?s)DEBIAN run ([^\n]*)\n(.*?)DEBIAN status (\d+)", output):
        found.setdefault(command, []).append((text, int(status)))
    return found


def said(output, word):
    """What stands behind a word."""
    found = re.search(rf"DEBIAN {word} (.*)", output)
    return found.group(1) if found else None


def test_install(output):
    """The first run, without the monitor; returns the entry."""
    done = runs(output)
    ok(not monitor_lines(output), "Debian starts by shim and GRUB, without the monitor")
    ok(all(status == 0 for command in done.values() for _, status in command), "each command succeeds")
    ok("--create --disk /dev/sdb --part 1" in done["hpsctl install --dry-run"][0][0], "--dry-run says how efibootmgr is called")
    before, files = said(output, "order-before"), said(output, "files-before")
    ok(said(output, "order-dry") == before and said(output, "files-dry") == files, "and changes nothing")
    ok(said(output, "order-uninstalled") == before and said(output, "files-uninstalled") == files,
       "hpsctl uninstall leaves boot order and files as they were before hpsctl install")
    number, entry = said(output, "entry").split()
    ok(said(output, "order-installed") == f"{number},{before}", "the new entry is the first one; the old order follows")
    ok(f"Boot{number}, is there" in done["hpsctl install"][2][0], "a second hpsctl install finds that all is there")
    conf = done["cat /boot/efi/EFI/HYPERPS/hyperps.conf"][0][0]
    ok(f"chainload = {SHIM}\n" in conf, "hyperps.conf chainloads what the first entry started")
    return base64.b64decode(entry)


def test_monitor(output, cpus):
    """The second run."""
    done = runs(output)
    ok(f"{cpus} CPUs de-privileged" in monitor_lines(output), "by the new entry it starts under the monitor")
    text, status = done["systemctl is-active systemd-modules-load.service dev-hyperps.device"][0]
    ok(status == 0, "the module that DKMS built is loaded by modules-load.d, and /dev/hyperps is a unit of systemd's")
    note(text)
    text, status = done["hpsctl status --json"][0]
    state = json.loads(text) if status == 0 else {}
    ok(state.get("cpus_taken") == state.get("cpus_listed") == cpus, f"hpsctl status counts {cpus} CPUs, all taken")
    ok(done["hpsctl --version"][0][0].split()[-1:] == [state.get("version")], "hpsctl and monitor are of one version")
    text, _ = done["systemctl --failed --no-legend --plain"][0]
    ok(not text.strip(), "no unit of systemd's has failed")
    note(text)


def test():
    """See the module's text."""
    disk = need(os.path.join(BUILD, "debian.img"), "run make build/debian.img")
    with tempfile.TemporaryDirectory() as scratch:
        output, disk = boot(disk, debian_entry(disk), scratch, 1)
        entry = test_install(output)
        output, _ = boot(disk, entry, scratch, 2)
        test_monitor(output, 2)


main(test)
