#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each unfit machine gets one clear line that says what to do, and goes back to the firmware or on without protection.

Then the oldest and the newest CPU models that are fit boot Linux under the monitor."""

import os
import re
import tempfile

from live import BOOT_TIMEOUT, main, note, ok
from machine import BOCHS_OPTIONS, BOOT_PATH, BUILD, CONF_PATH, INITRD_PATH, KERNEL_PATH, LOADER_PATH, NEXT_PATH, Machine

LINUX = f"chainload = {KERNEL_PATH}\ninitrd = {INITRD_PATH}\noptions = {BOCHS_OPTIONS}\n"
START_LINUX = f"{KERNEL_PATH}\ninitrd={INITRD_PATH} {BOCHS_OPTIONS} quiet\n"
COPY_PATH = r"\EFI\AGAIN\again.efi"
NO_VTX = r"this CPU has no VT-x, .*\. Use an Intel CPU with VT-x, "
LOCKED = r"VT-x is switched off and locked by the firmware\. Switch on .* in the firmware setup, then power-cycle"
TOO_MUCH = r"not enough free memory: the monitor needs 4000 MiB .*\. Add memory, or lower memory in hyperps\.conf"
NO_FILE = r"there is no file {} on any volume \(.*\)\. Correct the line {} in hyperps\.conf"
NO_PROGRAM = r"{} is no EFI program .*\. Correct the line chainload"
ITSELF = r"{} is this loader itself\. Name the program to start after it in the line chainload"

# What is wrong, what the one line says, and the machine: `conf` is the text of hyperps.conf, `files` are texts on the stick.
STOPPED = [
    ("CPU without VMX", NO_VTX, {"cpu_model": "athlon64_venice"}),
    ("VMX without EPT", r"lacks EPT .*\. Use a CPU of 2010 or later", {"cpu_model": "core2_penryn_t9600"}),
    ("EPT without unrestricted guest", r"lacks unrestricted guest\. Use a CPU of 2010 or later",
     {"cpu_model": "corei5_lynnfield_750"}),
    ("VMX locked off", LOCKED, {"firmware": "lock-feature-control"}),
    ("more monitor memory than RAM", TOO_MUCH, {"conf": LINUX + "memory = 4000M\n"}),
    ("less monitor memory than needed", r"memory = 1M in hyperps\.conf is too little\. Write memory = auto, or \d+M at least",
     {"conf": LINUX + "memory = 1M\n"}),
    ("601 CPUs", r"more than 506 CPUs\. Switch some off in the firmware setup", {"firmware": "too-many-cpus mp-all"}),
    ("no execution in reserved memory", r"lets no code run in reserved memory\. Switch its memory protection off, or update it",
     {"firmware": "no-execute"}),
    ("dma = require without VT-d", r"dma = require, but DMA is not held back: no DMAR table \(no VT-d, .* write dma = auto",
     {"conf": LINUX + "dma = require\n"}),
    ("dma = require, a damaged DMAR table", r"a structure in the DMAR table is damaged\. Update the firmware\. ",
     {"firmware": "damaged-dmar", "conf": LINUX + "dma = require\n"}),
    ("64 MiB of RAM", r"(?i:memory).*\. Add memory", {"memory": 64}),
    ("no hyperps.conf", r"can't open .*hyperps\.conf on the loader's own volume \(.*\)\. Create it",
     {"remove_files": (CONF_PATH,)}),
    ("empty hyperps.conf", r"hyperps\.conf: no chainload line\. Write chainload = ", {"conf": ""}),
    ("no chainload", r"hyperps\.conf: no chainload line\. Write chainload = ", {"conf": "gate = auto\n"}),
    ("unknown key", r"hyperps\.conf line 4: unknown key 'memroy'\. The keys are ", {"conf": LINUX + "memroy = 64M\n"}),
    ("no '='", r"hyperps\.conf line 1: no '=' in 'chainload .*'\. Write key = value", {"conf": LINUX.replace("=", "", 1)}),
    ("bad value", r"hyperps\.conf line 4: bad value 'maybe'\. Write stop or continue", {"conf": LINUX + "unfit = maybe\n"}),
    ("no value", r"hyperps\.conf line 4: no value for 'serial'\. Write none, com1", {"conf": LINUX + "serial =\n"}),
    ("key given twice", r"hyperps\.conf line 4: a second line for 'initrd'\. Keep one", {"conf": LINUX + "initrd = \\x\n"}),
    ("binary hyperps.conf", r"hyperps\.conf line 1: a NUL byte\. Save the file as plain text",
     {"files": {CONF_PATH: bytes(range(256)) * 64}}),
    ("huge hyperps.conf", r"hyperps\.conf: the file is too big\. Keep it under 64 KiB", {"files": {CONF_PATH: b"#" * 70000}}),
    ("no kernel", NO_FILE.format(r"\\EFI\\none\.efi", "chainload"), {"conf": "chainload = \\EFI\\none.efi\n"}),
    ("no initrd, though unfit = continue", NO_FILE.format(r".*initrd\.img", "initrd"),
     {"conf": LINUX + "unfit = continue\n", "remove_files": (INITRD_PATH,)}),
    ("empty initrd", r".*initrd\.img is empty\. Correct the line initrd", {"files": {INITRD_PATH: b""}}),
    ("kernel that is no EFI program", NO_PROGRAM.format(".*hyperps.conf"), {"conf": f"chainload = {CONF_PATH}\n"}),
    ("the loader as its own next program", ITSELF.format(".*hyperps.efi"), {"conf": f"chainload = {LOADER_PATH}\n"}),
    ("a copy of the loader", ITSELF.format(".*again.efi"),
     {"conf": f"chainload = {COPY_PATH}\n", "extra_files": {COPY_PATH: os.path.join(BUILD, "hyperps.efi")}}),
]
# The same with unfit = continue.
CONTINUED = [
    ("VMX locked off", LOCKED, {"firmware": "lock-feature-control", "conf": LINUX + "unfit = continue\n"}),
    ("more monitor memory than RAM", TOO_MUCH, {"conf": LINUX + "unfit = continue\nmemory = 4000M\n"}),
    ("unknown key", "hyperps.conf line 4: unknown key 'x'", {"conf": LINUX + "x = 1\nunfit = continue\n"}),
    ("monitor = off", r"hyperps\.conf says monitor = off", {"conf": LINUX + "monitor = off\n"}),
]
# CPU models that are fit, what `hpsctl status` says of their features, and how the host calls with `gate = auto`. Bochs's fast
# short REP MOVSB (Ice Lake) hangs Linux, natively too.
HERE, MISSING = r"(in use|found.*)", "missing: the CPU lacks it"
LACKS = "VMCALL: a CPU lacks VMFUNC, execute-only pages, SMEP or SMAP"
FIT = [
    ("corei5_arrandale_m520", {"unrestricted guest": "in use", "VMFUNC with EPTP switching": MISSING}, LACKS),
    ("corei7_haswell_4770", {"VMFUNC with EPTP switching": HERE, "mode-based execute control": MISSING}, LACKS),
    ("corei7_icelake_u", {"VMFUNC with EPTP switching": "in use", "mode-based execute control": HERE, "SMAP": HERE},
     r"the gate \(VMFUNC\) on 1 CPUs.*"),
]


def loader_lines(machine):
    """What the loader said, but for its banner."""
    return re.findall(r"^HyperPS(?! loader \S+$).*", machine.output.split("HyperPS host:")[0], re.M)


def machine_for(scratch, *, conf=None, files=None, extra_files=None, **options):
    """A machine with these texts on its stick."""
    texts = dict(files or {}, **({CONF_PATH: conf.encode()} if conf is not None else {}))
    paths = dict(extra_files or {})
    for number, (path, text) in enumerate(texts.items()):
        paths[path] = os.path.join(scratch, str(number))
        with open(paths[path], "wb") as file:
            file.write(text)
    return Machine(emulator="bochs", extra_files=paths, **options)


def check_lines(machine, what, *patterns):
    """The loader said these lines and no other; the monitor did not panic."""
    lines = loader_lines(machine)
    good = len(lines) == len(patterns) and all(re.match(p, line) for p, line in zip(patterns, lines))
    if not ok(good and not re.search("(?i)panic", machine.output), what):
        note("\n".join(["the loader said:", *lines, "wanted:", *patterns]))


def test_stopped(scratch, wait, what, pattern, options):
    """One line, then back to the firmware: by a key, or after 10 s."""
    with machine_for(scratch, **options) as machine:
        machine.expect("HyperPS: stopped: .*\n")
        if not wait:
            machine.send_bytes(b" ")
        machine.expect(r"firmware: back from .*: status 0x8\w+")
        ok(machine.wait(60) and machine.powered_off(), f"{what}: back to the firmware {'by itself' if wait else 'by a key'}")
        check_lines(machine, f"{what}: one line says what to do", rf"HyperPS: stopped: .*{pattern}.*\.$")


def test_continued(scratch, what, pattern, options):
    """One line, then the kernel starts and finds its initrd."""
    with machine_for(scratch, **options) as machine:
        machine.expect(r"EFI stub: Loaded initrd from LINUX_EFI_INITRD_MEDIA_GUID")
        check_lines(machine, f"{what}, continued: one line says so", rf"HyperPS: continuing UNPROTECTED: .*{pattern}.*\.$")


def linux_status(machine):
    """What hpsctl status says once Linux is up."""
    machine.expect("HyperPS host: Linux", BOOT_TIMEOUT)
    return machine.expect(r"(?s).*?\nTry: hpsctl", BOOT_TIMEOUT).group(0)


def test_unprotected_linux(scratch):
    """Linux itself comes up without the monitor, and its partner says so."""
    with machine_for(scratch, cpu_model="athlon64_venice", conf=LINUX + "unfit = continue\n") as machine:
        status = linux_status(machine)
        ok("HyperPS is not running below this kernel" in status,
           "CPU without VMX, continued: Linux runs, hyperps.ko says that it is not protected")
        check_lines(machine, "CPU without VMX, continued: one line says so", rf"HyperPS: continuing UNPROTECTED: {NO_VTX}")


def test_twice(scratch):
    """The loader starts the firmware part, that starts the loader again, and when it is back Linux."""
    files = {NEXT_PATH: f"{LOADER_PATH}\n\n\n{START_LINUX}".encode()}
    with machine_for(scratch, conf=f"chainload = {BOOT_PATH}\n", files=files) as machine:
        status = linux_status(machine)
        check_lines(machine, "started twice: the second start does nothing and says so", "HyperPS: monitor at",
                    r"HyperPS: the firmware will overwrite the memory at its next start\.$",
                    r"HyperPS is already running; this loader does nothing more\. Start the operating system, or reset\.$")
        ok(machine.output.count("CPUs de-privileged") == 1 and "is running below this kernel" in status,
           "started twice: Linux boots under the first monitor")


def test_many_cpus(scratch):
    """500 CPUs have their slots, and room for the gate; that they are not there is said."""
    with machine_for(scratch, firmware="many-cpus mp-all", cpus=2, conf=LINUX + "unfit = continue\ngate = vmfunc\n") as machine:
        status = linux_status(machine)
        ok(re.search(r"hyperps: cpu0: .*calls by VMFUNC", machine.output) and "but the gate is not offered" not in machine.output,
           "502 CPUs: the gate is offered")
        ok(re.search(r"2 of 502 listed CPUs are de-privileged", machine.output), "502 CPUs: the monitor says how many it has")
        ok("NOT ALL CPUS ARE UNDER THE MONITOR" in status and "panic:" not in machine.output, "502 CPUs: so does hpsctl status")


def test_listed_cpus(scratch):
    """An ACPI table that lists more CPUs than the firmware found stops nothing; one that the firmware missed is taken all the same."""
    for words, said, what in [
            ("absent-cpu", "1 listed CPUs do not exist: neither the firmware found them nor the monitor", "a listed CPU that does not exist"),
            ("too-many-cpus", "600 listed CPUs do not exist: neither the firmware found them nor the monitor", "600 listed CPUs that do not exist"),
            ("mp-one", "HyperPS: monitor at .* MiB, 1 CPUs", "a listed CPU that the firmware did not find, but is there")]:
        with machine_for(scratch, firmware=words, cpus=2, append="quiet") as machine:
            status = linux_status(machine)
            ok(re.search(said, machine.output) and "2 CPUs de-privileged" in machine.output and "panic:" not in machine.output,
               f"{what}: both CPUs are de-privileged")
            ok("is running below this kernel" in status and "NOT ALL" not in status, f"{what}: Linux boots under the monitor")


def test_wild_table(scratch):
    """An ACPI table that can't be read is left out."""
    with machine_for(scratch, firmware="wild-table", append="quiet") as machine:
        status = linux_status(machine)
        ok(re.search(r"HyperPS: the firmware names an ACPI table at 0x0*7FFFFFF000, where none can be read\. It is left out\.", machine.output, re.I)
           and "is running below this kernel" in status, "an ACPI table that is nowhere is left out, and Linux boots under the monitor")


def test_dmar(scratch):
    """With a DMAR table that is wrong there is a line, and the machine goes on without the units; none with dma = off."""
    for words, reason in ("damaged-dmar", "a structure in the DMAR table is damaged. Update the firmware"), \
                         ("absent-unit", "the registers of a unit that the DMAR table names don't answer. Update the firmware"):
        with machine_for(scratch, firmware=words, append="quiet") as machine:
            status = linux_status(machine)
            ok(f"HyperPS: DMA is not held back: {reason}." in loader_lines(machine)
               and "is running below this kernel" in status, f"{words}: a line says so, and Linux boots under the monitor")
    with machine_for(scratch, firmware="damaged-dmar", settings={"dma": "off"}) as machine:
        machine.expect("HyperPS: monitor at .*\n")
        ok(not re.search("DMA", machine.output), "damaged-dmar with dma = off: no line")


def test_fit(scratch, model, features, calls):
    """Linux boots under the monitor on that CPU."""
    with machine_for(scratch, cpu_model=model, append="quiet clearcpuid=fsrm") as machine:
        status = linux_status(machine)
        ok("is running below this kernel" in status and not re.search("(?i)panic", machine.output),
           f"{model}: Linux boots under the monitor")
        ok(re.search(rf"^Calls by +{calls}$", status, re.M), f"{model}: calls by {calls}")
        for name, state in features.items():
            if not ok(re.search(rf"^ +{name} +{state}$", status, re.M), f"{model}: {name}: {state}"):
                note(status)


def test():
    """See the module's text."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(STOPPED):
            test_stopped(scratch, number == 0, *case)
        for case in CONTINUED:
            test_continued(scratch, *case)
        test_unprotected_linux(scratch)
        test_twice(scratch)
        test_many_cpus(scratch)
        test_listed_cpus(scratch)
        test_wild_table(scratch)
        test_dmar(scratch)
        for case in FIT:
            test_fit(scratch, *case)


main(test)
