/* SPDX-License-Identifier: MIT */
/* Words by which a page of a VM's or of a process's is known in a dump. No program's file has them in this form. */
#ifndef DUMP_TEXT_H
#define DUMP_TEXT_H

#include <stdint.h>

#define DUMP_TEXT_WORDS 8

enum dump_text { DUMP_TEXT_PROCESS, DUMP_TEXT_VM, DUMP_TEXTS };

static inline void dump_text(uint64_t words[DUMP_TEXT_WORDS], enum dump_text text)
{
	volatile uint64_t factor = 0x9e3779b97f4a7c15;

	for (uint64_t i = 0; i < DUMP_TEXT_WORDS; i++)
		words[i] = (text * DUMP_TEXT_WORDS + i + 1) * factor;
}

#endif
