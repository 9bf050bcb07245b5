// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bench_figures.h"

#define RESAMPLES 2000
#define TAIL 50 /* 2.5 % of them on each side */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* xorshift64*. */
static uint32_t random32(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1d) >> 32;
}

/* Twice the median of sorted samples, so that it is a whole number. */
static uint64_t twice_median(const uint64_t *sorted, size_t count)
{
	return sorted[(count - 1) / 2] + sorted[count / 2];
}

/*
 * Twice the median of as many draws from the samples as there are. A draw is the rank of a sample: counting how often each rank
 * came sorts them.
 */
static uint64_t draw_median(const uint64_t *sorted, size_t count, uint64_t *state)
{
	uint16_t drawn[BENCH_SAMPLES] = { 0 };
	size_t below = 0, rank = 0;
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		drawn[(uint64_t)random32(state) * count >> 32]++;
	for (size_t half = 0; half < 2; half++) {
		size_t wanted = half ? count / 2 : (count - 1) / 2;

		while (below + drawn[rank] <= wanted)
			below += drawn[rank++];
		sum += sorted[rank];
	}
	return sum;
}

struct bench_median bench_median(const struct bench_figure *figure)
{
	uint64_t sorted[BENCH_SAMPLES], medians[RESAMPLES], state = 0x9e3779b97f4a7c15;
	double twice = 2.0 * (double)figure->operations;
	struct bench_median result;

	memcpy(sorted, figure->sample, figure->count * sizeof(sorted[0]));
	qsort(sorted, figure->count, sizeof(sorted[0]), compare);
	result.median = (double)twice_median(sorted, figure->count) / twice;
	result.low = 2.0 * (double)sorted[0] / twice;
	result.high = 2.0 * (double)sorted[figure->count - 1] / twice;
	if (figure->count < 3)
		return result;
	for (size_t i = 0; i < RESAMPLES; i++)
		medians[i] = draw_median(sorted, figure->count, &state);
	qsort(medians, RESAMPLES, sizeof(medians[0]), compare);
	result.low = (double)medians[TAIL] / twice;
	result.high = (double)medians[RESAMPLES - 1 - TAIL] / twice;
	return result;
}

void bench_print_text(FILE *out, const struct bench_figure *figure)
{
	struct bench_median result;

	if (!figure->count) {
		fprintf(out, "%-24s not measured: %s\n", figure->name, figure->missing);
		return;
	}
	result = bench_median(figure);
	fprintf(out, "%-24s %14.1f %14.1f %14.1f %5zu  %s\n", figure->name, result.median, result.low, result.high,
		figure->count, figure->text);
}

void bench_print_json(struct json *json, const struct bench_figure *figure, const char *unit)
{
	struct bench_median result = bench_median(figure);

	json_begin(json, figure->name, '{');
	json_text(json, "text", figure->text, strlen(figure->text));
	json_text(json, "unit", unit, strlen(unit));
	json_decimal(json, "median", result.median);
	json_decimal(json, "low", result.low);
	json_decimal(json, "high", result.high);
	json_number(json, "operations", figure->operations);
	json_begin(json, "samples", '[');
	for (size_t i = 0; i < figure->count; i++)
		json_decimal(json, NULL, (double)figure->sample[i] / (double)figure->operations);
	json_end(json);
	json_end(json);
}
