# SPDX-License-Identifier: MIT
"""TAP output."""

import sys

_checks = [0, 0]


def ok(passed, text):
    """One TAP line."""
    _checks[0] += 1
    _checks[1] += not passed
    print(f"{'ok' if passed else 'not ok'} {_checks[0]} - {text}", flush=True)
    return passed


def note(text):
    """A TAP diagnostic."""
    for line in str(text).split("\n"):
        print(f"# {line}", flush=True)


def figure(text):
    """A diagnostic that test/run.pl prints at its end."""
    note(f"figure: {text}")


def finish():
    """Ends the program with the TAP plan."""
    print(f"1..{_checks[0]}")
    sys.exit(bool(_checks[1]))
