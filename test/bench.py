#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make bench: the same kernel and workload natively and under the monitor, in the same emulator, counted in its instructions;
what KVM takes on the native kernel for what the memory calls do, and under the monitor; whether their cost for a page depends on the number of pages; and
what a flush takes for DMA-remapping units.

Prints tables and writes build/bench.json: one flat object, dotted names with the unit last."""

import argparse
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "live"))
from live import BOOT_TIMEOUT, BUILD, TEST_TIMEOUT, TOP, MachineError, test_machine  # noqa: E402
from machine import NESTED_DISK  # noqa: E402

# One processor, and no line on the serial port that only one of the two runs would print: a character costs 17,000 ticks.
CONF = """chainload = \\EFI\\HYPERPS\\vmlinuz
initrd = \\EFI\\HYPERPS\\initrd.img
options = console=ttyS0,115200 tsc_early_khz=200000 nokaslr quiet hyperps.run={tests}
serial = none
gate = vmfunc
log_level = error
"""


NESTED_TIMEOUT = 1800  # seconds; QEMU in KVM in Bochs is slow

# Figures without a dot in their name that are no part of the workload.
CALLS = {"sync"}

# What does the same for a guest: a text, the figures of ours that add up to it, each with a divisor, and KVM's.
COMPARED = [
    ("call through the gate", [("gate.vmfunc", 1)], "kvm.hypercall"),
    ("call by VMCALL", [("gate.vmcall", 1)], "kvm.hypercall"),
    ("4 KiB page, by itself", [("map.4k.batch1", 1)], "kvm.first_touch_4k"),
    ("4 KiB page, 512 with a call", [("map.4k.batch512", 1)], "kvm.first_touch_4k"),
    ("4 KiB page, 512 with a call, VM_SYNC", [("map.4k.batch512", 1), ("sync", 512)], "kvm.first_touch_4k"),
    ("2 MiB page", [("map.2m", 1)], "kvm.first_touch_2m"),
    ("a guest's CPUID", [("run.cpuid", 1)], "kvm.cpuid"),
    ("a guest's hypercall", [("run.hypercall", 1)], "kvm.hypercall"),
    ("OUT to user space and back", [("run.out_user", 1)], "kvm.out_user"),
    ("first touch of a missing 4 KiB page", [("run.missing_memory", 1)], "kvm.first_touch_4k"),
    ("start of a guest with 64 MiB", [("run.start_64m", 1)], "kvm.start_64m"),
]

# What KVM takes under the monitor, `nested`, and how many times KVM's own ticks that may be.
NESTED = {"cpuid": 2.0, "hypercall": 2.0, "out_user": 1.5, "first_touch_4k": 1.5, "boot": 1.05}

# The cost of a page may grow by this factor at most from the first size to the last.
SCALES = [("map.scale", "4 KiB pages"), ("map.scale.large", "2 MiB pages")]
SCALE_FROM, SCALE_TO, SCALE_LIMIT = "8m", "512m", 1.25


def machine_for(tests, more="", **options):
    """The machine that all of it is measured on. Its memory, the default of 1 GiB, is enough for a VM of 512 MiB. more: of its
    configuration."""
    conf = os.path.join(BUILD, "bench.conf")
    with open(conf, "w", encoding="utf-8") as file:
        file.write(CONF.format(tests=tests) + more)
    return test_machine(conf=conf, **options)


def ticks_in(output):
    """The figures that the test programs printed."""
    return {f"{name if name in CALLS or '.' in name else 'workload.' + name}.ticks": int(ticks)
            for name, ticks in re.findall(r"^bench (\w+[\w.]*) (\d+)$", output, re.M)}


def measure(native):
    """Boots once; returns the figures."""
    print(f"bench: {'native' if native else 'under the monitor'}: booting and running the workload (half a minute) ...",
          file=sys.stderr, flush=True)
    figures = {}
    # The memory calls exist under the monitor only.
    with machine_for("exits_json,workload" + ("" if native else ",vm_bench,guest_bench"), native=native) as machine:
        start = int(machine.expect(r"LoadImage at tick 0x([0-9a-fA-F]{16})", BOOT_TIMEOUT).group(1), 16)
        end = int(machine.expect(r"bench-tick at init (\d+)\n", BOOT_TIMEOUT).group(1))
        figures["boot.ticks"] = end - start
        machine.expect("HYPERPS-TEST-END exits_json", BOOT_TIMEOUT)
        if not native:
            exits = json.loads(re.search(r"(?s)\{\n.*\n\}", machine.output.split("HYPERPS-TEST-BEGIN exits_json")[1]).group(0))
            figures["boot.exits"] = exits["total"] - exits["vmcall"]
            for reason, count in exits["reasons"].items():
                figures[f"boot.{reason}.exits"] = count
        machine.expect("HYPERPS-TEST-END workload 0", TEST_TIMEOUT)
        machine.expect("HYPERPS-TEST-DONE", TEST_TIMEOUT)
        if "not ok" in machine.output:
            raise MachineError(machine.output[machine.output.index("not ok"):].split("\n", maxsplit=1)[0])
        figures.update(ticks_in(machine.output))
        for reason, count in re.findall(r"^bench-exits (.+) (\d+)$", machine.output, re.M):
            if "." in reason:
                figures[f"{reason}.exits"] = int(count)
                continue
            figures[f"workload.{re.sub('[^a-z0-9]+', '_', reason.lower())}.exits"] = int(count)
    return figures


def measure_kvm(native):
    """KVM's figures, on the native kernel (kvm.*), or on the same kernel under the monitor (nested.*). kvm_intel needs a CPU with
    MWAIT, which would make the kernel's idle loop another one than without: so these are boots of their own."""
    print(f"bench: KVM {'on the native kernel' if native else 'under the monitor'} (some minutes) ...", file=sys.stderr, flush=True)
    boots = os.path.exists(NESTED_DISK)
    options = {"second_disk": NESTED_DISK} if boots else {}
    if not boots:
        print(f"bench: no boot in QEMU: {NESTED_DISK} is missing: run make nested", file=sys.stderr)
    tests = ("kvm_qemu," if boots else "") + "kvm_bench kvm.tests=boot"
    with machine_for(tests, "" if native else "kvm = on\n", native=native, mwait=True,
                     initrd=os.path.join(BUILD, "initrd-kvm-cloud.img"), **options) as machine:
        machine.expect("HYPERPS-TEST-DONE 0", NESTED_TIMEOUT)
        figures = ticks_in(machine.output)
        exits = dict(re.findall(r"^bench-exits (kvm\.\S+) (\d+)$", machine.output, re.M))
    missing = {f"kvm.{name}.ticks" for name in NESTED if boots or name != "boot"} | {f"{kvm}.ticks" for *_, kvm in COMPARED}
    missing -= set(figures)
    if missing:
        raise MachineError(f"kvm_bench did not measure {' '.join(sorted(missing))}")
    if native:
        return figures
    figures.update({f"{name}.exits": int(count) for name, count in exits.items()})
    for line in re.findall(r"^# VM[A-Z].*$|^# .*VMRESUME.*$", machine.output, re.M):
        print(line, file=sys.stderr)
    return {re.sub("^kvm", "nested", name): figure for name, figure in figures.items()}


def count_register_accesses():
    """Those of a flush to the registers of one unit and of four, in the unit test's model."""
    done = subprocess.run([os.path.join(BUILD, "test", "unit", "iommu")], capture_output=True, text=True, check=False,
                          env=dict(os.environ, HYPERPS_IOMMU_TEST="flushes_in_few_accesses"))
    figures = {name: int(number) for name, number in re.findall(r"^bench (dma\.flush\.\S+) (\d+)$", done.stdout, re.M)}
    if done.returncode or len(figures) != 2:
        raise MachineError("the unit test iommu does not count accesses to registers")
    return figures


def measure_sync(dma):
    """VM_SYNC of a page in nested QEMU, the only machine here with a DMA-remapping unit."""
    print(f"bench: QEMU in KVM in Bochs with a DMA-remapping unit, dma = {dma} (two minutes) ...", file=sys.stderr, flush=True)
    unit = ["-machine", "kernel-irqchip=split", "-device", "intel-iommu,intremap=on"]
    with test_machine(emulator="nested", emulator_options=unit, stick_device="nvme,serial=stick", tests="vm_bench",
                      words="intel_iommu=off", settings={"gate": "vmcall", "dma": dma}) as machine:
        held_back = not machine.expect(r"DMA is (not )?held back", NESTED_TIMEOUT).group(1)
        if held_back != (dma == "auto"):
            raise MachineError(f"dma = {dma}, and DMA is {'' if held_back else 'not '}held back")
        return int(machine.expect(r"\nbench sync\.page (\d+)\n", NESTED_TIMEOUT).group(1))


def measure_dma():
    """What a flush takes for the units."""
    figures = count_register_accesses()
    if not os.path.exists(NESTED_DISK):
        print(f"bench: no dma.flush.ticks: {NESTED_DISK} is missing: run make nested", file=sys.stderr)
        return figures
    figures["dma.sync.off.ticks"], figures["dma.sync.auto.ticks"] = measure_sync("off"), measure_sync("auto")
    figures["dma.flush.ticks"] = figures["dma.sync.auto.ticks"] - figures["dma.sync.off.ticks"]
    return figures


def print_compared(figures):
    """Ours next to KVM's."""
    print(f"\n{'for a guest (ticks)':42}{'HyperPS':>14}{'KVM':>14}{'KVM/HyperPS':>14}")
    for text, parts, kvm in COMPARED:
        ours = sum(figures[f"{name}.ticks"] / divisor for name, divisor in parts)
        print(f"{text:42}{ours:14,.0f}{figures[f'{kvm}.ticks']:14,}{figures[f'{kvm}.ticks'] / ours:14,.1f}")


def print_nested(figures):
    """KVM under the monitor next to KVM without it."""
    print(f"\n{'KVM (ticks)':28}{'native':>14}{'monitor':>14}{'factor':>10}{'aim':>8}{'exits':>8}")
    for name, aim in NESTED.items():
        if f"kvm.{name}.ticks" not in figures:
            continue
        native, monitor = figures[f"kvm.{name}.ticks"], figures[f"nested.{name}.ticks"]
        exits = figures.get(f"nested.{name}.of_100.exits")
        print(f"{name:28}{native:14,}{monitor:14,}{monitor / native:10.2f}{aim:8.2f}{f'{exits / 100:8.2f}' if exits else ''}")


def check_scales(figures):
    """Whether a page costs as much in a large VM as in a small one."""
    flat = True
    print()
    for scale, text in SCALES:
        first, last = figures[f"{scale}.{SCALE_FROM}.ticks"], figures[f"{scale}.{SCALE_TO}.ticks"]
        good = last <= first * SCALE_LIMIT
        flat = flat and good
        print(f"{'flat' if good else 'NOT FLAT'}: {text}: {first} ticks for each 4 KiB with {SCALE_FROM}, {last} with {SCALE_TO}")
    return flat


def trusted_lines():
    """Lines of code that a reader must trust after boot."""
    text = subprocess.run(["make", "-s", "tcb-lines"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"(\d+) of code", text).group(1))


def main():
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--output", default=os.path.join(BUILD, "bench.json"), help="where the JSON goes")
    parser.add_argument("--nested", action="store_true", help="measure KVM alone, natively and under the monitor")
    arguments = parser.parse_args()
    try:
        kvm = {**measure_kvm(True), **measure_kvm(False)}
        if arguments.nested:
            print_nested(kvm)
            return
        native, monitor, dma = measure(True), measure(False), measure_dma()
    except MachineError as error:
        sys.exit(f"bench: {error}")
    result = {}
    print(f"{'':28}{'native':>14}{'monitor':>14}{'change':>10}")
    for name, ticks in native.items():
        stem = name[:-len(".ticks")]
        result[f"{stem}.native.ticks"], result[f"{stem}.monitor.ticks"] = ticks, monitor[name]
        print(f"{stem + ' (ticks)':28}{ticks:14,}{monitor[name]:14,}{(monitor[name] / ticks - 1) * 100:+9.2f}%")
    for name, ticks in monitor.items():
        if name not in native and name.endswith(".ticks"):
            result[name] = ticks
            print(f"{name[:-6] + ' (ticks)':42}{ticks:14,}")
    for name, count in monitor.items():
        if name.endswith(".exits"):
            family, rest = name.split(".", maxsplit=1)
            result[name if family == "gate" else f"{family}.monitor.{rest}"] = count
            print(f"{name[:-6] + ' (exits)':42}{count:14,}")
    result.update(kvm)
    for name, figure in dma.items():
        result[name] = figure
        stem, unit = name.rsplit(".", maxsplit=1)
        print(f"{f'{stem} ({unit})':42}{figure:14,}")
    result["tcb.lines"] = trusted_lines()
    print(f"{'trusted lines of code':42}{result['tcb.lines']:14,}")
    print_compared(result)
    print_nested(result)
    flat = check_scales(result)
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    print(f"written to {os.path.relpath(arguments.output)}")
    if not flat:
        sys.exit("bench: the cost of a page grows with the VM")


if __name__ == "__main__":
    main()
