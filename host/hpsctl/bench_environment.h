/* SPDX-License-Identifier: MIT */
/* Where hpsctl bench measures: what a reader of its figures has to know. */
#ifndef BENCH_ENVIRONMENT_H
#define BENCH_ENVIRONMENT_H

#include "hyperps/abi.h"
#include "json.h"

struct bench_environment {
	struct bench_fact {
		const char *key;
		char value[2048];
	} fact[24];
	size_t count;
};

/* status: NULL without a monitor. */
void bench_look_around(struct bench_environment *environment, const struct hyperps_status *status, const char *version);

/* What the time-stamp counter counts: "ticks", an emulator's instructions, or "cycles" of hardware. */
const char *bench_unit(void);

void bench_environment_json(struct json *json, const struct bench_environment *environment);
void bench_environment_text(FILE *out, const struct bench_environment *environment);

#endif
