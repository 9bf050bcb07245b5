/* SPDX-License-Identifier: MIT */
/* The MTRRs' values (SDM, "Memory Type Range Registers"), and memory types. */
#ifndef MTRR_H
#define MTRR_H

#include "types.h"

#define MEMORY_TYPE_UC 0
#define MEMORY_TYPE_WC 1
#define MEMORY_TYPE_WT 4
#define MEMORY_TYPE_WP 5
#define MEMORY_TYPE_WB 6

#define MTRR_VARIABLE_MAX 32
#define MTRR_MSRS 256

/* Indexes in mtrr_state.msr. */
#define MTRR_BASE(n) (2 * (n)) /* IA32_MTRR_PHYSBASEn */
#define MTRR_MASK(n) (2 * (n) + 1) /* IA32_MTRR_PHYSMASKn */
#define MTRR_FIX64K 0x50
#define MTRR_FIX16K 0x58
#define MTRR_FIX4K 0x68
#define MTRR_DEFAULT 0xff /* IA32_MTRR_DEF_TYPE */

/* IA32_MTRRCAP */
#define MTRRCAP_COUNT 0xffULL
#define MTRRCAP_FIXED BIT(8)
/* IA32_MTRR_DEF_TYPE */
#define MTRR_DEF_TYPE 0xffULL
#define MTRR_FIXED_ENABLE BIT(10)
#define MTRR_ENABLE BIT(11)
/* IA32_MTRR_PHYSMASKn */
#define MTRR_MASK_VALID BIT(11)

struct mtrr_state {
	u64 capability; /* IA32_MTRRCAP */
	u64 msr[MTRR_MSRS]; /* the other registers, by their MSR numbers from IA32_MTRR_PHYSBASE0 on; what is none is 0 */
};

/* Whether an encoding is one of the five memory types, not a reserved one. */
static inline bool memory_type_is_defined(u64 type)
{
	return type <= MEMORY_TYPE_WB && type != 2 && type != 3;
}

#endif
