#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""make bench: the same kernel and workload natively and under the monitor, in the same emulator, counted in its instructions.

Prints a table and writes build/bench.json: one flat object, dotted names with the unit last."""

import argparse
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "live"))
from live import BOOT_TIMEOUT, BUILD, TEST_TIMEOUT, MachineError, test_machine  # noqa: E402

# One processor, and no line on the serial port that only one of the two runs would print: a character costs 17,000 ticks.
CONF = """chainload = \\EFI\\HYPERPS\\vmlinuz
initrd = \\EFI\\HYPERPS\\initrd.img
options = console=ttyS0,115200 tsc_early_khz=200000 nokaslr quiet hyperps.run=exits_json,workload,vm_bench
serial = none
log_level = error
"""


# Figures without a dot in their name that are no part of the workload.
CALLS = {"sync"}


def measure(native):
    """Boots once; returns the figures."""
    print(f"bench: {'native' if native else 'under the monitor'}: booting and running the workload (half a minute) ...",
          file=sys.stderr, flush=True)
    conf = os.path.join(BUILD, "bench.conf")
    with open(conf, "w", encoding="utf-8") as file:
        file.write(CONF)
    figures = {}
    with test_machine(native=native, conf=conf) as machine:
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
        # The memory calls exist under the monitor only.
        machine.expect("HYPERPS-TEST-END vm_bench", TEST_TIMEOUT)
        for name, ticks in re.findall(r"^bench (\w+[\w.]*) (\d+)$", machine.output, re.M):
            figures[f"{name if name in CALLS or '.' in name else 'workload.' + name}.ticks"] = int(ticks)
        for reason, count in re.findall(r"^bench-exits (.+) (\d+)$", machine.output, re.M):
            figures[f"workload.{re.sub('[^a-z0-9]+', '_', reason.lower())}.exits"] = int(count)
    return figures


def main():
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--output", default=os.path.join(BUILD, "bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    try:
        native, monitor = measure(True), measure(False)
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
            result[f"{family}.monitor.{rest}"] = count
            print(f"{name[:-6] + ' (exits)':42}{count:14,}")
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    print(f"written to {os.path.relpath(arguments.output)}")


if __name__ == "__main__":
    main()
