/* SPDX-License-Identifier: MIT */
/* SHA-384 of what lies in one piece. hpsctl uses it, too. */
#ifndef DIGEST_H
#define DIGEST_H

#include "sha384.h"

static inline void sha384(const void *data, u64 bytes, u8 digest[SHA384_BYTES])
{
	struct sha384 s;

	sha384_init(&s);
	sha384_update(&s, data, bytes);
	sha384_final(&s, digest);
}

#endif
