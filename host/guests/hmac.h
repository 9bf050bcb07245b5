/* SPDX-License-Identifier: MIT */
/* HMAC-SHA256 (RFC 2104). */
#ifndef HMAC_H
#define HMAC_H

#include "sha256.h"

#define HMAC_BLOCK 64

void hmac_sha256(const u8 *key, u64 key_bytes, const void *message, u64 bytes, u8 mac[32]);

#endif
