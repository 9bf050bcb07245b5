/* SPDX-License-Identifier: MIT */
/* SHA-384 (FIPS 180-4). Pure; for the loader of protected VMs and the host's tool, too. */
#ifndef SHA384_H
#define SHA384_H

#include "types.h"

#define SHA384_BYTES 48

struct sha384 {
	u64 state[8];
	u64 bytes;
	u8 block[128];
};

void sha384_init(struct sha384 *s);
void sha384_update(struct sha384 *s, const void *data, u64 bytes);
void sha384_final(struct sha384 *s, u8 digest[SHA384_BYTES]);

#endif
