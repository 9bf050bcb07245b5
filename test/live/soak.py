#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""soak.py MINUTES [CPUS]: host work, VM churn, CPUs offline and online, attacks and storms at the gate, round after round, for so long.

Ends with every frame accounted for, and no VM exit but those that a host may cause. A round takes some minutes."""

import json
import re
import sys
import time

from live import BOOT_TIMEOUT, main, monitor_lines, note, ok, test_machine

MINUTES, CPUS = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
ROUND_TIMEOUT = 3600
# VM exits that a host's code can cause, as `hpsctl exits` names them; the attacks cause each that this CPU knows. Triple faults are
# those in the airlock: any other would have reset the machine.
KNOWN = set("exception_or_nmi triple_fault init_signal start_up_ipi nmi_window task_switch cpuid getsec invd vmcall vmclear vmlaunch vmptrld vmptrst vmread "
            "vmresume vmwrite vmxoff vmxon control_register_access i_o_instruction rdmsr wrmsr ept_violation invept invvpid xsetbv vmfunc encls".split())


def test():
    """See the module's text."""
    start, rounds = time.monotonic(), 0
    with test_machine("cloud", "soak,kernel_log", cpus=CPUS, memory=2048) as machine:
        machine.expect(r"HYPERPS-TEST-BEGIN soak\n", BOOT_TIMEOUT * 2)
        answer = "go"
        while answer == "go":
            before = machine.taken
            now = int(machine.expect(r"SOAK-READY \d+ (\d+)\n", ROUND_TIMEOUT).group(1))
            text = machine.output[before:machine.taken]
            minutes = (time.monotonic() - start) / 60
            rounds += 1
            for result, what in re.findall(r"^(ok|not ok) - (.*)$", text, re.M):
                ok(result == "ok", what)
            exits = json.loads(re.findall(r"(?s)^\{\n.*?^\}", text, re.M)[-1])
            ok(set(exits["reasons"]) <= KNOWN, f"round {rounds}: no VM exit that is not explained")
            ok(sum(exits["reasons"].values()) == exits["total"], f"round {rounds}: each of the {exits['total']} VM exits has its reason")
            note(text)
            print(f"# {minutes:.0f} of {MINUTES:.0f} minutes, {now / 60:.0f} on the machine's clock; {rounds} rounds", file=sys.stderr, flush=True)
            answer = "go" if minutes < MINUTES else "stop"
            machine.send(answer)
        ok(machine.expect(r"HYPERPS-TEST-DONE (\d+)\n", ROUND_TIMEOUT).group(1) == "0", f"{rounds} rounds on {CPUS} CPUs: all checks passed")
        ok(machine.wait(240) and machine.powered_off(), "poweroff switches the machine off")
        ok("panic" not in "\n".join(monitor_lines(machine.output)), "the monitor did not panic")


main(test)
