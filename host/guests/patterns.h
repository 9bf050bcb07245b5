/* SPDX-License-Identifier: MIT */
/*
 * What registers.c puts into the guest's registers. A host program that finds HYPERPS_IS_PATTERN() in a register, or in
 * a result of VCPU_RUN beyond what the exit carries, has found the guest's.
 */
#ifndef PATTERNS_H
#define PATTERNS_H

#include <stdint.h>

#define PATTERN_MARK 0x5ec7e7ULL

/* A canonical address, for base registers. index: vCPU, up to 15; round: the low 8 bits; n: register, up to 4095. */
#define PATTERN_BASE(index, round, n)                                                                                  \
	(PATTERN_MARK << 24 | (uint64_t)(index) << 20 | ((uint64_t)(round)&0xff) << 12 | (uint64_t)(n))
/* For all others: no canonical address. */
#define PATTERN(index, round, n) (0xa5c3ULL << 48 | PATTERN_BASE(index, round, n))

#define HYPERPS_IS_PATTERN(value) (((uint64_t)(value) >> 24 & 0xffffff) == PATTERN_MARK)

#define PATTERN_PORT 0x5a /* of the guest's OUT and IN */

#endif
