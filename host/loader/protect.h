/* SPDX-License-Identifier: MIT */
/* The monitor's interface for guests that want protection (docs/protected.md, "PROTECT"), and its measurement. */
#ifndef PROTECT_H
#define PROTECT_H

#include "layout.h"

#define PROTECT_CALL 0x48505390
#define PROTECT_VERSION 1
#define PROTECT_SHARED_BIT_MOST 47
#define PROTECT_SHARED_BIT_LEAST 35
#define PROTECT_ERROR_SHARED_BIT 22 /* or another mistake in the list */

struct protect_run {
	u64 gpa, pages;
};

struct protect_list {
	u32 version, flags;
	u64 entry, cr3, argument, stub;
	u32 shared_bit, ranges, runs, apic_id;
	u64 forbidden[4];
	struct protect_run range[8], run[32];
	u8 zeros[PAGE_SIZE - 216 - 32 * sizeof(struct protect_run)];
};

_Static_assert(sizeof(struct protect_list) == PAGE_SIZE && offsetof(struct protect_list, run) == 216, "PROTECT's list");

/* What the loader asks for. shared_bit and apic_id are left to the caller. */
void protect_fill(struct protect_list *list, const struct loader_table *loader, const struct ram *ram);

/*
 * The bytes whose SHA-384 is the measurement: into stream, which has room for PROTECT_STREAM_BYTES. loader: what lies at
 * LOADER_ADDRESS. Returns how many.
 */
#define PROTECT_STREAM_BYTES (4096 + 64 * 4104)
u64 protect_stream(const struct protect_list *list, const u8 *loader, u8 *stream);

#endif
