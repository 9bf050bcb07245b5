#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm_unit_host.py DIR CPUS [NAME[,NAME]...]: the KVM project's own tests with the host's KVM, natively and under the monitor.

DIR has kvm-unit-tests (x86), built: its programs run in stock QEMU; or tools/testing/selftests/kvm of a kernel's source, built with
-static. What build/ has of an earlier native run counts. The results must be equal, but for DIFFERENCES; see docs/testing.md. NAMEs
are sections of x86/unittests.cfg, or programs; without them all, but for those that LEFT_OUT matches."""

import configparser
import difflib
import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

from live import BOOT_TIMEOUT, BUILD, main, monitor_lines, note, ok, test_machine
from machine import NESTED_DISK

DIR, CPUS, NAMES = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",") if len(sys.argv) > 3 else []
FLAVOUR = "cloud"
PEER = "kvm-unit-tests" if os.path.isdir(os.path.join(DIR, "x86")) else "kvm-selftests"
INITRD = os.path.join(BUILD, f"initrd-kvm-unit-{FLAVOUR}.img")
LABEL = f"{PEER}, {CPUS} CPUs:"
TIMEOUT = 4 * 3600
LIMIT = 90  # seconds of the machine's for a program, as in the project's own script
SLOWER = 4  # times as many under the monitor
# VMs in VMs; what takes too long in the emulator; docs/testing.md has more of both.
LEFT_OUT = r"vmx.*|ept.*|.*svm.*|hardware_disable_test|rseq_test|memslot_perf_test|max_guest_memory_test|dirty_log_test|xapic_ipi_test"
RESULT = r"(?m)(?:^|ROM\.\.)((?:PASS|FAIL|SKIP|XPASS|XFAIL|ok|not ok|1\.\.0 # SKIP)\b.*|  \S+\.c:\d+: .*)$"
# Of the kernel's selftests: less memory and fewer rounds than by default, which the emulator would take hours for.
ARGUMENTS = {"demand_paging_test": "-b 8M", "dirty_log_perf_test": "-b 8M", "kvm_page_table_test": "-b 8M",
             "memslot_modification_stress_test": "-b 8M -i 10"}
# Program, pattern of lines of the diff that may be there, and why; docs/testing.md has the list.
DIFFERENCES = {
    "xsave": r"[-+]PASS: XGETBV\(0x[1-9a-f][0-9a-f]*0{8}\) .* should succeed",  # the upper half is the TSC
    "tsc_scaling_sync": r"-exit status 0$|\+exit status 4$|\+1\.\.0 # SKIP .*TSC_CONTROL",  # TSC scaling is hidden
    # It uses "virtualize APIC accesses", which is hidden, without a look at what is offered.
    "vmx_apic_access_test": r"-exit status 0$|\+exit status 254$|\+  \S+vmx_apic_access_test\.c:\d+: false$",
    # No UMIP in the CPU: KVM emulates it by descriptor-table exiting, which is hidden. Half of the program goes without.
    "umip": r"-PASS: (no )?exception from (smsw|s[gil]dt|str|mov %cr0, %eax)$",
}


def unit_tests():
    """{name: (its file, the line of the list)} of kvm-unit-tests."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(DIR, "x86", "unittests.cfg"))
    found = {}
    for name in config.sections():
        section = config[name]
        if name in NAMES or section.get("arch") != "i386" and "nodefault" not in section.get("groups", ""):
            # The host's shell takes them: one has `date`.
            arguments = section.get("test_args", "").strip("'\"")
            found[name] = (os.path.join("x86", section["file"]),
                           f"run {name} {section['file']} {max(LIMIT, int(section.get('timeout', 0)))} {section.get('smp', '1')} "
                           f"\"{arguments}\" {shlex.join(section.get('qemu_params', '').split())}")
    return found


def selftests():
    """{name: (its file, the line of the list)} of the kernel's."""
    found = {}
    for path in sorted(glob.glob(os.path.join(DIR, "*.c")) + glob.glob(os.path.join(DIR, "x86_64", "*.c"))):
        name = os.path.basename(path)[:-2]
        if os.path.exists(path[:-2]):
            found[name] = (os.path.relpath(path[:-2], DIR), f"selftest {name} {LIMIT} {ARGUMENTS.get(name, '')}")
    return found


def programs():
    """Those that are to run."""
    found = unit_tests() if PEER == "kvm-unit-tests" else selftests()
    return {name: value for name, value in found.items() if (name in NAMES if NAMES else not re.fullmatch(LEFT_OUT, name))}


def make_initrd(names, factor, scratch, initrd):
    """Its initrd, and behind it another one with the programs, without symbols, and the list of them."""
    folder = os.path.join(scratch, "kut")
    os.mkdir(folder)
    for path in {path for path, _ in names.values()}:
        subprocess.run(["strip", "-o", os.path.join(folder, os.path.basename(path)), os.path.join(DIR, path)], check=True)
    with open(os.path.join(folder, "list"), "w", encoding="ascii") as file:
        file.write("".join(line + "\n" for line in [f"factor={factor}"] + [line for _, line in names.values()]))
    with open(INITRD, "rb") as first:
        initrd.write(first.read())
    initrd.write(subprocess.run("find kut | cpio --create --format=newc --owner=0:0 --quiet | gzip -n", shell=True,
                                cwd=scratch, stdout=subprocess.PIPE, check=True).stdout)
    initrd.flush()


def boot(names, native):
    """Runs all once; returns {name: [[result, ...], exit status]}, and all output."""
    mode = "native" if native else "monitor"
    tests = ["kvm_unit", "kernel_log"] if native else ["kvm_unit", "kernel_log", "status_json", "kvm_exits"]
    with tempfile.TemporaryDirectory() as scratch, tempfile.NamedTemporaryFile() as initrd:
        make_initrd(names, 1 if native else SLOWER, scratch, initrd)
        with test_machine(FLAVOUR, ",".join(tests), "idle=nomwait", cpus=CPUS, native=native, mwait=True, initrd=initrd.name,
                          memory=2560, second_disk=NESTED_DISK, settings={} if native else {"gate": "vmfunc", "kvm": "on"},
                          log=record(mode) + ".log") as machine:
            machine.expect("HYPERPS-TEST-BEGIN kvm_unit\n", BOOT_TIMEOUT)
            for name, what in ("kvm_unit", "KVM and QEMU's disk are there"), ("kernel_log", "Linux has nothing to complain of"):
                code = machine.expect(rf"HYPERPS-TEST-END {name} (\d+)\n", TIMEOUT).group(1)
                ok(code == "0", f"{LABEL} {mode}: {what}")
            machine.expect(r"HYPERPS-TEST-DONE \d+\n", BOOT_TIMEOUT)
            ok(machine.wait(120) and machine.powered_off(), f"{LABEL} {mode}: poweroff switches the machine off")
            output = machine.output
    results = {}
    for name, text, status in re.findall(r"(?s)KUT-BEGIN (\S+)\n(.*?)\nKUT-END \1 (\d+) ", output):
        # The first one may stand behind SeaBIOS's last words.
        results[name] = [re.findall(RESULT, text), int(status)]
    ok(results.keys() == names.keys(), f"{LABEL} {mode}: {len(results)} of {len(names)} programs ran")
    return results, output


def record(mode):
    """A path in build/, for what a run leaves there."""
    return os.path.join(BUILD, f"{PEER}-{mode}-{CPUS}")


def keep(mode, results):
    """Writes it there."""
    with open(record(mode) + ".json", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)


def native_results(names):
    """Those of the native run, which is made for what no earlier one has."""
    results, path = {}, record("native") + ".json"
    if os.path.exists(path) and os.path.getmtime(path) > max(os.path.getmtime(INITRD), os.path.getmtime(NESTED_DISK)):
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    missing = {name: program for name, program in names.items() if name not in results}
    if missing:
        results.update(boot(missing, True)[0])
        keep("native", results)
    return results


def compare(name, native, monitor):
    """One program's results. Its exit status is (error << 1) | 1, by the debug-exit port; 137 if the time limit ended it."""
    lists = [lines + [f"exit status {status}"] for lines, status in (native, monitor)]
    diff = [line for line in list(difflib.unified_diff(*lists, n=0, lineterm=""))[2:] if not line.startswith("@@")]
    diff = [line for line in diff if not re.match(DIFFERENCES.get(name, "$."), line)]
    if not ok(not diff, f"{LABEL} {name}: {len(native[0])} results, exit status {native[1]}, the same under the monitor"):
        note("- natively, + under the monitor\n" + "\n".join(diff))


def test():
    """See the module's text."""
    names = programs()
    missing = [path for path, _ in names.values() if not os.path.exists(os.path.join(DIR, path))]
    if not names or missing:
        ok(False, f"'{DIR}' lacks {missing or 'programs'}: build kvm-unit-tests, or the kernel's selftests of KVM, there")
        return
    native = native_results(names)
    monitor, output = boot(names, False)
    keep("monitor", monitor)
    for name in names:
        compare(name, native.get(name, [[], -1]), monitor.get(name, [[], -1]))
    ok("panic" not in "\n".join(monitor_lines(output)), f"{LABEL} the monitor did not panic")


main(test)
