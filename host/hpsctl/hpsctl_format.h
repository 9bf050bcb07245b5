/* SPDX-License-Identifier: MIT */
/* How hpsctl shows what it read from the monitor. Pure: no I/O but to the given stream, no global state. */
#ifndef HPSCTL_FORMAT_H
#define HPSCTL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "hyperps/abi.h"

/* The name of a VM exit's basic reason as the SDM has it ("Basic Exit Reasons"), or NULL for a number that has none. */
const char *exit_reason_name(unsigned int reason);

/* An enum hyperps_feature as a JSON key, and for people. */
const char *feature_key(unsigned int feature);
const char *feature_text(unsigned int feature);

/* The status, which is also about the frames, for people, or as one JSON object with a key a line. */
void format_status_text(FILE *out, const struct hyperps_status *status, const struct hyperps_frames *frames);
void format_status_json(FILE *out, const struct hyperps_status *status, const struct hyperps_frames *frames);

/* The VM exits of a CPU, or of a VM's vCPUs; or what came to them in some time. */
struct exits_column {
	uint32_t number; /* of the slot */
	uint64_t id; /* APIC ID, or the VM's handle */
	bool in_vmx; /* of a CPU */
	uint64_t calls; /* of a CPU: those that were calls to the monitor */
	uint64_t reason[HYPERPS_EXIT_REASONS];
};

struct exits_table {
	bool vms; /* columns are VMs, not CPUs */
	bool l2; /* what exited are VMs of the host's own hypervisor, on these CPUs */
	double seconds; /* 0, or: show rates, for the counts came in so many seconds */
	size_t count;
	struct exits_column *column;
};

/* What came from one table to a later one; a CPU or VM that was not there counts from 0. Allocates columns; whether it could. */
bool exits_since(struct exits_table *difference, const struct exits_table *before, const struct exits_table *after);

/* A table, or one JSON object. */
void format_exits_text(FILE *out, const struct exits_table *table);
void format_exits_json(FILE *out, const struct exits_table *table);

/* Frames by state: a table, or one JSON object. */
void format_frames_text(FILE *out, const struct hyperps_frames *frames);
void format_frames_json(FILE *out, const struct hyperps_frames *frames);

/* The VMs of count slots; those without a VM are left out: a table, or one JSON object. */
void format_vms_text(FILE *out, const struct hyperps_vm *slots, size_t count);
void format_vms_json(FILE *out, const struct hyperps_vm *slots, size_t count);

/* How hpsctl run ended. */
struct run_result {
	int exit_code;
	const char *end; /* a word */
	const char *failure; /* failure_name(), or NULL */
	char message[300]; /* for people, or empty */
	char measurement[65]; /* hexadecimal, or empty */
	uint64_t exits[HYPERPS_EXITS]; /* those that user space saw, all vCPUs */
};

/* One JSON object, in one line. */
void format_run_json(FILE *out, const struct run_result *result);

/* One attempt of hpsctl demo, made on a page of the attacker's own and on the target. */
struct demo_attack {
	const char *key, *text; /* a word, and a phrase for people */
	bool control; /* it worked on the own page */
	bool refused; /* and was refused on the target */
	uint64_t counted; /* memory accesses that the monitor refused meanwhile */
	char note[160];
	char log[1024]; /* what the monitor logged meanwhile, lines that end in '\n' */
};

#define DEMO_ATTACKS 16

struct demo_result {
	const char *target; /* what is attacked: a phrase for people */
	char measurement[65], fingerprint[65], mac[65], mac_after[65]; /* hexadecimal, or empty */
	size_t attacks;
	struct demo_attack attack[DEMO_ATTACKS];
	uint64_t frames; /* of the VM */
	uint64_t given_not_zero; /* of these, those that were not zero when they were given */
	uint64_t readable_before, readable_after, not_zero_after; /* to the attacker, before and after the VM's end */
	uint64_t counted; /* memory accesses that the monitor refused when all were read before the end */
	char message[300]; /* why it failed, or empty */
};

/* The head of the table of attempts, a line of it with the notes below it, and all as one JSON object. */
void format_demo_header(FILE *out, const struct demo_result *result);
void format_demo_attack(FILE *out, const struct demo_attack *attack);
void format_demo_json(FILE *out, const struct demo_result *result);

/* An enum hyperps_failure as a word, and for people. */
const char *failure_name(uint64_t failure);
const char *failure_text(uint64_t failure);

/*
 * Print the text in a log ring of log->size bytes, oldest byte first. written may have moved while the ring was read: a
 * partial first line is left out. Bytes that are neither printable ASCII, newline nor tab are shown as '?'.
 */
void format_log(FILE *out, const struct hyperps_log *log, const char *ring);

#endif
