#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/run as a user has it: what it shows on a terminal and what it leaves out, its last lines, its log, its limits."""

import os
import pty
import re
import select
import subprocess
import tempfile
import time

from live import BOOT_TIMEOUT, TOP, main, note, ok
from machine import Machine

RUN = os.path.join(TOP, "tools", "run")
# What `make run` prints besides: a new clone's set-up and build.
LINES, SETUP_AND_BUILD = 150, 40
NOISE = ("BdsDxe", "firmware:", "MemoryOverwriteRequest", "Linux version")


class Terminal:
    """A program on a terminal."""

    def __init__(self, *command, environment):
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
                                        env=environment)
        os.close(terminal)
        self.text = ""

    def read_until(self, pattern, timeout):
        """Whether what came since the start matches in time."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text, re.M) and time.monotonic() < end:
            if select.select([self.master], [], [], 1)[0]:
                try:
                    self.text += os.read(self.master, 4096).decode(errors="replace")
                except OSError:  # the program has ended
                    break
        return bool(re.search(pattern, self.text, re.M))

    def type(self, text):
        """Types."""
        os.write(self.master, text.encode())


def refused(*arguments):
    """The one line with which tools/run refuses these, or None."""
    done = subprocess.run([RUN, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)
    return done.stderr.strip() if done.returncode == 2 and done.stderr.count("\n") == 1 else None


def test_memory():
    """A machine with more memory than the emulator's own can be read from outside, up to the end of it."""
    with Machine(emulator="bochs", memory=3072) as machine:
        base = int(machine.expect(r"HyperPS: monitor at 0x([0-9A-F]+),").group(1), 16)
        machine.expect(r"warning: DMA is not held back")
        machine.pause()
        ok(any(machine.read_physical(base, 4096)), f"3072 MiB: the monitor is seen from outside at {base:#x}")
        ok(len(machine.read_physical((3072 << 20) - 4096, 4096)) == 4096, "so is the last page")


def test():
    """See the module's text."""
    test_memory()
    ok("64 to 3072" in (refused("--emulator", "bochs", "--memory", "4096") or ""), "too much memory: one line names the limits")
    # More memory than the emulator's own; letters in the path that mean something to it and to mtools.
    with tempfile.TemporaryDirectory(prefix="a b,c@@1M") as folder:
        log = os.path.join(folder, "serial log")
        terminal = Terminal(RUN, "--emulator", "bochs", "--memory", "3072", "--log", log,
                            environment=dict(os.environ, TMPDIR=folder))
        ok(terminal.read_until(r"^/root # ", BOOT_TIMEOUT), "3072 MiB, odd paths: the shell's prompt comes")
        shown = terminal.text.replace("\r", "")
        terminal.type("grep MemTotal /proc/meminfo; echo sum $((40 + 2))\n")
        ok(terminal.read_until(r"^sum 42", 60), "what is typed arrives")
        memory = re.search(r"MemTotal: *(\d+) kB", terminal.text)
        ok(memory and int(memory.group(1)) > 2800 << 10, "Linux has the memory")
        terminal.type("\x01x")
        ok(terminal.process.wait(30) == 0, "Ctrl-A x ends it with status 0")
        terminal.read_until(r"(?!)", 5)  # to the end
        with open(log, encoding="utf-8", errors="replace") as file:
            kept = file.read()
        ok(not os.listdir(folder) or os.listdir(folder) == ["serial log"], "nothing is left but the log")
    lines = shown.split("\n")
    told = [line for line in lines if not line.startswith("run: ")]
    ok(told[0].startswith("HyperPS loader "), "the first words are HyperPS's")
    ok(not any(word in shown for word in NOISE) and "\x1b" not in "".join(lines[:-1]), "no noise of the firmware's and the kernel's")
    ok(all(word in kept for word in ("BdsDxe: ", "HyperPS loader", "The demo passed", "sum 42")), "the log has everything")
    last = terminal.text.replace("\r", "").strip().split("\n")[-2:]
    ok(last[0] == "run: the demo passed" and last[1].startswith("run: the whole serial output: ") and last[1].endswith("serial log"),
       "the last lines are the verdict and the log's place")
    note("\n".join(last))
    ok(len(lines) + 2 <= LINES - SETUP_AND_BUILD, f"{len(lines) + 2} lines to the prompt, and at the end")


main(test)
