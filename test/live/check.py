#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""hpsctl check on native Linux says what the loader would: fit, or what is missing, in the same words (unfit.py has the loader's)."""

import re

from live import BOOT_TIMEOUT, main, note, ok, relay, test_machine

# Exit status, what it says, and the machine.
MACHINES = [
    ("a machine that is fit", 0, (r"^yes   VT-x, with EPT", r"^yes   all 2 CPUs are alike$", r"^yes   64-bit UEFI", r"^yes   Secure Boot is off$",
                                  r"^note  no leak of L1 data \(RDCL_NO\): the CPU lacks it$"), {"cpus": 2}),
    ("EPT without unrestricted guest", 1, (r"^NO    this CPU's VT-x lacks unrestricted guest\n +Use a CPU of 2010 or later",),
     {"cpu_model": "corei5_lynnfield_750"}),
    ("VMX locked off", 1, (r"^NO    VT-x is switched off and locked by the firmware\n +Switch on .* in the firmware setup, then power-cycle",),
     {"firmware": "lock-feature-control"}),
]


def test():
    """See the module's text."""
    for what, status, patterns, options in MACHINES:
        with test_machine(tests="check", native=True, **options) as machine:
            relay(machine, "check", f"{what}:")
            text, code = re.search(r"(?s)CHECK-BEGIN\n(.*?)CHECK-END (\d+)\n", machine.output).groups()
            if not ok(int(code) == status, f"{what}: hpsctl check ends with {code} ({status})"):
                note(text)
            for pattern in patterns:
                if not ok(re.search(pattern, text, re.M), f"{what}: it says {pattern}"):
                    note(text)
            machine.expect(r"HYPERPS-TEST-DONE \d+", BOOT_TIMEOUT)


main(test)
