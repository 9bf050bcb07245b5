#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kvm_unit_tests.py DIR: programs of kvm-unit-tests (x86), built in DIR, run by hpsctl run; see docs/testing.md."""

import os
import subprocess
import sys
import tempfile

from live import BUILD, main, ok, relay, test_machine

# The newest model that boots here has UMIP and RDPID. Without PKU, with which access_test takes too long.
CPU_MODEL = "corei7_icelake_u"
OPTIONS = "--mmio-ignore 0xfee00000,4096"  # the APIC's registers
# Name, options of hpsctl run, and a pattern of the subtests that fail by the emulator. Left out: what needs an APIC, a
# PIT, a PMU, VMX, other CPUs, KVM's paravirtualization or QEMU's devices; docs/testing.md has the whole list.
TESTS = [
    ("hypercall", OPTIONS, ""),
    ("idt_test", OPTIONS, ""),
    ("memory", OPTIONS, ""),
    ("pcid", OPTIONS, ""),
    ("rmap_chain", OPTIONS, ""),
    ("setjmp", OPTIONS, ""),
    ("sieve", OPTIONS, ""),
    ("smap", OPTIONS, ""),
    ("smptest", OPTIONS, ""),
    ("tsc", OPTIONS, ""),
    ("tsc_adjust", OPTIONS, ""),
    ("umip", OPTIONS, ""),
    ("xsave", OPTIONS, ""),
    ("rdpru", OPTIONS, ""),
    ("la57", OPTIONS, ""),
    ("debug", OPTIONS, "blocking and DR7.GD|MOV SS . watchpoint . (int|INT3)"),
    ("access_test", OPTIONS, ""),
    ("realmode", "", ""),
]
# kvm-unit-tests' own exit code 0 is 1 here, as with QEMU's debug-exit device; 1 is 3: subtests failed.
SCRIPT = r"""#!/bin/sh
. /test/lib.sh
# run NAME OPTIONS KNOWN
run() {
	timeout -s TERM 600 hpsctl run $2 "/kut/$1.flat" </dev/null >$output 2>&1
	code=$?
	known=$(grep -c -E "^FAIL: .*(${3:-\$.})" $output)
	[ $code -eq 1 ] || { [ $code -eq 3 ] && [ "$known" -eq "$(grep -c ^FAIL: $output)" ]; }
	passed=$?
	result $passed "$1: exit code $code, $(grep -c ^PASS: $output) passed, $known known to fail"
	[ $passed -eq 0 ] || grep -v ^PASS: $output | tail -n 40 | sed 's/^/# /'
}
"""


def realmode(image):
    """Its 'sti inhibit' waits by HLT for an interrupt of QEMU's test device, which isn't there: a NOP instead."""
    ok(image.count(b"\xfb\xf4") == 1, "realmode has one STI, HLT")
    return image.replace(b"\xfb\xf4", b"\xfb\x90")


def make_initrd(directory, scratch, initrd):
    """The test initrd, and behind it another one with the programs, without symbols, and with the script."""
    for folder in ("kut", "test"):
        os.mkdir(os.path.join(scratch, folder))
    for name, *_ in TESTS:
        target = os.path.join(scratch, "kut", f"{name}.flat")
        subprocess.run(["strip", "-o", target, os.path.join(directory, "x86", f"{name}.flat")], check=True)
        if name == "realmode":
            with open(target, "rb+") as file:
                image = realmode(file.read())
                file.seek(0)
                file.write(image)
    with open(os.path.join(scratch, "test", "kvm_unit_tests"), "w", encoding="ascii") as file:
        file.write(SCRIPT + "".join("run" + "".join(f" '{word}'" for word in test) + "\n" for test in TESTS) + "summary\n")
    os.chmod(file.name, 0o755)
    with open(initrd, "wb") as file:
        with open(os.path.join(BUILD, "initrd-test-cloud.img"), "rb") as first:
            file.write(first.read())
        file.write(subprocess.run("find kut test | cpio --create --format=newc --owner=0:0 --quiet | gzip -n", shell=True,
                                  cwd=scratch, stdout=subprocess.PIPE, check=True).stdout)


def test():
    """See the module's text."""
    directory = sys.argv[1] if len(sys.argv) > 1 else ""
    missing = [name for name, *_ in TESTS if not os.path.exists(os.path.join(directory, "x86", f"{name}.flat"))]
    if missing:
        ok(False, f"no x86/{missing[0]}.flat in '{directory}': make kvm-unit-tests DIR=..., where its source lies; "
           "in there: ./configure --arch=x86_64 && make")
        return
    with tempfile.TemporaryDirectory() as scratch, tempfile.NamedTemporaryFile() as initrd:
        make_initrd(directory, scratch, initrd.name)
        with test_machine(tests="kvm_unit_tests", words="clearcpuid=fsrm", initrd=initrd.name,
                          cpu_model=CPU_MODEL,
                          emulator_options=["cpu: exclude_features=pku"]) as machine:
            relay(machine, "kvm_unit_tests", "kvm-unit-tests", 3600)


main(test)
