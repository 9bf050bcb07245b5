#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""gdb stops the monitor on each of two CPUs, as docs/debugging.md says, and the machine goes on when gdb has left."""

import os
import re
import shutil
import socket
import subprocess

from live import BOOT_TIMEOUT, TOP, main, note, ok, test_machine

COMMANDS = """break exit_dispatch
continue
backtrace
step
hps-log
hps-cpus
hps-frame monitor.boot->region_base
hps-frame 0
hps-vmcs HOST_CR3
print monitor.boot->final_cr3
monitor cpus
monitor phys 3d800000
monitor phys ffffffff0000
delete
break exit_sipi
continue
info threads
hps-vmcs HOST_CR3
delete
detach
"""


def test():
    """See the module's text."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with test_machine(cpus=2, gdb=port) as machine:
        script = os.path.join(machine.scratch, "commands")
        with open(script, "w", encoding="ascii") as file:
            file.write(COMMANDS)
        done = subprocess.run([shutil.which("gdb") or "gdb", "-q", "-nx", "-batch", "-x", os.path.join(TOP, "tools", "gdb", "monitor.py"),
                               "-x", script], env=dict(os.environ, HYPERPS_GDB_PORT=str(port)), cwd=TOP, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOOT_TIMEOUT, check=False)
        text = done.stdout

        def says(pattern, what):
            ok(re.search(pattern, text, re.M), what)

        says(r"hit Breakpoint 1, exit_dispatch \(regs=0xf", "a breakpoint at exit_dispatch() is hit")
        says(r"^#1 .* in (vmx_exit|nested_exit_entry)", "the backtrace shows the entry from VM exit")
        says(r"^hyperps: cpu0: HyperPS .* 2 CPUs listed$", "hps-log shows the log")
        says(r"^cpu0: APIC ID 0, state 1", "hps-cpus shows a CPU that is in VMX")
        says(r": monitor, VM slot", "hps-frame knows a frame of the monitor's")
        says(r"^frame 0x0: (host|device),", "hps-frame knows a frame of the host's")
        says(r"^CPU 0: cr0 .* VMX root$", "the emulator says what mode the CPU is in")
        roots = re.findall(r"^HOST_CR3 +([0-9a-f]+)$", text, re.M)
        known = re.search(r"^\$1 = (\d+)$", text, re.M)
        ok(known and roots == [f"{int(known.group(1)):x}"] * 2, "hps-vmcs reads HOST_CR3 on both CPUs, and it is final_cr3")
        says(r"^3130534d53505948$", "RAM is read by its physical address")
        says(r"^not RAM$", "what is no RAM is not")
        says(r"^Thread 2 hit Breakpoint 2, exit_sipi", "the second CPU stops in exit_sipi()")
        note(text if done.returncode or "Error" in text else "")
        machine.expect("HyperPS host: Linux", BOOT_TIMEOUT)
        ok(True, "Linux boots on when gdb has left")


main(test)
