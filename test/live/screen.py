#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A panic is drawn on the firmware's screen, and only where no memory can be that is anybody's."""

import os
import re

from live import BUILD, main, note, ok
from machine import Machine

CARD = "pci: enabled=1, chipset=i440fx, slot1=pcivga"
WIDTH, HEIGHT, PITCH, GLYPH = 800, 600, 1024, (8, 16)
PIECE = 64 << 20
LAST = "this CPU is stopped for good; reset the machine"


def font():
    """Rows of 8 pixels by character, from the file that the monitor has."""
    with open(os.path.join(BUILD, "monitor", "font.bin"), "rb") as file:
        data = file.read()
    return {bytes(data[i:i + 16]): chr(32 + i // 16) for i in range(0, len(data), 16)}


def text_of(pixels, glyphs):
    """The text on a screen, down to the first row that has anything else."""
    columns, lines = WIDTH // GLYPH[0], []
    for row in range(HEIGHT // GLYPH[1]):
        cells = []
        for column in range(columns):
            glyph = bytearray()
            for y in range(GLYPH[1]):
                at = ((row * GLYPH[1] + y) * PITCH + column * GLYPH[0]) * 4
                words = [pixels[at + 4 * x:at + 4 * x + 4] for x in range(8)]
                if any(word not in (b"\0\0\0\0", b"\xff\xff\xff\xff") for word in words):
                    return lines
                glyph.append(sum((word[0] >> 7) << (7 - x) for x, word in enumerate(words)))
            cells.append(glyphs.get(bytes(glyph), "\0"))
        lines.append("".join(cells))
    return lines


def find_card(pid, row, number):
    """The frame buffer of the emulator's graphics card, which lies somewhere in the emulator: by one of its rows of pixels."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
        for line in maps:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if " rw" not in line or end - start < 16 << 20:
                continue
            for piece in range(start, end, PIECE):
                memory.seek(piece)
                at = memory.read(min(PIECE + len(row), end - piece)).find(row)
                if at >= 0:
                    memory.seek(piece + at - number * PITCH * 4)
                    return memory.read(PITCH * HEIGHT * 4)
    return None


def row_of(text, glyphs, y):
    """One row of the text's pixels."""
    by_text = {character: rows for rows, character in glyphs.items()}
    return b"".join(b"\xff" * 4 if by_text[c][y] >> (7 - x) & 1 else bytes(4) for c in text for x in range(8))


def wrapped(lines):
    """As the monitor breaks lines that are longer than the screen."""
    columns = WIDTH // GLYPH[0]
    return [line[i:i + columns].ljust(columns) for line in lines for i in range(0, len(line), columns)]


def test_screen(kind, glyphs, drawn):
    """The firmware lists a CPU that is not there, so that the monitor panics at the end of the boot services."""
    with Machine(emulator="bochs", cpus=2, firmware=f"absent-cpu mp-all screen-{kind}", emulator_options=[CARD]) as machine:
        base = int(machine.expect(r"firmware: screen at 0x([0-9A-Fa-f]+)\n").group(1), 16)
        machine.expect(r"calls by VMCALL")
        # Through the middle of the letters: unlike the first one it is not empty.
        row = row_of("hyperps: cpu0: error: ", glyphs, 7)
        if kind == "bar":
            ok(base >= 1 << 31 and find_card(machine.pid, row, 7) is None, f"{kind}: at {base:#x}; before the panic its text is nowhere")
        machine.expect(LAST + "\n")
        told = re.findall(r"^(hyperps: cpu\d+: error: .*)$", machine.output, re.M)
        ok(any("panic: not every CPU could be taken" in line for line in told), f"{kind}: the monitor panics")
        pixels = find_card(machine.pid, row, 7) if kind == "bar" else machine.read_physical(base, PITCH * HEIGHT * 4)
        lines = text_of(pixels or b"", glyphs)
        if drawn:
            ok(lines == wrapped(told), f"{kind}: the screen has the {len(told)} lines of the panic")
            note("\n".join(lines))
            ok(set(pixels[len(lines) * GLYPH[1] * PITCH * 4:]) == {0x20}, f"{kind}: the rest of the frame buffer is as it was")
        else:
            ok(set(pixels) == {0x20}, f"{kind}: memory that the host may use and give away is not drawn on")


def test():
    """See the module's text."""
    glyphs = font()
    ok(len(glyphs) == 95 and glyphs[bytes(16)] == " ", "the font has a glyph for each printable character")
    test_screen("reserved", glyphs, True)
    test_screen("ram", glyphs, False)
    test_screen("bar", glyphs, True)


main(test)
