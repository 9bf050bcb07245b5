/* SPDX-License-Identifier: MIT */
/* The MTRRs' values (SDM, "Memory Type Range Registers"), and memory types. */
#ifndef MTRR_H
#define MTRR_H

#include "types.h"

/* Memory types are 0, 1, 4, 5 and this one; the others are in boot/memory_type.h. */
#define MEMORY_TYPE_WB 6

/* IA32_MTRRCAP */
#define MTRRCAP_COUNT 0xffULL
/* IA32_MTRR_DEF_TYPE */
#define MTRR_DEF_TYPE 0xffULL
#define MTRR_FIXED_ENABLE BIT(10)
#define MTRR_ENABLE BIT(11)

struct mtrr_state {
	u64 capability; /* IA32_MTRRCAP */
	u64 msr[256]; /* the other registers, by their MSR numbers from IA32_MTRR_PHYSBASE0 on; what is none is 0 */
};

/* Whether an encoding is one of the five memory types, not a reserved one. */
static inline bool memory_type_is_defined(u64 type)
{
	return type <= MEMORY_TYPE_WB && type != 2 && type != 3;
}

#endif
