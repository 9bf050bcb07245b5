# SPDX-License-Identifier: MIT
"""What is noise: medians and their intervals, and which of two runs' figures differ. The statistics are SciPy's."""

import numpy
import scipy.stats

CONFIDENCE = 0.95
RESAMPLES = 4999
PERMUTATIONS = 9999
SEED = 1  # the same samples give the same interval


def median(samples):
    """The middle sample, or between the two middle ones."""
    return float(numpy.median(samples))


def interval(samples):
    """Where the median lies with 95 % confidence: percentile bootstrap. None for less than three samples, which tell nothing."""
    if len(samples) < 3:
        return None
    if min(samples) == max(samples):
        return float(samples[0]), float(samples[0])
    result = scipy.stats.bootstrap((numpy.asarray(samples, dtype=float),), numpy.median, confidence_level=CONFIDENCE, n_resamples=RESAMPLES,
                                   method="percentile", random_state=SEED)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _distance(first, second, axis):
    return numpy.median(first, axis=axis) - numpy.median(second, axis=axis)


def probability(first, second):
    """How likely medians would lie at least so far apart if both sets of samples came from the same source: permutation test, two-sided."""
    if min(first) == max(first) == min(second) == max(second):
        return 1.0
    result = scipy.stats.permutation_test((numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)), _distance,
                                          vectorized=True, n_resamples=PERMUTATIONS, random_state=SEED)
    return float(result.pvalue)


def holm(probabilities):
    """The probabilities, corrected for how many there are (Holm): with 100 tests some 5 would else be below 5 % by chance."""
    adjusted, worst = [0.0] * len(probabilities), 0.0
    for done, at in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        worst = max(worst, min(1.0, probabilities[at] * (len(probabilities) - done)))
        adjusted[at] = worst
    return adjusted
