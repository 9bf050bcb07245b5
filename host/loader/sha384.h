/* SPDX-License-Identifier: MIT */
/* SHA-384 (FIPS 180-4). Pure; hpsctl uses it, too. */
#ifndef SHA384_H
#define SHA384_H

#include "types.h"

#define SHA384_BYTES 48

void sha384(const void *data, u64 bytes, u8 digest[SHA384_BYTES]);

#endif
