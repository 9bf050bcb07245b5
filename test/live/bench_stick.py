#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The stick of `make bench-stick`, as docs/evaluation.md has it: it boots, measures, and leaves the result on itself."""

import json
import os

from live import BOOT_TIMEOUT, BUILD, PROMPT, TEST_TIMEOUT, kernel, main, monitor_lines, note, ok
from machine import Machine, Stick

RESULT = r"\EFI\HYPERPS\bench.json"


def test():
    """See the module's text."""
    with Machine(kernel=kernel("cloud"), initrd=os.path.join(BUILD, "initrd-bench-cloud.img"), emulator="bochs", append="loglevel=1",
                 settings={"gate": "vmfunc"}) as machine:
        stick = Stick(os.path.join(machine.scratch, "disk.img"))
        ok(stick.read_text(RESULT) is None, "the stick has no result before")
        end = machine.expect(r"\nbench: (the result is on the stick|no stick|the stick could not)", BOOT_TIMEOUT + TEST_TIMEOUT).group(1)
        if not ok(end.startswith("the result"), f"it says where the result is: {end}"):
            note("\n".join(machine.output.splitlines()[-30:]))
        machine.expect(PROMPT, BOOT_TIMEOUT)
        machine.send("exit")
        ok(machine.wait(120) and machine.powered_off(), "poweroff switches the machine off")
        result = json.loads(stick.read_text(RESULT) or "{}")
        ok(result.get("unit") == "ticks", "the file on the stick is hpsctl bench's, and says that an emulator was measured")
        figures = result.get("figures", {})
        expected = {"host.cpuid", "call.read", "call.gate", "call.vmcall", "vm.create_destroy", "vm.create_destroy_64m", "vm.populate_4k", "vm.populate_4k.batch64",
                    "vm.populate_4k.batch512", "vm.populate_2m"} | {f"guest.{name}" for name in ("cpuid", "hypercall", "out_user", "mmio_user",
                                                                                                   "first_touch_4k", "start_64m")}
        missing = expected - set(figures)
        if not ok(not missing, f"all figures of a host without KVM are there, {len(figures)}"):
            note(sorted(missing))
            note(result.get("not_measured"))
        ok(all(figure["low"] <= figure["median"] <= figure["high"] for figure in figures.values()), "each median lies in its interval")
        if figures.keys() >= expected:
            ok(figures["call.gate"]["median"] < figures["call.vmcall"]["median"], "a call takes less through the gate than by VMCALL")
            ok(figures["guest.cpuid"]["median"] < figures["guest.out_user"]["median"], "an exit that the monitor answers takes less than one of user space's")
            ok(figures["vm.populate_4k.batch512"]["median"] < figures["vm.populate_4k"]["median"], "a page in a batch takes less than one alone")
            for name, figure in figures.items():
                note(f"{name} {figure['median']} [{figure['low']}, {figure['high']}]")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), "the monitor did not panic")


main(test)
