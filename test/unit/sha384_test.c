// SPDX-License-Identifier: MIT
/* mm/sha384.c: the examples of FIPS 180-4, and messages of every length around a few blocks in pieces of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "sha384.h"

#define LONGEST 300

static void digest_of(const void *data, u64 bytes, u8 digest[48])
{
	struct sha384 s;

	sha384_init(&s);
	sha384_update(&s, data, bytes);
	sha384_final(&s, digest);
}

static void assert_hex(const u8 digest[48], const char *expected)
{
	char text[97];

	for (unsigned i = 0; i < 48; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	assert_string_equal(text, expected);
}

static void examples(void **state)
{
	static const struct {
		const char *message, *digest;
	} example[] = {
		{ "",
		  "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b" },
		{ "abc",
		  "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  "3391fdddfc8dc7393707a65b1b4709397cf8b1d162af05abfe8f450de5f36bc6b0455a8520bc4e6f5fe95b1fe3c8452b" },
		{ "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmno"
		  "pqrstnopqrstu",
		  "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039" },
	};
	u8 digest[48];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(example); i++) {
		digest_of(example[i].message, strlen(example[i].message), digest);
		assert_hex(digest, example[i].digest);
	}
}

static void a_million_bytes(void **state)
{
	char *message = malloc(1000000);
	u8 digest[48];

	(void)state;
	memset(message, 'a', 1000000);
	digest_of(message, 1000000, digest);
	assert_hex(digest,
		   "9d0e1809716474cb086e834e310a4a1ced149e9c00f248527972cec5704c2a5b07b8b3dc38ecc4ebae97ddd87f3d8985");
	free(message);
}

/*
 * Byte i of the message of n bytes is 7 * i + n. The expected value is the SHA-384 of all these digests one after the
 * other, by Python's hashlib. The buffer has no byte more than the message.
 */
static void every_length_in_pieces(void **state)
{
	static u8 digests[(LONGEST + 1) * 48];
	u8 digest[48];

	(void)state;
	srand(1);
	for (unsigned n = 0; n <= LONGEST; n++) {
		u8 *message = malloc(n);

		for (unsigned i = 0; i < n; i++)
			message[i] = (u8)(7 * i + n);
		digest_of(message, n, digests + 48 * n);
		for (unsigned round = 0; round < 40; round++) {
			unsigned longest_piece = 1 + (unsigned)rand() % (n + 1);
			struct sha384 s;

			sha384_init(&s);
			for (unsigned done = 0, piece; done < n; done += piece) {
				piece = (unsigned)rand() % (longest_piece + 1);
				piece = piece < n - done ? piece : n - done;
				sha384_update(&s, message + done, piece);
			}
			sha384_final(&s, digest);
			assert_memory_equal(digest, digests + 48 * n, 48);
		}
		free(message);
	}
	digest_of(digests, sizeof(digests), digest);
	assert_hex(digest,
		   "022ac2b92dcdb9358b044b9475cd22bacae49d2510f5493370847b4c61050cacc2325d1d80119adbc3ca9eaa7ecd3de7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(examples),
		cmocka_unit_test(a_million_bytes),
		cmocka_unit_test(every_length_in_pieces),
	};

	return cmocka_run_group_tests_name("sha384", tests, NULL, NULL);
}
