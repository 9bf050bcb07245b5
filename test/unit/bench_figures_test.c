// SPDX-License-Identifier: MIT
/*
 * host/hpsctl/bench_figures.c: medians of known samples; intervals against the exact distribution of the bootstrapped median, and how
 * often they hold the true one; what is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "bench_figures.h"

#define ROUNDS 300
#define DOUBT 0.008

static struct bench_figure figure(size_t count, uint64_t (*sample)(size_t i))
{
	struct bench_figure result = { .name = "a.b", .text = "what", .operations = 1, .count = count };

	for (size_t i = 0; i < count; i++)
		result.sample[i] = sample(i);
	return result;
}

/* Not in order, all different. */
static uint64_t scattered(size_t i)
{
	return i * 37 % 101;
}

static uint64_t squared(size_t i)
{
	return (i + 1) * (i + 1);
}

static uint64_t same(size_t i)
{
	(void)i;
	return 1000;
}

static uint64_t random_number(size_t i)
{
	(void)i;
	return rand() % 1000000; /* NOLINT: the same each time */
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* That at least half of n draws are among the first k of n samples. */
static double chance(size_t n, size_t k)
{
	double p = (double)k / (double)n, sum = 0;

	for (size_t i = (n + 1) / 2; i <= n; i++) {
		double term = 1;

		for (size_t j = 0; j < i; j++)
			term *= p * (double)(n - j) / (double)(i - j);
		for (size_t j = i; j < n; j++)
			term *= 1 - p;
		sum += term;
	}
	return sum;
}

static void medians(void **state)
{
	struct bench_figure odd = { .operations = 1, .count = 5, .sample = { 9, 1, 5, 3, 7 } };
	struct bench_figure even = { .operations = 10, .count = 4, .sample = { 40, 10, 30, 20 } };
	struct bench_figure one = { .operations = 4, .count = 1, .sample = { 8 } };
	struct bench_figure two = { .operations = 2, .count = 2, .sample = { 8, 4 } };
	struct bench_median result = bench_median(&odd);

	(void)state;
	assert_true(result.median == 5);
	assert_true(bench_median(&even).median == 2.5);
	result = bench_median(&one);
	assert_true(result.median == 2 && result.low == 2 && result.high == 2);
	result = bench_median(&two);
	assert_true(result.median == 3 && result.low == 2 && result.high == 4);
}

/* Whether this one of sorted samples is the quantile: 2,000 resamples find it within DOUBT. */
static void assert_quantile(const struct bench_figure *sorted, double value, double wanted)
{
	size_t rank = 1;

	while (rank < sorted->count && (double)sorted->sample[rank - 1] != value)
		rank++;
	if (chance(sorted->count, rank) < wanted - DOUBT || chance(sorted->count, rank - 1) > wanted + DOUBT)
		fail_msg("%zu samples: sample %zu, %f, is not the quantile %f", sorted->count, rank, value, wanted);
}

static void exact_intervals(void **state)
{
	static const size_t counts[] = { 11, 21, 31, 51, 75, 101 };

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(counts) / sizeof(counts[0]); i++) {
		struct bench_figure samples = figure(counts[i / 2], i % 2 ? scattered : squared);
		struct bench_median result = bench_median(&samples);

		qsort(samples.sample, samples.count, sizeof(samples.sample[0]), compare);
		assert_quantile(&samples, result.low, 0.025);
		assert_quantile(&samples, result.high, 0.975);
	}
}

/* How many of all 6^6 ways to draw 6 of 6 samples give a median of less than this value, or with `equal` also of this one. */
static double share_below(const struct bench_figure *sorted, double value, bool equal)
{
	unsigned int below = 0, ways = 6 * 6 * 6 * 6 * 6 * 6;

	for (unsigned int way = 0; way < ways; way++) {
		uint64_t drawn[6];
		double median;

		for (unsigned int i = 0, rest = way; i < 6; i++, rest /= 6)
			drawn[i] = sorted->sample[rest % 6];
		qsort(drawn, 6, sizeof(drawn[0]), compare);
		median = (double)(drawn[2] + drawn[3]) / 2;
		below += median < value || (equal && median == value);
	}
	return (double)below / ways;
}

static void exact_interval_of_six(void **state)
{
	struct bench_figure samples = { .operations = 1, .count = 6, .sample = { 0, 1, 10, 100, 1000, 10000 } };
	struct bench_median result = bench_median(&samples);

	(void)state;
	assert_true(share_below(&samples, result.low, true) > 0.025 - DOUBT);
	assert_true(share_below(&samples, result.low, false) < 0.025 + DOUBT);
	assert_true(share_below(&samples, result.high, true) > 0.975 - DOUBT);
	assert_true(share_below(&samples, result.high, false) < 0.975 + DOUBT);
}

static void coverage(void **state)
{
	int held = 0;

	(void)state;
	srand(1);
	for (int round = 0; round < ROUNDS; round++) {
		/* Also even numbers, for which there is no exact distribution above. */
		struct bench_figure samples = figure(20 + round % 7, random_number);
		struct bench_median result = bench_median(&samples);

		held += result.low <= 500000 && result.high >= 500000;
	}
	if (held < ROUNDS * 90 / 100 || held > ROUNDS * 99 / 100)
		fail_msg("%d of %d intervals hold the median", held, ROUNDS);
}

static void equal_samples(void **state)
{
	struct bench_figure samples = figure(BENCH_SAMPLES, same);
	struct bench_median result = bench_median(&samples);

	(void)state;
	assert_true(result.median == 1000 && result.low == 1000 && result.high == 1000);
}

static void printed(void **state)
{
	struct bench_figure samples = {
		.name = "a.b", .text = "what", .operations = 2, .count = 3, .sample = { 3, 5, 4 }
	};
	struct bench_figure none = { .name = "c", .text = "what", .missing = "no device" };
	struct json json = { 0 };
	char *text;
	size_t size;

	(void)state;
	json.out = open_memstream(&text, &size);
	json_begin(&json, NULL, '{');
	bench_print_json(&json, &samples, "ticks");
	json_end(&json);
	fclose(json.out);
	assert_string_equal(
		text,
		"{\"a.b\": {\"text\": \"what\", \"unit\": \"ticks\", \"median\": 2.00, \"low\": 1.50, \"high\": 2.50, "
		"\"operations\": 2, \"samples\": [1.50, 2.50, 2.00]}}\n");
	free(text);
	json.out = open_memstream(&text, &size);
	bench_print_text(json.out, &none);
	fclose(json.out);
	assert_string_equal(text, "c                        not measured: no device\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(medians),  cmocka_unit_test(exact_intervals), cmocka_unit_test(exact_interval_of_six),
		cmocka_unit_test(coverage), cmocka_unit_test(equal_samples),   cmocka_unit_test(printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
