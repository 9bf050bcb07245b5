# SPDX-License-Identifier: MIT
"""For the live tests: TAP output, the machine's own test programs, and hpsctl's JSON."""

import glob
import json
import os
import re
import sys
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(TOP, "tools"), os.path.join(TOP, "test")]
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position
from machine import BUILD, CACHE, Machine, MachineError  # noqa: E402  pylint: disable=wrong-import-position

BOOT_TIMEOUT = 400  # seconds for a boot; a machine that shares its cores with another test takes some 60
TEST_TIMEOUT = 900
PROMPT = "/root # "
COMPLAINTS = "BUG:|Oops|WARNING: CPU|unchecked MSR|general protection|soft lockup|rcu.*stall|NMI received for unknown reason"
# Those of hpsctl attack, by number.
ATTACKS = ("monitor-memory", "private-frame", "double-map", "remap", "wrong-owner", "old-content", "stale-tlb", "rogue-vmfunc",
           "gate-offsets", "stale-pcid", "msr", "privileged-state", "fuzz", "guest-registers", "race", "ipi-storm", "escape", "dma",
           "nested")


def kernel(flavour):
    """Path of a stock kernel."""
    return os.path.join(CACHE, "kernels", flavour, "vmlinuz")


def test_machine(flavour="cloud", tests="", words="", **options):
    """A machine that boots a stock kernel with the test initrd and runs these programs of test/guestfs."""
    options.setdefault("emulator", "bochs")
    # The emulator's default CPU leaks L1 data, so that the gate must be asked for.
    if "conf" not in options:
        options.setdefault("settings", {"gate": "vmfunc"})
    options.setdefault("initrd", os.path.join(BUILD, f"initrd-test-{flavour}.img"))
    append = f"loglevel=1 {words}" + (f" hyperps.run={tests}" if tests else "")
    return Machine(kernel=kernel(flavour), append=append, **options)


def relay(machine, name, label, timeout=TEST_TIMEOUT):
    """Waits for one of the test programs to end, and passes on its checks."""
    machine.expect(rf"HYPERPS-TEST-BEGIN {name}\n", BOOT_TIMEOUT)
    start = machine.taken
    code = machine.expect(rf"HYPERPS-TEST-END {name} (\d+)\n", timeout).group(1)
    text = machine.output[start:machine.taken]
    lines = re.findall(r"^(ok|not ok) - (.*)$", text, re.M)
    for result, what in lines:
        ok(result == "ok", f"{label} {name}: {what}")
    ok(lines and code == "0", f"{label} {name}: {len(lines)} checks, exit status {code}")
    if code != "0":
        note(text)


def shell(machine, line, timeout=60):
    """What a command in the machine prints, and its exit status. The line must fit the terminal's."""
    machine.send(f"{line}; echo status $?")
    found = machine.expect(r"(?s)echo status \$\?\n(.*?)status (\d+)\n", timeout)
    machine.expect(PROMPT)
    return found.group(1), int(found.group(2))


def monitor_lines(text):
    """What the monitor printed on the serial port."""
    return re.findall(r"hyperps: cpu\d+: (.*)", text)


def record_attacks(run, results, kind="attacks"):
    """Keeps the results of one run, and writes those of all runs of a kind to build/KIND.json.

    A result has name, cpus, gate, control, refused, skipped; those of attacks that could not be tried are left out. Several runs may
    tell of one attack: then each must have refused it."""
    folder = os.path.join(BUILD, kind)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{run}.json"), "w", encoding="utf-8") as file:
        json.dump([{key: entry[key] for key in entry if key != "skipped"} for entry in results if not entry.get("skipped")], file)
    merged = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as file:
            for entry in json.load(file):
                known = merged.setdefault((ATTACKS.index(entry["name"]), entry["cpus"], entry["gate"]), dict(entry))
                known["control"] &= entry["control"]
                known["refused"] &= entry["refused"]
    lines = ",\n".join("  " + json.dumps(merged[key]) for key in sorted(merged))
    scratch = os.path.join(folder, f"{run}.new")
    with open(scratch, "w", encoding="utf-8") as file:
        file.write(f"[\n{lines}\n]\n")
    os.replace(scratch, os.path.join(BUILD, f"{kind}.json"))


def main(test):
    """Runs a test and ends with the TAP plan; an exception is a failed check."""
    try:
        test()
    except MachineError as error:
        ok(False, str(error).split("\n", maxsplit=1)[0])
        note(error)
    except Exception as error:  # pylint: disable=broad-exception-caught
        ok(False, "the test itself failed")
        note(traceback.format_exc())
        note(getattr(error, "doc", ""))
    finish()
