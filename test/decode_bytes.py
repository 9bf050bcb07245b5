#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A disassembler (capstone) decodes random instructions, too, and must agree with guest/decode.c, also on what that refuses."""

import os
import subprocess
import sys

import capstone
from capstone import x86

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(TOP, os.environ.get("BUILD", "build"), "test", "unit", "decode")
SAMPLES = 60000
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
NAMES = {"mov", "movabs", "movzx", "movsx", "movsxd"}
FIELDS = ("length", "bytes", "write", "sign_extend", "destination_bytes", "reg", "high_byte", "immediate", "value")


def register_numbers():
    """Name of each general-purpose register: its number in hardware encoding, whether it is a high byte."""
    numbers = {}
    for number, name in enumerate(("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")):
        low = name[0] + "l" if number < 4 else name + "l"
        numbers.update({name: (number, 0), "e" + name: (number, 0), "r" + name: (number, 0), low: (number, 0)})
        if number < 4:
            numbers[name[0] + "h"] = (number, 1)
    for number in range(8, 16):
        numbers.update({f"r{number}{suffix}": (number, 0) for suffix in ("", "d", "w", "b")})
    return numbers


REGISTERS = register_numbers()


def expected(decoder, code):
    """What decode_mmio() has to say of this code, by the disassembler; None: refuse."""
    instruction = next(decoder.disasm(code, 0), None)
    if instruction is None or instruction.mnemonic not in NAMES or len(instruction.operands) != 2:
        return None
    destination, source = instruction.operands
    write = destination.type == x86.X86_OP_MEM
    memory, other = (destination, source) if write else (source, destination)
    if memory.type != x86.X86_OP_MEM or other.type not in (x86.X86_OP_REG, x86.X86_OP_IMM):
        return None
    immediate = other.type == x86.X86_OP_IMM
    number, high = (0, 0) if immediate else REGISTERS.get(instruction.reg_name(other.reg), (None, 0))
    if number is None:  # a segment register
        return None
    return {"length": instruction.size, "bytes": memory.size, "write": write, "sign_extend": "sx" in instruction.mnemonic,
            "destination_bytes": memory.size if write else other.size, "reg": number, "high_byte": high, "immediate": immediate,
            "value": other.imm % (1 << 8 * memory.size) if immediate else 0}


def has_refused_prefix(mode, code):
    """Whether LOCK, REPNE or REP stands before the opcode."""
    for byte in code:
        if byte in (0xF0, 0xF2, 0xF3):
            return True
        if byte not in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67) and not (mode == 64 and byte & 0xF0 == 0x40):
            return False
    return False


def is_short_movsxd(code, values):
    """MOVSXD without REX.W: this disassembler takes it for one with REX.W. The unit test has it."""
    opcode = code.lstrip(bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, *range(0x40, 0x50))))
    return opcode[:1] == b"\x63" and values["destination_bytes"] < 8


def main():
    """See the module's text."""
    decoders = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in MODES.items()}
    for decoder in decoders.values():
        decoder.detail = True
    lines = subprocess.run([PROGRAM, str(SAMPLES)], check=True, capture_output=True, text=True).stdout.splitlines()
    wrong, accepted = [], 0
    for line in lines:
        mode, code, *values = line.split()
        mode, code = int(mode), bytes.fromhex(code)
        found = None
        if values:
            accepted += 1
            found = dict(zip(FIELDS, (*map(int, values[:-1]), int(values[-1], 16))))
            found["value"] %= 1 << 8 * found["bytes"]
        want = None if has_refused_prefix(mode, code) else expected(decoders[mode], code)
        if found and want and is_short_movsxd(code, found):
            want.update(bytes=found["bytes"], destination_bytes=found["bytes"])
        if found != want:
            wrong.append(f"{mode}-bit {code.hex()}: {found}, not {want}")
    for text in wrong[:10]:
        tap.note(text)
    tap.ok(not wrong, f"{SAMPLES} random instructions: the disassembler agrees")
    tap.ok(len(lines) == SAMPLES and SAMPLES * 0.9 > accepted > SAMPLES * 0.1, f"{accepted} of them were decoded, the others refused")
    tap.finish()


main()
