/* SPDX-License-Identifier: MIT */
/* Memory types by address, from the MTRRs' values. No MSR access here: the caller reads them. */
#ifndef MEMORY_TYPE_H
#define MEMORY_TYPE_H

#include "mtrr.h"

/*
 * Memory type of the byte at hpa, and in *end the first byte address above it where the type may differ (at most
 * 2^bits). bits is the CPU's physical-address width; hpa must be below 2^bits. Reserved encodings count as uncacheable.
 */
u64 memory_type_at(const struct mtrr_state *mtrr, unsigned bits, hpa_t hpa, u64 *end);

#endif
