// SPDX-License-Identifier: MIT
/* mm/sha256.c: the examples of FIPS 180-4, and messages of every length around a few blocks in pieces of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "sha256.h"

#define LONGEST 300

static void digest_of(const void *data, u64 bytes, u8 digest[32])
{
	struct sha256 s;

	sha256_init(&s);
	sha256_update(&s, data, bytes);
	sha256_final(&s, digest);
}

static void assert_hex(const u8 digest[32], const char *expected)
{
	char text[65];

	for (unsigned i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	assert_string_equal(text, expected);
}

static void examples(void **state)
{
	static const struct {
		const char *message, *digest;
	} example[] = {
		{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
		{ "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmno"
		  "pqrstnopqrstu",
		  "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
	};
	u8 digest[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(example); i++) {
		digest_of(example[i].message, strlen(example[i].message), digest);
		assert_hex(digest, example[i].digest);
	}
}

static void a_million_bytes(void **state)
{
	char *message = malloc(1000000);
	u8 digest[32];

	(void)state;
	memset(message, 'a', 1000000);
	digest_of(message, 1000000, digest);
	assert_hex(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	free(message);
}

/*
 * Byte i of the message of n bytes is 7 * i + n. The expected value is the SHA-256 of all these digests one after the
 * other, by Python's hashlib. The buffer has no byte more than the message.
 */
static void every_length_in_pieces(void **state)
{
	static u8 digests[(LONGEST + 1) * 32];
	u8 digest[32];

	(void)state;
	srand(1);
	for (unsigned n = 0; n <= LONGEST; n++) {
		u8 *message = malloc(n);

		for (unsigned i = 0; i < n; i++)
			message[i] = (u8)(7 * i + n);
		digest_of(message, n, digests + 32 * n);
		for (unsigned round = 0; round < 40; round++) {
			unsigned longest_piece = 1 + (unsigned)rand() % (n + 1);
			struct sha256 s;

			sha256_init(&s);
			for (unsigned done = 0, piece; done < n; done += piece) {
				piece = (unsigned)rand() % (longest_piece + 1);
				piece = piece < n - done ? piece : n - done;
				sha256_update(&s, message + done, piece);
			}
			sha256_final(&s, digest);
			assert_memory_equal(digest, digests + 32 * n, 32);
		}
		free(message);
	}
	digest_of(digests, sizeof(digests), digest);
	assert_hex(digest, "60d63ff40b5558727a9b786ac0be9300f7ca58fd9ddd3b2f3681b369018a87dc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(examples),
		cmocka_unit_test(a_million_bytes),
		cmocka_unit_test(every_length_in_pieces),
	};

	return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
