// SPDX-License-Identifier: MIT
#include "hmac.h"

static void hash_padded(const u8 key[HMAC_BLOCK], u8 pad, const void *data, u64 bytes, u8 digest[32])
{
	struct sha256 s;
	u8 block[HMAC_BLOCK];

	for (u64 i = 0; i < HMAC_BLOCK; i++)
		block[i] = key[i] ^ pad;
	sha256_init(&s);
	sha256_update(&s, block, sizeof(block));
	sha256_update(&s, data, bytes);
	sha256_final(&s, digest);
}

void hmac_sha256(const u8 *key, u64 key_bytes, const void *message, u64 bytes, u8 mac[32])
{
	u8 block_key[HMAC_BLOCK] = { 0 }, inner[32];

	if (key_bytes > HMAC_BLOCK) {
		struct sha256 s;

		sha256_init(&s);
		sha256_update(&s, key, key_bytes);
		sha256_final(&s, block_key);
	} else {
		for (u64 i = 0; i < key_bytes; i++)
			block_key[i] = key[i];
	}
	hash_padded(block_key, 0x36, message, bytes, inner);
	hash_padded(block_key, 0x5c, inner, sizeof(inner), mac);
}
