// SPDX-License-Identifier: MIT
/* HMAC-SHA256 against the test cases of RFC 4231. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hmac.h"

static void expect_mac(const u8 *key, u64 key_bytes, const void *message, u64 bytes, const char *wanted)
{
	u8 mac[32];
	char text[65];

	hmac_sha256(key, key_bytes, message, bytes, mac);
	for (int i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", mac[i]);
	assert_string_equal(text, wanted);
}

static void test_rfc_4231(void **state)
{
	static const char larger[] =
		"This is a test using a larger than block-size key and a larger than block-size data. "
		"The key needs to be hashed before being used by the HMAC algorithm.";
	static const char first[] = "Test Using Larger Than Block-Size Key - Hash Key First";
	u8 key[131], data[50];

	(void)state;
	memset(key, 0x0b, 20);
	expect_mac(key, 20, "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	expect_mac((const u8 *)"Jefe", 4, "what do ya want for nothing?", 28,
		   "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof(key));
	memset(data, 0xdd, sizeof(data));
	expect_mac(key, 20, data, sizeof(data), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	expect_mac(key, sizeof(key), first, sizeof(first) - 1,
		   "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	expect_mac(key, sizeof(key), larger, sizeof(larger) - 1,
		   "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

/* Keys around the block's size, from Python's hmac module: key and message are the bytes 0, 1, 2, ... */
static void test_key_sizes(void **state)
{
	static const struct {
		u64 key_bytes, bytes;
		const char *mac;
	} cases[] = {
		{ 0, 0, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad" },
		{ 32, 0, "d38b42096d80f45f826b44a9d5607de72496a415d3f4a1a8c88e3bb9da8dc1cb" },
		{ 63, 1, "50cead6de0979add64fbe658882adf793a0611ee7b132e847db9ad942e89150c" },
		{ 64, 55, "5f25409bf0f0db615dbe5aca0382b14ce873e12c603e4eaeedfa0af329e52f38" },
		{ 65, 56, "313960c69b2fd23d7a2a08883e7a62434c47cd8b36090a5f48e5d85fad0fa6c1" },
		{ 128, 64, "838fc8364bba5ba102204968ed001ad55d5fe08cf12e2accbc6a459e329bcb73" },
		{ 200, 200, "5b6004be8fdfa067c33db7f232c58fdd88e3bb7aa9019843ed594bdc2fc041da" },
	};
	u8 bytes[200];

	(void)state;
	for (u64 i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	for (u64 i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_mac(bytes, cases[i].key_bytes, bytes, cases[i].bytes, cases[i].mac);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rfc_4231),
		cmocka_unit_test(test_key_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
