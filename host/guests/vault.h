/* SPDX-License-Identifier: MIT */
/*
 * The page that the key vault (vault.c) shares with the host. A client writes length and message, then counts request
 * up, and runs the vCPU: it has executed HLT and goes on. The vault writes status and mac, then sets answer = request,
 * and executes HLT again. The host can write all of the page at any time; the vault believes nothing twice.
 */
#ifndef VAULT_H
#define VAULT_H

#include <stdint.h>

#define VAULT_READY 0x544c554156535048ULL /* "HPSVAULT" */
#define VAULT_MESSAGE_BYTES 3584
#define VAULT_END (~0ULL) /* as length: the vault forgets its key and shuts down with exit code 0 */

enum vault_status { VAULT_OK = 0, VAULT_TOO_LONG };

struct vault_page {
	uint64_t ready; /* VAULT_READY once the vault serves */
	uint64_t request;
	uint64_t answer;
	uint64_t length;
	uint64_t status; /* enum vault_status */
	uint8_t fingerprint[32]; /* SHA-256 of the key */
	uint8_t mac[32]; /* HMAC-SHA256 of the message under the key */
	uint8_t message[VAULT_MESSAGE_BYTES];
};

#endif
