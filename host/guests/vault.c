// SPDX-License-Identifier: MIT
/*
 * A key vault: the key is made here and never leaves; the host gets MACs of its messages. vault_client.c drives it. Word
 * of the command line: known_key, for a key that is no secret, so that a test can compute the answers itself.
 */
#include "guest.h"
#include "hmac.h"
#include "vault.h"

#define EXIT_NO_RANDOM 1
#define EXIT_NO_SHARE 2

/* Tests look for this symbol's content in memory that they should not see. */
u8 vault_key[32] __attribute__((aligned(64)));

static union {
	struct vault_page page;
	u8 bytes[PAGE_SIZE];
} shared __attribute__((aligned(PAGE_SIZE)));

static u8 message[VAULT_MESSAGE_BYTES];

static void print_bytes(const char *what, const u8 *bytes, u64 count)
{
	char text[65];

	for (u64 i = 0; i < count && i < 32; i++) {
		text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
		text[2 * i + 2] = 0;
	}
	print("%s%s\n", what, text);
}

/* Everything the host says is read once, into private memory, before it is looked at. */
static void serve(volatile struct vault_page *page, u64 request)
{
	u64 length = page->length, status = VAULT_TOO_LONG;
	u8 mac[32] = { 0 };

	asm volatile("" : : : "memory");
	if (length <= sizeof(message)) {
		for (u64 i = 0; i < length; i++)
			message[i] = page->message[i];
		hmac_sha256(vault_key, sizeof(vault_key), message, length, mac);
		status = VAULT_OK;
	} else if (length == VAULT_END) {
		memset(vault_key, 0, sizeof(vault_key));
		print("vault: end\n");
		shut_down(0);
	}
	for (u64 i = 0; i < sizeof(mac); i++)
		page->mac[i] = mac[i];
	page->status = status;
	asm volatile("" : : : "memory");
	page->answer = request;
}

int guest_main(u64 index, const char *command_line)
{
	volatile struct vault_page *page = &shared.page;
	struct sha256 s;
	u8 fingerprint[32];
	u64 served = 0;

	if (index)
		return 0;
	for (u64 i = 0; i < sizeof(vault_key); i += 8) {
		u64 value = 0x0706050403020100 + i * 0x0101010101010101;

		if (!argument(command_line, "known_key", 0) && !random_word(&value))
			return EXIT_NO_RANDOM;
		memcpy(vault_key + i, &value, 8);
	}
	sha256_init(&s);
	sha256_update(&s, vault_key, sizeof(vault_key));
	sha256_final(&s, fingerprint);

	page->ready = 0; /* only what the guest has can be shared, and it may get its memory by touching it */
	if (has_hypercalls() && hyperps_guest_call(HYPERPS_GUEST_SHARE, (u64)page, 1))
		return EXIT_NO_SHARE;
	for (u64 i = 0; i < sizeof(fingerprint); i++)
		page->fingerprint[i] = fingerprint[i];
	page->ready = VAULT_READY;
	print_bytes("vault: fingerprint ", fingerprint, sizeof(fingerprint));
	print("vault: ready, shared page at %lx, key at %lx\n", (u64)page, (u64)vault_key);
	for (;;) {
		u64 request = page->request;

		if (request != served) {
			serve(page, request);
			served = request;
		}
		asm volatile("hlt");
	}
}
