// SPDX-License-Identifier: MIT
/*
 * Starts the key vault (host/guests/vault.c) and uses it as its owner would: requests and answers go through the page
 * that the vault shares. A second vault with a known key shows that the answers are what they should be.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "hmac.h"
#include "image.h"
#include "keyvault.h"
#include "monitor_device.h"
#include "tap.h"

#define VAULT "/guests/vault"

static int device;

/* Starts a vault, up to its first HLT. */
static bool start_vault(struct vault *vault, const char *arguments)
{
	bool done = vault_start(vault, device, VAULT, arguments);

	return check(done, "a vault starts, and is what the monitor measured%s%s", done ? "" : ": ", vault->error);
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
	while (count && !bytes[count - 1])
		count--;
	return !count;
}

static void check_answers(struct vault *vault)
{
	static const char challenge[] = "What do ya want for nothing?";
	static uint8_t long_message[VAULT_MESSAGE_BYTES];
	struct vault_page first, again, other;
	char fingerprint[65];

	memset(long_message, 0xaa, sizeof(long_message));
	check(vault_ask(vault, sizeof(challenge), challenge, sizeof(challenge), &first) && first.ready == VAULT_READY &&
		      first.status == VAULT_OK && !is_zero(first.mac, 32),
	      "the vault answers a challenge");
	for (int i = 0; i < 32; i++)
		snprintf(fingerprint + 2 * i, 3, "%02x", first.fingerprint[i]);
	check(!strcmp(fingerprint, vault->fingerprint), "the fingerprint in the page is the printed one");
	check(vault_ask(vault, sizeof(challenge) - 1, challenge, sizeof(challenge), &other) &&
		      memcmp(other.mac, first.mac, 32),
	      "another message gets another answer");
	check(vault_ask(vault, sizeof(challenge), challenge, sizeof(challenge), &again) &&
		      !memcmp(again.mac, first.mac, 32),
	      "the same message gets the same answer");
	check(vault_ask(vault, 0, NULL, 0, &other) && other.status == VAULT_OK, "an empty message");
	check(vault_ask(vault, sizeof(long_message), long_message, sizeof(long_message), &other) &&
		      other.status == VAULT_OK,
	      "the longest message");
	check(vault_ask(vault, sizeof(long_message) + 1, NULL, 0, &other) && other.status == VAULT_TOO_LONG &&
		      is_zero(other.mac, 32),
	      "a message that is too long gets no answer");
	check(vault_ask(vault, 1ULL << 63, NULL, 0, &other) && other.status == VAULT_TOO_LONG,
	      "a length of 2^63 gets none");
	check(vault_ask(vault, sizeof(challenge), challenge, sizeof(challenge), &again) &&
		      !memcmp(again.mac, first.mac, 32),
	      "the vault is well afterwards");
}

static void check_privacy(struct vault *vault)
{
	uint8_t bytes[32];

	check(vault_read(vault, vault->page, bytes, sizeof(bytes)) == sizeof(bytes),
	      "positive control: the shared page can be read");
	check(vault_read(vault, vault->key, bytes, sizeof(bytes)) == -EACCES, "the key's page can't");
	check(vault_write(vault, vault->key, bytes, sizeof(bytes)) == -EACCES, "nor can it be written");
	check(vault_read(vault, vault->page - IMAGE_PAGE, bytes, sizeof(bytes)) == -EACCES &&
		      vault_read(vault, vault->page + IMAGE_PAGE, bytes, sizeof(bytes)) == -EACCES,
	      "nor the pages before and after the shared one");
}

static void check_known_key(struct vault *vault)
{
	static const char challenge[] = "challenge";
	uint8_t key[32], mac[32];
	struct vault_page page;

	for (int i = 0; i < 32; i++)
		key[i] = i;
	hmac_sha256(key, sizeof(key), challenge, sizeof(challenge), mac);
	check(vault_ask(vault, sizeof(challenge), challenge, sizeof(challenge), &page) && !memcmp(page.mac, mac, 32),
	      "with a known key the answer is HMAC-SHA256 of the message");
	check(vault_ask(vault, sizeof(challenge) - 1, challenge, sizeof(challenge), &page) && memcmp(page.mac, mac, 32),
	      "positive control: of another message it is not");
}

int main(void)
{
	static struct vault vault, second, known;
	struct vault_page page;

	device = monitor_open();
	if (check(device >= 0, "opening " HYPERPS_DEVICE) && start_vault(&vault, "")) {
		check_answers(&vault);
		check_privacy(&vault);
		if (start_vault(&second, "")) {
			check(strcmp(vault.fingerprint, second.fingerprint), "another vault has another key");
			vault_end(&second);
		}
		if (start_vault(&known, "known_key")) {
			check_known_key(&known);
			vault_end(&known);
		}
		vault_ask(&vault, VAULT_END, NULL, 0, &page);
		check(vault.run->exit == HYPERPS_EXIT_SHUTDOWN && !vault.run->code && strstr(vault.text, "vault: end"),
		      "the vault ends when told to");
		vault_end(&vault);
	}
	return summary();
}
