# SPDX-License-Identifier: MIT
"""The machines on which make evaluation measures, and what it measures there. Each is one boot in the emulator."""

import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TOP, "test", "live"), os.path.join(TOP, "test")]
from live import BOOT_TIMEOUT, BUILD, TEST_TIMEOUT, MachineError  # noqa: E402  pylint: disable=wrong-import-position
import bench  # noqa: E402  pylint: disable=wrong-import-position

KVM_TIMEOUT = 1800  # seconds
# For each configuration: what it is, minutes that it takes, whether the monitor runs, with KVM, programs of test/guestfs.
CONFIGURATIONS = {
    "native": ("Linux alone", 2, False, False, "workload,bench_json"),
    # vm_bench sets up a gate of its own, which leaves hyperps.ko's off: it is last.
    "monitor": ("Linux under the monitor", 3, True, False, "workload,bench_json,vm_bench"),
    "kvm-native": ("KVM in Linux alone", 2, False, True, "bench_json"),
    "kvm-monitor": ("KVM in Linux under the monitor (kvm = on)", 4, True, True, "bench_json"),
}
# What will be measured once it exists.
NOT_YET = {"protected": "a protected VM of KVM's: there are none yet"}


def build_environment():
    """What hpsctl can't know in the machine: commit, emulator and its patches, compilers, the machine around it."""
    def said(*command):
        try:
            return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\n")[0].strip()
        except (OSError, subprocess.CalledProcessError):
            return "unknown"

    patches = hashlib.sha256()
    names = sorted(glob.glob(os.path.join(TOP, "tools", "bochs", "*.patch")))
    for name in names:
        with open(name, "rb") as file:
            patches.update(file.read())
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = re.search(r"model name\s*: (.*)", file.read())
    return {"commit": said("git", "describe", "--always", "--dirty", "--abbrev=12"),
            "emulator": "Bochs 3.0: a tick is an instruction", "emulator_patches": f"{len(names)}, SHA-256 {patches.hexdigest()[:16]}",
            "emulated_cpu": "corei7_skylake_x, 1 CPU, 1 GiB", "emulator_ran_on": cpu.group(1) if cpu else "unknown",
            "monitor_compiler": said(os.environ.get("MONITOR_CC", "gcc"), "--version"), "assembler": said("nasm", "-v")}


def figure(unit, samples, text=""):
    """As hpsctl bench has it."""
    return {"unit": unit, "text": text, "samples": samples}


def figures_in(output):
    """What workload and vm_bench printed."""
    figures = {}
    for name, ticks in re.findall(r"^bench (\w+[\w.]*) (\d+)$", output, re.M):
        figures[name if "." in name or name in bench.CALLS else f"workload.{name}"] = figure("ticks", [int(ticks)])
    for name, samples in re.findall(r"^bench-samples (\w+) ([\d. ]+)$", output, re.M):
        figures[f"workload.{name}"] = figure("ticks", [float(sample) for sample in samples.split()])
    exits = {reason: int(count) for reason, count in re.findall(r"^bench-exits (\w+) (\d+)$", output, re.M)}
    if "total" in exits:
        figures["workload.cpuid"] = figure("exits", [exits.get("CPUID", 0)], "VM exits of the workload: CPUID")
        figures["workload.other_than_cpuid"] = figure("exits", [exits["total"] - exits.get("CPUID", 0)], "VM exits of the workload: others")
    return figures


def measure(name):
    """Boots it. Returns a result: figures, not_measured, environment."""
    _, _, monitor, kvm, tests = CONFIGURATIONS[name]
    options = {"initrd": os.path.join(BUILD, "initrd-kvm-cloud.img"), "mwait": True} if kvm else {}
    figures = {}
    with bench.machine_for(tests, "kvm = on\n" if monitor and kvm else "", native=not monitor, **options) as machine:
        if not kvm:
            start = int(machine.expect(r"LoadImage at tick 0x([0-9a-fA-F]{16})", BOOT_TIMEOUT).group(1), 16)
            end = int(machine.expect(r"bench-tick at init (\d+)\n", BOOT_TIMEOUT).group(1))
            figures["boot"] = figure("ticks", [end - start], "from LoadImage to the first line of init")
        machine.expect(r"HYPERPS-TEST-BEGIN bench_json\n", BOOT_TIMEOUT + TEST_TIMEOUT)
        machine.expect(r"HYPERPS-TEST-END bench_json", KVM_TIMEOUT if kvm else TEST_TIMEOUT)
        machine.expect("HYPERPS-TEST-DONE", TEST_TIMEOUT)
        output = machine.output
    if "not ok" in output:
        raise MachineError(output[output.index("not ok"):].split("\n", maxsplit=1)[0])
    before, _, rest = output.partition("HYPERPS-TEST-BEGIN bench_json")
    printed, _, after = rest.partition("HYPERPS-TEST-END bench_json")
    told = re.search(r"(?s)\{\n.*\n\}\n", printed)
    if not told:
        raise MachineError("hpsctl bench printed no JSON")
    result = json.loads(told.group())
    if result["unit"] != "ticks":
        raise MachineError("hpsctl bench did not notice that it runs in an emulator")
    figures.update(figures_in(before + after))
    figures.update(result["figures"])
    return {"figures": figures, "not_measured": result["not_measured"],
            # The emulated machine's clock is nobody's.
            "environment": {**result["environment"], **build_environment(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}}
