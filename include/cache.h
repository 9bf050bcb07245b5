/* SPDX-License-Identifier: MIT */
/* Writing back what a CPU's caches hold. */
#ifndef CACHE_H
#define CACHE_H

#include "instructions.h"

#define CACHE_LINE 64

/* Writes each line of [start, start + bytes) back to memory; what is written after this reaches memory later. */
static inline __attribute__((always_inline)) void write_back(const void *start, u64 bytes)
{
#pragma GCC unroll 64
	for (u64 line = ALIGN_DOWN((u64)start, CACHE_LINE); line < (u64)start + bytes; line += CACHE_LINE)
		clflush((u8 *)line);
	mfence();
}

#endif
