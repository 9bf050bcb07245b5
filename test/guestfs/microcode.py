#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""microcode.py FILE: an early initrd with a microcode update that Linux takes for one of this CPU's, whatever Intel CPU it is.

The update is one for every model and stepping of family 6, newer than any, and its data are zeros: a CPU would refuse it. Linux's
early loader only looks at the header, and writes the update's address to IA32_BIOS_UPDT_TRIG."""

import struct
import sys

PATH = "kernel/x86/microcode/GenuineIntel.bin"
REVISION, DATE, ALL_PLATFORMS = 0x7FFFFFF0, 0x01012023, 0xFF
SIGNATURES = [(model >> 4) << 16 | 6 << 8 | (model & 15) << 4 | stepping for model in range(256) for stepping in range(16)]


def negative_sum(data):
    """What makes the sum of all 32-bit words 0."""
    return -sum(word for word, in struct.iter_unpack("<I", data)) & 0xFFFFFFFF


def update():
    """SDM, "Microcode Update Facilities": header, data, and a table of further signatures."""
    table_size = 20 + 12 * len(SIGNATURES)
    total = -(-(48 + 2000 + table_size) // 1024) * 1024
    data = bytes(total - 48 - table_size)

    def header(checksum):
        return struct.pack("<9I12x", 1, REVISION, DATE, 0, checksum, 1, 0, len(data), total)

    # The sum of signature, platforms and checksum is the same in the header and in each line of the table.
    checksum = negative_sum(header(0) + data)
    lines = b"".join(struct.pack("<3I", s, ALL_PLATFORMS, checksum - s - ALL_PLATFORMS & 0xFFFFFFFF) for s in SIGNATURES)
    table = struct.pack("<2I12x", len(SIGNATURES), 0) + lines
    return header(checksum) + data + struct.pack("<2I12x", len(SIGNATURES), negative_sum(table)) + lines


def cpio(files):
    """An archive of the "newc" format."""
    archive = b""
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return archive + bytes(-len(archive) % 512)


def main():
    """See the module's text."""
    parts = PATH.split("/")
    folders = [("/".join(parts[:depth]), 0o040755, b"") for depth in range(1, len(parts))]
    with open(sys.argv[1], "wb") as file:
        file.write(cpio([*folders, (PATH, 0o100644, update())]))


main()
