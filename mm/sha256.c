// SPDX-License-Identifier: MIT
#include "sha256.h"

/* SHA-256 constants: the cube roots' first 32 fractional bits, of the first 64 primes. */
static const u32 constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static u32 rotate(u32 x, unsigned n)
{
	return x >> n | x << (32 - n);
}

/* The message schedule is kept as a window of 16 words: w[i % 16] is W of round i once that round has begun. */
static void compress(struct sha256 *s)
{
	u32 a = s->state[0], b = s->state[1], c = s->state[2], d = s->state[3], w[16];
	u32 e = s->state[4], f = s->state[5], g = s->state[6], h = s->state[7];

	__builtin_memcpy(w, s->block, sizeof(w));
	for (unsigned i = 0; i < 64; i++) {
		u32 w1 = w[(i + 1) % 16], w14 = w[(i + 14) % 16], t1, t2;

		if (i < 16)
			w[i] = __builtin_bswap32(w[i]);
		else
			w[i % 16] += (rotate(w1, 7) ^ rotate(w1, 18) ^ w1 >> 3) + w[(i + 9) % 16] +
				     (rotate(w14, 17) ^ rotate(w14, 19) ^ w14 >> 10);
		t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] +
		     w[i % 16];
		t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
	}
	s->state[0] += a, s->state[1] += b, s->state[2] += c, s->state[3] += d;
	s->state[4] += e, s->state[5] += f, s->state[6] += g, s->state[7] += h;
}

void sha256_init(struct sha256 *s)
{
	*s = (struct sha256){ .state = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
					 0x1f83d9ab, 0x5be0cd19 } };
}

void sha256_update(struct sha256 *s, const void *data, u64 bytes)
{
	for (u64 done = 0, at, n; done < bytes; done += n) {
		at = s->bytes % 64;
		n = bytes - done < 64 - at ? bytes - done : 64 - at;
		__builtin_memcpy(s->block + at, (const u8 *)data + done, n);
		s->bytes += n;
		if (at + n == 64)
			compress(s);
	}
}

void sha256_final(struct sha256 *s, u8 digest[32])
{
	u64 bits = __builtin_bswap64(s->bytes * 8);

	sha256_update(s, "\x80", 1);
	while (s->bytes % 64 != 56)
		sha256_update(s, "", 1);
	sha256_update(s, &bits, sizeof(bits));
	for (unsigned i = 0; i < 8; i++)
		s->state[i] = __builtin_bswap32(s->state[i]);
	__builtin_memcpy(digest, s->state, 32);
}
