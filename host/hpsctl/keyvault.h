/* SPDX-License-Identifier: MIT */
/* The host's side of the key vault, the guest in host/guests/vault.c: starts it in a VM and asks it for MACs. */
#ifndef KEYVAULT_H
#define KEYVAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vault.h"
#include "vm.h"

#define KEYVAULT_MEMORY (4ULL << 20)

struct vault {
	struct vm vm;
	struct hyperps_run *run; /* of its vCPU */
	uint64_t page, key; /* gpa of the shared page, and of the key */
	char fingerprint[65]; /* of the key, as printed */
	uint8_t measurement[32]; /* by the monitor; that of the image */
	size_t not_zero; /* pages that were not zero when they were given */
	char text[4096]; /* its console */
	char error[256]; /* what went wrong */
};

/* Makes a VM of the image and runs it to its first HLT. False: vault->error says why. vault_end() in either case. */
bool vault_start(struct vault *vault, int device, const char *path, const char *arguments);
void vault_end(struct vault *vault);

/* Runs the vCPU until this exit; what the vault prints is kept. */
bool vault_run(struct vault *vault, uint32_t exit);

/* Bytes done, or errno's negative. */
long vault_read(const struct vault *vault, uint64_t gpa, void *buffer, uint64_t size);
long vault_write(const struct vault *vault, uint64_t gpa, const void *buffer, uint64_t size);

/*
 * One request, as vault.h has it. length is what the page says; bytes of the message are written. vault_request() only
 * writes it and returns its number, or 0; vault_ask() also runs the vault until it has answered, in *page.
 */
uint64_t vault_request(struct vault *vault, uint64_t length, const void *message, uint64_t bytes);
bool vault_ask(struct vault *vault, uint64_t length, const void *message, uint64_t bytes, struct vault_page *page);

#endif
