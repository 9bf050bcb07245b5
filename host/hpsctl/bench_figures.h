/* SPDX-License-Identifier: MIT */
/* Samples, their median and how sure that is; what hpsctl bench prints of them. Pure. */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

#define BENCH_SAMPLES 200

/* What was measured: each sample is the time-stamp counter's difference over so many operations. */
struct bench_figure {
	const char *name, *text;
	uint64_t operations; /* in a sample */
	size_t count;
	uint64_t sample[BENCH_SAMPLES];
	char missing[160]; /* why there are no samples, or "" */
};

/* For one operation: the median of the samples, and where it lies with 95 % confidence. */
struct bench_median {
	double median, low, high;
};

/*
 * The median, and its interval by the percentile bootstrap; the same samples give the same. With less than three samples there
 * is no interval: low and high are the smallest and the largest. There must be one sample.
 */
struct bench_median bench_median(const struct bench_figure *figure);

/* One line for people; and an object of a list, with all samples. */
void bench_print_text(FILE *out, const struct bench_figure *figure);
void bench_print_json(struct json *json, const struct bench_figure *figure, const char *unit);

#endif
