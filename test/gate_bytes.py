#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A disassembler that knows nothing of the monitor looks at airlock pages which the monitor's own check accepted, at every offset."""

import os
import re
import subprocess
import sys

import capstone
from capstone import x86

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(TOP, os.environ.get("BUILD", "build"), "test", "unit", "gate_page")
PAGES = 3000
CODE_BYTES = 34
# What the airlock is meant to do, by offset: the fill, with and without its prefix, and the privileged instructions.
FILL = (0, 1)
PRIVILEGED = {11: "cli", 18: "mov", 25: "mov", 31: "vmfunc"}
# Bytes that are no instruction in 64-bit mode.
UNDEFINED = (0x1E, 0xD4)
PREFIXES = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, *range(0x40, 0x50)}
BAD_GROUPS = {x86.X86_GRP_CALL, x86.X86_GRP_INT, x86.X86_GRP_IRET, x86.X86_GRP_PRIVILEGE, x86.X86_GRP_VM}
BAD_NAMES = {"push", "pushfq", "pushf", "popf", "popfq", "sti", "in", "out", "enter", "xbegin", "lgdt", "lidt", "lldt", "ltr", "fxsave",
             "xsave", "cmpxchg", "cpuid", "rdmsr", "wrmsr", "hlt", "syscall", "sysenter", "swapgs", "wrgsbase", "wrfsbase"}


def writes_memory(instruction):
    """Whether it stores through an operand, or to where RDI or RSP points."""
    return any(op.type == x86.X86_OP_MEM and op.access & capstone.CS_AC_WRITE for op in instruction.operands) \
        or instruction.mnemonic.startswith(("push", "call", "stos", "ins", "rep ")) \
        or instruction.mnemonic in ("movsb", "movsw", "movsq")


def system_registers(instruction):
    """Control, debug and segment registers that it writes."""
    return [instruction.reg_name(op.reg) for op in instruction.operands
            if op.type == x86.X86_OP_REG and op.access & capstone.CS_AC_WRITE
            and re.fullmatch(r"[cd]r\d+|[cdefgs]s", instruction.reg_name(op.reg))]


def faults(decoder, page):
    """What is wrong with one page."""
    for offset in range(CODE_BYTES + 4):
        data = page[offset:offset + 15]
        instruction = next(decoder.disasm(data, 0x1000 + offset), None)
        if instruction is None:
            rest = data.lstrip(bytes(PREFIXES))
            if rest[0] not in UNDEFINED:
                yield f"offset {offset}: {data.hex()} is unknown to the disassembler"
            continue
        text = f"offset {offset}: {instruction.mnemonic} {instruction.op_str}"
        if instruction.mnemonic == "int3":
            continue
        if offset in PRIVILEGED:
            if not instruction.mnemonic.startswith(PRIVILEGED[offset]):
                yield f"{text}, not {PRIVILEGED[offset]}"
            continue
        if writes_memory(instruction) and offset not in FILL:
            yield f"{text} stores"
        if set(instruction.groups) & BAD_GROUPS - {x86.X86_GRP_PRIVILEGE} or instruction.mnemonic in BAD_NAMES:
            yield f"{text} is not harmless"
        if system_registers(instruction):
            yield f"{text} loads a system register"


def main():
    """See the module's text."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    pages = [bytes.fromhex(line) for line in
             subprocess.run([PROGRAM, str(PAGES)], check=True, capture_output=True, text=True).stdout.split()]
    wrong = [(page, fault) for page in pages for fault in faults(decoder, page)]
    for page, fault in wrong[:10]:
        print(f"# {page.hex()}: {fault}")
    print(f"{'not ok' if wrong or len(pages) != PAGES else 'ok'} 1 - {PAGES} accepted pages hold no other store at any of their offsets")
    # Positive control: a byte of the immediate that is a PUSH or a store.
    control = bytearray(pages[0])
    control[9:11] = b"\x50\x00"
    found = list(faults(decoder, bytes(control)))
    print(f"{'ok' if found else 'not ok'} 2 - a PUSH among them is found")
    control[13:17] = b"\x04\x89\x07\x90"
    found = [fault for fault in faults(decoder, bytes(control)) if "stores" in fault and "push" not in fault]
    print(f"{'ok' if found else 'not ok'} 3 - a store among them is found")
    print("1..3")
    sys.exit(bool(wrong or not found))


main()
