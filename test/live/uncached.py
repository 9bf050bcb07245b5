#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""RAM that the MTRRs don't make write-back, or all of it: VMs get the rest; where there is none that is said."""

import json

from live import BOOT_TIMEOUT, PROMPT, main, note, ok, shell, test_machine

RUNS = ("--memory 64M", "--lazy --memory 64M", "--memory 256M", "--lazy --memory 1024M")
NO_MEMORY = "the host has no memory left that VMs can have; see hpsctl status and dmesg"
COUNT_LOGGED = "dmesg | grep -c 'no memory left that VMs'"


def check(machine, what, line, status, *texts, timeout=300):
    """A command in the machine ends so and says that."""
    output, code = shell(machine, line, timeout)
    if not ok(code == status and all(text in output for text in texts), f"{what}: {line} ends with {code} ({status}) and says {texts}"):
        note(output)
    return output


def boot(words):
    """A machine with a shell; its firmware's words are in test/firmware/acpi.c."""
    # Linux would leave such RAM alone where it finds out by itself; an outer hypervisor's it does not.
    return test_machine(cpus=2, firmware=words, words="hyperps.demo=no disable_mtrr_trim")


def status_of(machine):
    """hpsctl status, as JSON."""
    return json.loads(shell(machine, "hpsctl status --json")[0])


def test_hole():
    """The upper half of the RAM is uncacheable."""
    what = "RAM that is half uncacheable"
    with boot("mtrr-hole") as machine:
        machine.expect("Try: hpsctl", BOOT_TIMEOUT)
        machine.expect(PROMPT)
        before = shell(machine, "hpsctl frames --json | grep host")[0]
        status = status_of(machine)
        ok(status["vm_memory_protected"] and 256 << 20 < status["memory_for_vms"] <= 512 << 20,
           f"{what}: hpsctl status counts {status['memory_for_vms'] >> 20} MiB for VMs")
        for options in RUNS:
            check(machine, what, f"hpsctl run {options} /guests/hello", 0, "Hello from a guest by serial port")
        check(machine, what, "hpsctl run --lazy -m 96M -c 2 /guests/burner -- 96 1 2", 0)
        check(machine, what, "hpsctl demo", 0, "The demo passed")
        check(machine, what, "hpsctl run --memory 600M /guests/hello", 125, f"cannot give the VM its RAM: {NO_MEMORY}")
        check(machine, what, "hpsctl run --lazy -m 700M /guests/burner -- 700", 125, f"cannot run vCPU 0: {NO_MEMORY}")
        # Nothing is lost by that.
        check(machine, what, "hpsctl run --memory 256M /guests/hello", 0, "Hello from a guest by serial port")
        check(machine, what, COUNT_LOGGED, 0, "1\n")
        check(machine, what, "free -m | awk '/^Mem/ { print ($7 > 700) }'", 0, "1\n")
        check(machine, what, "rmmod hyperps && insmod /hyperps.ko", 0)
        check(machine, what, "hpsctl frames --json | grep host", 0, before)


def test_all():
    """No RAM is write-back, but for some below 1 MiB."""
    what = "RAM that is all uncacheable"
    with boot("mtrr-off") as machine:
        machine.expect("NO MEMORY CAN BE GIVEN TO A VM", BOOT_TIMEOUT)
        machine.expect("Try: hpsctl", BOOT_TIMEOUT)
        machine.expect(PROMPT)
        ok("yes  memory given to a VM" not in machine.output, f"{what}: hpsctl status does not say that VMs' memory is hidden")
        status = status_of(machine)
        ok(not status["vm_memory_protected"] and status["monitor_memory_protected"], f"{what}: nor does its JSON")
        check(machine, what, "hpsctl run /guests/hello", 125, f"cannot load the image: {NO_MEMORY}")
        check(machine, what, "hpsctl run --lazy --memory 4M /guests/hello", 125, NO_MEMORY)
        check(machine, what, "hpsctl demo", 1, f"the key vault does not start: cannot load the image: {NO_MEMORY}")
        check(machine, what, COUNT_LOGGED, 0, "1\n")


def test():
    """See the module's text."""
    test_hole()
    test_all()


main(test)
