/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4). Pure; the host's tool uses it, too. */
#ifndef SHA256_H
#define SHA256_H

#include "types.h"

struct sha256 {
	u32 state[8];
	u64 bytes;
	u8 block[64];
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, u64 bytes);
void sha256_final(struct sha256 *s, u8 digest[32]);

#endif
