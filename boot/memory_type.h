/* SPDX-License-Identifier: MIT */
/* Memory types by address, from the MTRRs' values. No MSR access here: the caller reads them. */
#ifndef MEMORY_TYPE_H
#define MEMORY_TYPE_H

#include "mtrr.h"

#define MEMORY_TYPE_UC 0
#define MEMORY_TYPE_WC 1
#define MEMORY_TYPE_WT 4
#define MEMORY_TYPE_WP 5

#define MTRR_VARIABLE_MAX 32

/* Indexes in mtrr_state.msr. */
#define MTRR_BASE(n) (2 * (n)) /* IA32_MTRR_PHYSBASEn */
#define MTRR_MASK(n) (2 * (n) + 1) /* IA32_MTRR_PHYSMASKn */
#define MTRR_FIX64K 0x50
#define MTRR_FIX16K 0x58
#define MTRR_FIX4K 0x68
#define MTRR_DEFAULT 0xff /* IA32_MTRR_DEF_TYPE */

#define MTRRCAP_FIXED BIT(8) /* of IA32_MTRRCAP */
#define MTRR_MASK_VALID BIT(11) /* of IA32_MTRR_PHYSMASKn */

/*
 * Memory type of the byte at hpa, and in *end the first byte address above it where the type may differ (at most
 * 2^bits). bits is the CPU's physical-address width; hpa must be below 2^bits. Reserved encodings count as uncacheable.
 */
u64 memory_type_at(const struct mtrr_state *mtrr, unsigned bits, hpa_t hpa, u64 *end);

#endif
