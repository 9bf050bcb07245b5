#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""noise.py against what is known without it: the bootstrap's distribution of the median and small permutation tests, both
computed exactly here; whether intervals cover as often as they promise; and what compare.py makes of two runs. As TAP."""

import math
import os
import random
import sys

sys.path[:0] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
from tap import finish, note, ok  # noqa: E402  pylint: disable=wrong-import-position

try:
    import compare
    import noise
except ImportError as error:
    print(f"1..0 # SKIP {error}: tools/setup --evaluation")
    sys.exit()


def exact_interval(samples):
    """Percentiles of the bootstrapped median of an odd number of different samples: the median of n draws is at most the k-th sample
    if at least (n + 1) / 2 draws are, each with the probability k / n."""
    ordered, n = sorted(samples), len(samples)
    chance = [sum(math.comb(n, i) * (k / n) ** i * (1 - k / n) ** (n - i) for i in range((n + 1) // 2, n + 1)) for k in range(1, n + 1)]
    tail = (1 - noise.CONFIDENCE) / 2
    return tuple(next(value for value, below in zip(ordered, chance) if below >= edge) for edge in (tail, 1 - tail))


def exact_probability(first, second):
    """All ways to deal the samples out."""
    together, size = first + second, len(first)

    def middle(values):
        values = sorted(values)
        return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2

    seen, far, ways = abs(middle(first) - middle(second)), 0, 0
    for mask in range(1 << len(together)):
        if bin(mask).count("1") == size:
            ways += 1
            far += abs(middle([x for i, x in enumerate(together) if mask >> i & 1]) -
                       middle([x for i, x in enumerate(together) if not mask >> i & 1])) >= seen
    return far / ways


def test():
    """See the module's text."""
    ok(noise.median([5, 1, 3]) == 3 and noise.median([4, 1, 3, 2]) == 2.5, "the median of odd and even numbers of samples")
    ok(noise.interval([1, 2]) is None and noise.interval([7, 7, 7, 7]) == (7, 7), "two samples have no interval, equal ones have one without width")
    for samples in ([3 * x * x for x in range(1, 12)], [100 + x for x in range(31)], [2 ** x for x in range(21)]):
        seen, exact = noise.interval(samples), exact_interval(samples)
        if not ok(seen == exact, f"the interval of {len(samples)} samples is the exact one"):
            note(f"{seen}, not {exact}")
    dice = random.Random(2)
    covered = sum(low <= 0.5 <= high for low, high in (noise.interval([dice.random() for _ in range(25)]) for _ in range(200)))
    ok(0.90 <= covered / 200 <= 0.995, f"of 200 intervals {covered} hold the true median")
    for first, second in ([1, 2, 3, 4], [5, 6, 7, 8]), ([1, 5, 9, 2], [3, 8, 4, 7, 6]), ([10, 11, 12, 13, 99], [10, 12, 14, 15, 16]):
        seen, exact = noise.probability(first, second), exact_probability(first, second)
        if not ok(abs(seen - exact) < 1e-9, f"the permutation test of {len(first)} and {len(second)} samples is the exact one: {exact:.4f}"):
            note(f"{seen}")
    ok(noise.probability([4] * 5, [4] * 5) == 1, "equal samples don't differ")
    # Holm's own example of three: 0.01 * 3, 0.02 * 2, 0.04 * 1, none below the one before.
    ok([round(p, 6) for p in noise.holm([0.04, 0.01, 0.02])] == [0.04, 0.03, 0.04], "Holm's correction")
    ok(noise.holm([0.9, 0.8]) == [1, 1] and noise.holm([]) == [], "it ends at 1")
    test_compare()
    finish()


def test_compare():
    """Two evaluations."""
    def run(**figures):
        return {"configurations": {"monitor": {"figures": {name: {"unit": "ticks", "samples": samples} for name, samples in figures.items()}}}}

    before = [100 + x % 7 for x in range(40)]
    rows = {row["figure"]: row for row in compare.compare(
        run(same=before, shifted=before, single=[5], noisy=[1, 100] * 5, gone=before),
        run(same=before[::-1], shifted=[x + 10 for x in before], single=[6], noisy=[100, 1] * 5 + [100], new=before))}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    expected = {"same": compare.NOISE, "shifted": compare.CHANGED, "single": compare.ONE, "noisy": compare.NOISE, "gone": compare.ABSENT, "new": compare.ABSENT}
    if not ok(verdicts == expected, "compare finds the figure that changed, and no other"):
        note(verdicts)
    ok(abs(rows["shifted"]["change"] - 10 / 103 * 100) < 1e-9, "by how much it changed")


if __name__ == "__main__":
    test()
