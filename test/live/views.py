#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""views.py FLAVOUR CPUS SECONDS: while all CPUs create, fill, run and end VMs for at least so long, the page marks agree with all views.

vm_churn.ko lets all CPUs hold between two calls; then the machine is stopped, and its views and marks are read from outside
(ownership.py). At the end every frame is the host's again."""

import json
import re
import sys
import time

from live import BOOT_TIMEOUT, TEST_TIMEOUT, main, monitor_lines, note, ok, test_machine
from ownership import (DEAD, DYING, OF_VM, OPEN, REPORTED, SEALED, SEALING, check_ownership, check_vcpus, consistent, controls,
                       fields, find_vcpus, read_marks, vcpu_controls)

FLAVOUR, CPUS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
LABEL = f"{FLAVOUR}, {CPUS} CPUs:"
WALKS, WALKS_LIMIT = 4, 40  # at least; at most, if a state that is wanted does not come up
WANTED = ({"private", "shared", "to_vm", "to_host"} | {f"VM in state {state}" for state in (OPEN, SEALING, SEALED, DYING, DEAD)}
          | {"a view in donated memory", "a sealed VM with frames that it has released", "a sealed VM with a vCPU"})


def report(machine):
    """What the host says at a quiet point: status, frames, and VMs."""
    machine.expect("VIEWS-BEGIN\n", TEST_TIMEOUT)
    start = machine.taken
    machine.expect("VIEWS-READY\n", TEST_TIMEOUT)
    text = machine.output[start:machine.taken]
    status, frames = (json.loads(found) for found in re.findall(r"(?s)^\{\n.*?^\}", text, re.M))
    vms = [{key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)} for line in re.findall(r"^vm (.*)$", text, re.M)]
    return status, frames, vms


def unreported(read, state):
    """Faults but those of the numbers that the monitor gives."""
    return [fault for fault in check_ownership(read, *state) if REPORTED not in fault]


def has_released(read, frames, vms):
    """Whether a guest that lives has released a page that the host has not taken back yet."""
    slots = {vm["slot"] for vm in vms if vm["state"] == SEALED}
    return any(state == "to_host" and slot in slots for state, slot, _ in map(fields, read_marks(read, frames)))


def walk(machine, what, tried, accepted):
    """Looks at a quiet point; returns the states of frames that were seen. tried, accepted: the faults of what must be refused, or
    must not, so far."""
    state = report(machine)
    _, frames, vms = state
    machine.pause()
    try:
        faults = check_ownership(machine.read_physical, *state)
        given = {name: frames[name] for name in sorted(OF_VM) if frames[name]}
        ok(not faults, f"{LABEL} {what}: all marks and views agree ({len(vms)} VMs, "
           + ", ".join(f"{number} {name}" for name, number in given.items()) + ")")
        note("\n".join(faults[:10]) or "no faults")
        found = list(find_vcpus(machine.read_physical, frames))
        faults = check_vcpus(machine.read_physical, frames, vms, found)
        ok(not faults, f"{LABEL} {what}: all pages of vCPUs are the monitor's ({sum(vm['vcpus'] for vm in vms)} vCPUs)")
        note("\n".join(faults[:10]) or "no faults")
        for text, read in vcpu_controls(machine.read_physical, frames, vms, found):
            if text not in tried:
                tried[text] = check_vcpus(read, frames, vms, found)
        released = has_released(machine.read_physical, frames, vms)
        for text, read in controls(machine.read_physical, *state):
            if text not in tried:
                tried[text] = unreported(read, state)
        for text, read in consistent(machine.read_physical, *state):
            if text not in accepted:
                accepted[text] = unreported(read, state)
    finally:
        machine.resume()
    status = state[0]
    donated = any(not 0 <= vm["view_eptp"] - status["memory_base"] < status["memory_size"] for vm in vms)
    sealed = [vm for vm in vms if vm["state"] == SEALED]
    extra = {"a sealed VM with a vCPU"} if any(vm["vcpus"] for vm in sealed) else set()
    extra |= {"a sealed VM with frames that it has released"} if released else set()
    return extra | set(given) | {f"VM in state {vm['state']}" for vm in vms} | ({"a view in donated memory"} if donated else set())


def test():
    """See the module's text."""
    seen, tried, accepted, walks, churned = set(), {}, {}, 0, 0.0
    with test_machine(FLAVOUR, "vm_views,kernel_log", cpus=CPUS) as machine:
        machine.expect(r"HYPERPS-TEST-BEGIN vm_views\n", BOOT_TIMEOUT)
        answer = "go"
        while answer == "go":
            machine.expect("VIEWS-GO\n", TEST_TIMEOUT)
            start = time.monotonic()
            machine.expect("CPUs hold between", TEST_TIMEOUT)
            churned += time.monotonic() - start
            walks += 1
            seen |= walk(machine, f"quiet point {walks}", tried, accepted)
            enough = walks >= WALKS and churned >= SECONDS and (WANTED <= seen and accepted or walks >= WALKS_LIMIT)
            answer = "stop" if enough else "go"
            machine.send(answer)
        note(f"{walks} quiet points in {churned:.0f} s of churn")
        ok(WANTED <= seen, f"{LABEL} the quiet points show frames and VMs in each state")
        note(f"missing: {' '.join(sorted(WANTED - seen))}" if WANTED - seen else "none missing")
        for text, faults in tried.items():
            ok(faults, f"{LABEL} the check finds {text}")
        for text, faults in accepted.items():
            ok(not faults, f"{LABEL} the check accepts {text}")
            note("\n".join(faults[:10]) or "no faults")
        ok(len(accepted) == 2 and len(tried) >= 25, f"{LABEL} {len(tried)} positive controls, {len(accepted)} that are accepted")
        left = walk(machine, "at the end", tried, accepted)
        ok(not left, f"{LABEL} at the end no VM has a frame")
        machine.send("end")
        machine.expect(r"HYPERPS-TEST-DONE (\d+)\n", TEST_TIMEOUT)
        lines = re.findall(r"^(ok|not ok) - (.*)$", machine.output, re.M)
        for result, text in lines:
            if "hold between" not in text and text != "and go on" or result != "ok":
                ok(result == "ok", f"{LABEL} {text}")
        ok(re.findall(r"^HYPERPS-TEST-END (\S+) 0$", machine.output, re.M) == ["vm_views", "kernel_log"], f"{LABEL} both programs passed")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), f"{LABEL} the monitor did not panic")


main(test)
