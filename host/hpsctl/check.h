/* SPDX-License-Identifier: MIT */
/* Whether a machine can run HyperPS. Pure: all that is looked at comes through struct machine. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

#include "x86.h"

#define CHECK_FINDINGS 40

struct machine {
	struct cpuid_result (*cpuid)(unsigned int cpu, u32 leaf, u32 subleaf);
	bool (*rdmsr)(unsigned int cpu, u32 msr, u64 *value); /* false: can't be read */
	long (*read)(const char *path, char *text, size_t size); /* bytes of a file, or -1; ends them with a NUL */
};

enum answer {
	ANSWER_YES,
	ANSWER_NO, /* HyperPS can't run */
	ANSWER_UNKNOWN, /* it could not be seen whether it can */
	ANSWER_NOTE, /* it can, but that is worth knowing */
	ANSWERS
};

struct finding {
	const char *key; /* a word */
	enum answer answer;
	char found[200], to_do[300];
};

struct check {
	size_t count;
	struct finding finding[CHECK_FINDINGS];
};

enum verdict { VERDICT_FIT = 0, VERDICT_UNFIT = 1, VERDICT_UNKNOWN = 2 };

/* Looks at the machine. */
void check_machine(const struct machine *looked_at, struct check *check);

/* Notes one more finding. */
__attribute__((format(printf, 5, 6))) void check_add(struct check *check, const char *key, enum answer answer,
						     const char *to_do, const char *format, ...);

enum verdict check_verdict(const struct check *check);

/* For people, or as one JSON object. */
void check_print_text(FILE *out, const struct check *check);
void check_print_json(FILE *out, const struct check *check);

#endif
