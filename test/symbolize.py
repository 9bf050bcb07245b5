#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/symbolize on a small program that lies where the monitor lies, and whose lines are known."""

import os
import re
import struct
import subprocess
import tempfile

from tap import finish, note, ok

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SYMBOLIZE = os.path.join(TOP, "tools", "symbolize")
INNER = """
static volatile int x;
#define MARK asm volatile("1: .pushsection .marks, \\"a\\"; .quad 1b; .popsection")
static inline __attribute__((always_inline)) void inner(void) {
	MARK; x = 1; }
"""
OUTER = """#include "inner.c"
const char version[] = "v1.2-3";
__attribute__((noreturn, noinline)) void stop(void);
void outer(void) { inner();
x = 2;
stop(); }
void stop(void) { for (;;) {
	MARK; x = 3; } }
"""
def main():
    """The checks."""
    with tempfile.TemporaryDirectory() as home:
        elf, source = os.path.join(home, "monitor.elf"), os.path.join(home, "outer.c")
        for path, text in ((source, OUTER), (os.path.join(home, "inner.c"), INNER)):
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
        subprocess.run(["gcc", "-O1", "-g", "-nostdlib", "-static", "-ffreestanding",
                        "-fPIE", "-fvisibility=hidden", "-no-pie",
                        "-fno-reorder-functions", "-fno-toplevel-reorder", "-Wl,-Ttext-segment=0xfffff00000000000", "-Wl,-e,outer",
                        "-Wl,--build-id=none", "-o", elf, source], check=True)
        marks = os.path.join(home, "marks")
        subprocess.run(["objcopy", "-O", "binary", "-j", ".marks", elf, marks], check=True)
        with open(marks, "rb") as file:
            inner, stop = struct.unpack("<2Q", file.read())
        disassembly = subprocess.run(["objdump", "-d", elf], capture_output=True, text=True, check=True).stdout
        # The call is the last instruction of `outer`: it returns to what lies behind.
        call, length = re.search(r"^(f\w+):\t((?:\w\w )+) *\tcall .*<stop>", disassembly, re.M).groups()
        after = int(call, 16) + len(length.split())

        def symbolize(text):
            return subprocess.run([SYMBOLIZE, "--elf", elf], input=text, capture_output=True, text=True, check=True).stdout

        panic = f"hyperps: cpu0: error: panic: exception 6, at {stop:x}, rsp fffff0000fffffff\r\n"
        answer = symbolize(panic)
        ok(answer.startswith(panic.replace("\r", "")), "the text itself stays")
        ok(re.search(rf"{stop:x}: stop\+0x[0-9a-f]+: stop at .*/outer.c:8\n", answer), "function, offset, file and line")
        note(answer)
        ok(answer.count("\n") == 2, "an address outside the image stays alone")
        answer = symbolize(f"rip 0x{inner:x}\n")
        ok(re.search(r": outer\+0x[0-9a-f]+: inner at .*/inner.c:5, inlined in outer at .*/outer.c:4\n", answer),
           "an inlined function is named with its caller")
        answer = symbolize(f"hyperps: cpu0: error: stack: {after:x} {inner:x}\n")
        ok(re.search(r": outer\+0x[0-9a-f]+: outer at .*/outer.c:6\n", answer), "a return address names the call's line")
        ok("inner" not in answer, "a word of the stack that no call returns to is left out")
        ok("warning" not in symbolize("hyperps: cpu0: HyperPS v1.2-3: 8 MiB\n"), "the same version: no warning")
        ok("another build" in symbolize("hyperps: cpu0: HyperPS v1.2: 8 MiB\n"), "another version: a warning")
        missing = subprocess.run([SYMBOLIZE, "--elf", elf + "2"], capture_output=True, text=True, check=False)
        ok(missing.returncode == 1 and "run make" in missing.stderr, "a missing image is said")
    finish()


main()
