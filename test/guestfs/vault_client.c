// SPDX-License-Identifier: MIT
/*
 * Starts the key vault (test/guests/vault.c) and uses it as its owner would: requests and answers go through the page
 * that the vault shares. A second vault with a known key shows that the answers are what they should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hmac.h"
#include "hyperps_ioctl.h"
#include "image.h"
#include "monitor_device.h"
#include "vault.h"

#define VAULT "/guests/vault"
#define MEMORY (4ULL << 20)
#define RWX 7
#define EXITS_AT_MOST 100000

static int checks, failed, device;

struct vault {
	int vm, vcpu;
	struct hyperps_run *run;
	uint64_t page, key; /* gpa */
	char fingerprint[65]; /* as printed */
	char text[4096]; /* its console */
};

__attribute__((format(printf, 2, 3))) static bool check(bool passed, const char *format, ...)
{
	va_list arguments;

	checks++;
	failed += !passed;
	printf("%s - ", passed ? "ok" : "not ok");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	return passed;
}

static bool read_file(const char *path, uint8_t **data, size_t *size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	bool done = file >= 0 && !fstat(file, &status);

	*size = done ? status.st_size : 0;
	*data = malloc(*size + 1);
	done = done && read(file, *data, *size) == (ssize_t)*size;
	if (file >= 0)
		close(file);
	return done;
}

/* Runs the vCPU until this exit; what the vault prints is kept. */
static bool run_until(struct vault *vault, uint32_t exit)
{
	struct hyperps_run *run = vault->run;

	for (int i = 0; i < EXITS_AT_MOST; i++) {
		if (ioctl(vault->vcpu, HYPERPS_VCPU_IOC_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			printf("# RUN: %s\n", strerror(errno));
			return false;
		}
		if (run->exit == HYPERPS_EXIT_CONSOLE && run->console.bytes <= sizeof(run->console.text))
			strncat(vault->text, run->console.text,
				run->console.bytes < sizeof(vault->text) - 1 - strlen(vault->text) ? run->console.bytes
												   : 0);
		if (run->exit == HYPERPS_EXIT_SHARED)
			vault->page = run->pages.gpa;
		run->answer = ~0ULL;
		if (run->exit == exit)
			return true;
		if (run->exit == HYPERPS_EXIT_SHUTDOWN || run->exit == HYPERPS_EXIT_FAILED)
			break;
	}
	printf("# exit %u (%llx) where %u is wanted\n", run->exit, (unsigned long long)run->words[0], exit);
	return false;
}

/* Makes the VM; `step` says where it went wrong. */
static const char *make_vm(struct vault *vault, struct guest *guest)
{
	struct hyperps_vm_declare range = { 0, MEMORY, RWX };
	struct hyperps_measurement measured;
	uint8_t expected[32];

	vault->vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	if (vault->vm < 0 || ioctl(vault->vm, HYPERPS_VM_IOC_DECLARE, &range))
		return "CREATE_VM and DECLARE";
	for (size_t i = 0; i < guest->image.pages; i++) {
		struct hyperps_vm_populate page = { guest->image.gpa[i], IMAGE_PAGE,
						    (uintptr_t)guest->image.data + i * IMAGE_PAGE };

		if (ioctl(vault->vm, HYPERPS_VM_IOC_POPULATE, &page) != IMAGE_PAGE)
			return "POPULATE";
	}
	vault->vcpu = ioctl(vault->vm, HYPERPS_VM_IOC_CREATE_VCPU, &guest->image.start);
	if (vault->vcpu < 0)
		return "CREATE_VCPU";
	vault->run = mmap(NULL, IMAGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vault->vcpu, 0);
	if (vault->run == MAP_FAILED)
		return "mmap";
	if (ioctl(vault->vm, HYPERPS_VM_IOC_SEAL, 0))
		return "SEAL";
	vault->run->flags = HYPERPS_RUN_LAZY;
	guest->range[0] = range;
	guest->ranges = guest->vcpus = 1;
	guest_measure(guest, expected);
	if (ioctl(vault->vm, HYPERPS_VM_IOC_MEASUREMENT, &measured) || memcmp(measured.sha256, expected, 32))
		return "MEASUREMENT, which should be that of the image";
	return NULL;
}

/* Starts a vault, up to its first HLT. */
static bool start_vault(struct vault *vault, const char *arguments)
{
	struct guest guest = { 0 };
	char error[200] = "the file can't be read";
	uint8_t *file;
	size_t size;
	unsigned long long key;
	const char *text, *wrong = NULL;
	bool loaded;

	memset(vault, 0, sizeof(*vault));
	loaded = read_file(VAULT, &file, &size) && image_load(&guest.image, file, size, MEMORY, arguments, error);
	if (!check(loaded, "loading " VAULT "%s%s", loaded ? "" : ": ", loaded ? "" : error))
		return false;
	wrong = make_vm(vault, &guest);
	image_free(&guest.image);
	free(file);
	if (!check(!wrong, "making a VM of it%s%s", wrong ? ": " : "", wrong ? wrong : ""))
		return false;
	if (!check(run_until(vault, HYPERPS_EXIT_HLT), "the vault starts"))
		return false;
	text = strstr(vault->text, "fingerprint ");
	if (text)
		sscanf(text, "fingerprint %64s", vault->fingerprint);
	text = strstr(vault->text, "key at ");
	if (text && sscanf(text, "key at %llx", &key) == 1)
		vault->key = key;
	return check(vault->page && vault->key && strlen(vault->fingerprint) == 64, "it says that it is ready");
}

static void end_vault(struct vault *vault)
{
	munmap(vault->run, IMAGE_PAGE);
	close(vault->vcpu);
	close(vault->vm);
}

static long read_shared(const struct vault *vault, uint64_t gpa, void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm, HYPERPS_VM_IOC_READ_SHARED, &request);

	return result < 0 ? -errno : result;
}

static long write_shared(const struct vault *vault, uint64_t gpa, const void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm, HYPERPS_VM_IOC_WRITE_SHARED, &request);

	return result < 0 ? -errno : result;
}

/* One request, as vault.h has it. `length` is what the page says; `bytes` of the message are written. */
static bool ask(struct vault *vault, uint64_t length, const void *message, uint64_t bytes, struct vault_page *page)
{
	uint64_t request;

	if (read_shared(vault, vault->page, page, sizeof(*page)) != sizeof(*page))
		return false;
	request = page->request + 1;
	if (write_shared(vault, vault->page + offsetof(struct vault_page, length), &length, 8) != 8 ||
	    (bytes &&
	     write_shared(vault, vault->page + offsetof(struct vault_page, message), message, bytes) != (long)bytes) ||
	    write_shared(vault, vault->page + offsetof(struct vault_page, request), &request, 8) != 8)
		return false;
	return run_until(vault, length == VAULT_END ? HYPERPS_EXIT_SHUTDOWN : HYPERPS_EXIT_HLT) &&
	       read_shared(vault, vault->page, page, sizeof(*page)) == sizeof(*page) && page->answer == request;
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
	check(ask(vault, sizeof(challenge), challenge, sizeof(challenge), &first) && first.ready == VAULT_READY &&
		      first.status == VAULT_OK && !is_zero(first.mac, 32),
	      "the vault answers a challenge");
	for (int i = 0; i < 32; i++)
		snprintf(fingerprint + 2 * i, 3, "%02x", first.fingerprint[i]);
	check(!strcmp(fingerprint, vault->fingerprint), "the fingerprint in the page is the printed one");
	check(ask(vault, sizeof(challenge) - 1, challenge, sizeof(challenge), &other) &&
		      memcmp(other.mac, first.mac, 32),
	      "another message gets another answer");
	check(ask(vault, sizeof(challenge), challenge, sizeof(challenge), &again) && !memcmp(again.mac, first.mac, 32),
	      "the same message gets the same answer");
	check(ask(vault, 0, NULL, 0, &other) && other.status == VAULT_OK, "an empty message");
	check(ask(vault, sizeof(long_message), long_message, sizeof(long_message), &other) && other.status == VAULT_OK,
	      "the longest message");
	check(ask(vault, sizeof(long_message) + 1, NULL, 0, &other) && other.status == VAULT_TOO_LONG &&
		      is_zero(other.mac, 32),
	      "a message that is too long gets no answer");
	check(ask(vault, 1ULL << 63, NULL, 0, &other) && other.status == VAULT_TOO_LONG, "a length of 2^63 gets none");
	check(ask(vault, sizeof(challenge), challenge, sizeof(challenge), &again) && !memcmp(again.mac, first.mac, 32),
	      "the vault is well afterwards");
}

static void check_privacy(struct vault *vault)
{
	uint8_t bytes[32];

	check(read_shared(vault, vault->page, bytes, sizeof(bytes)) == sizeof(bytes),
	      "positive control: the shared page can be read");
	check(read_shared(vault, vault->key, bytes, sizeof(bytes)) == -EACCES, "the key's page can't");
	check(write_shared(vault, vault->key, bytes, sizeof(bytes)) == -EACCES, "nor can it be written");
	check(read_shared(vault, vault->page - IMAGE_PAGE, bytes, sizeof(bytes)) == -EACCES &&
		      read_shared(vault, vault->page + IMAGE_PAGE, bytes, sizeof(bytes)) == -EACCES,
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
	check(ask(vault, sizeof(challenge), challenge, sizeof(challenge), &page) && !memcmp(page.mac, mac, 32),
	      "with a known key the answer is HMAC-SHA256 of the message");
	check(ask(vault, sizeof(challenge) - 1, challenge, sizeof(challenge), &page) && memcmp(page.mac, mac, 32),
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
			end_vault(&second);
		}
		if (start_vault(&known, "known_key")) {
			check_known_key(&known);
			end_vault(&known);
		}
		ask(&vault, VAULT_END, NULL, 0, &page);
		check(vault.run->exit == HYPERPS_EXIT_SHUTDOWN && !vault.run->code && strstr(vault.text, "vault: end"),
		      "the vault ends when told to");
		end_vault(&vault);
	}
	printf("# failed %d of %d\n", failed, checks);
	return failed != 0;
}
