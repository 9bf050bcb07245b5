// SPDX-License-Identifier: MIT
#include "sha384.h"

/* SHA-512 constants, which are SHA-384's, too: the cube roots' first 64 fractional bits, of the first 80 primes. */
static const u64 constants[80] = {
	0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
	0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
	0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
	0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
	0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
	0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
	0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
	0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
	0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
	0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
	0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
	0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
	0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
	0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
	0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
	0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

static u64 rotate(u64 x, unsigned n)
{
	return x >> n | x << (64 - n);
}

/* The message schedule is kept as a window of 16 words: w[i % 16] is W of round i once that round has begun. */
static void compress(struct sha384 *s)
{
	u64 a = s->state[0], b = s->state[1], c = s->state[2], d = s->state[3], w[16];
	u64 e = s->state[4], f = s->state[5], g = s->state[6], h = s->state[7];

	__builtin_memcpy(w, s->block, sizeof(w));
	for (unsigned i = 0; i < 80; i++) {
		u64 w1 = w[(i + 1) % 16], w14 = w[(i + 14) % 16], t1, t2;

		if (i < 16)
			w[i] = __builtin_bswap64(w[i]);
		else
			w[i % 16] += (rotate(w1, 1) ^ rotate(w1, 8) ^ w1 >> 7) + w[(i + 9) % 16] +
				     (rotate(w14, 19) ^ rotate(w14, 61) ^ w14 >> 6);
		t1 = h + (rotate(e, 14) ^ rotate(e, 18) ^ rotate(e, 41)) + ((e & f) ^ (~e & g)) + constants[i] +
		     w[i % 16];
		t2 = (rotate(a, 28) ^ rotate(a, 34) ^ rotate(a, 39)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
	}
	s->state[0] += a, s->state[1] += b, s->state[2] += c, s->state[3] += d;
	s->state[4] += e, s->state[5] += f, s->state[6] += g, s->state[7] += h;
}

void sha384_init(struct sha384 *s)
{
	*s = (struct sha384){ .state = { 0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
					 0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7,
					 0x47b5481dbefa4fa4 } };
}

void sha384_update(struct sha384 *s, const void *data, u64 bytes)
{
	for (u64 done = 0, at, n; done < bytes; done += n) {
		at = s->bytes % 128;
		n = bytes - done < 128 - at ? bytes - done : 128 - at;
		__builtin_memcpy(s->block + at, (const u8 *)data + done, n);
		s->bytes += n;
		if (at + n == 128)
			compress(s);
	}
}

void sha384_final(struct sha384 *s, u8 digest[SHA384_BYTES])
{
	/* The length has 128 bits, of which the upper ones are 0. */
	u64 bits[2] = { 0, __builtin_bswap64(s->bytes * 8) };

	sha384_update(s, "\x80", 1);
	while (s->bytes % 128 != 112)
		sha384_update(s, "", 1);
	sha384_update(s, bits, sizeof(bits));
	for (unsigned i = 0; i < 8; i++)
		s->state[i] = __builtin_bswap64(s->state[i]);
	__builtin_memcpy(digest, s->state, SHA384_BYTES);
}
