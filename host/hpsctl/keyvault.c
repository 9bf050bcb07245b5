// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "keyvault.h"

#define RWX 7
#define EXITS_AT_MOST 100000

__attribute__((format(printf, 2, 3))) static bool fail(struct vault *vault, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(vault->error, sizeof(vault->error), format, arguments);
	va_end(arguments);
	return false;
}

bool vault_run(struct vault *vault, uint32_t exit)
{
	struct hyperps_run *run = vault->run;

	for (int i = 0; i < EXITS_AT_MOST; i++) {
		if (ioctl(vault->vm.vcpu[0].fd, HYPERPS_VCPU_IOC_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return fail(vault, "running its vCPU: %s", vm_error(errno));
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
	return fail(vault, "exit %u (%llx) where %u is wanted", run->exit, (unsigned long long)run->words[0], exit);
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
	while (count && !bytes[count - 1])
		count--;
	return !count;
}

static bool make_vm(struct vault *vault, int device, struct guest *guest)
{
	guest->range[0] = (struct hyperps_vm_declare){ 0, KEYVAULT_MEMORY, RWX };
	guest->ranges = guest->vcpus = 1;
	if (!vm_make(&vault->vm, device, guest))
		return fail(vault, "cannot %s: %s", vault->vm.failed, vm_error(errno));
	for (size_t i = 0; i < guest->image.pages; i++)
		vault->not_zero += !is_zero(guest->image.data + i * IMAGE_PAGE, IMAGE_PAGE);
	vault->run = vault->vm.vcpu[0].run;
	vault->run->flags = HYPERPS_RUN_LAZY;
	guest_measure(guest, vault->measurement);
	return !memcmp(vault->vm.measurement, vault->measurement, 32) ||
	       fail(vault, "the measurement is not the image's");
}

static bool wait_until_ready(struct vault *vault)
{
	unsigned long long key;
	const char *text;

	if (!vault_run(vault, HYPERPS_EXIT_HLT))
		return false;
	text = strstr(vault->text, "fingerprint ");
	if (text)
		sscanf(text, "fingerprint %64s", vault->fingerprint);
	text = strstr(vault->text, "key at ");
	if (text && sscanf(text, "key at %llx", &key) == 1)
		vault->key = key;
	return (vault->page && vault->key && strlen(vault->fingerprint) == 64) || fail(vault, "it is not ready");
}

bool vault_start(struct vault *vault, int device, const char *path, const char *arguments)
{
	struct guest guest = { 0 };
	char error[200];
	void *file;
	size_t size;
	bool done;

	*vault = (struct vault){ .page = 0 };
	file = read_file(path, &size);
	if (!file)
		return fail(vault, "cannot read %s: %s", path, strerror(errno));
	done = image_load(&guest.image, file, size, KEYVAULT_MEMORY, arguments, error) ||
	       fail(vault, "%s: %s", path, error);
	done = done && make_vm(vault, device, &guest) && wait_until_ready(vault);
	image_free(&guest.image);
	free(file);
	return done;
}

void vault_end(struct vault *vault)
{
	vm_close(&vault->vm);
}

long vault_read(const struct vault *vault, uint64_t gpa, void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm.fd, HYPERPS_VM_IOC_READ_SHARED, &request);

	return result < 0 ? -errno : result;
}

long vault_write(const struct vault *vault, uint64_t gpa, const void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm.fd, HYPERPS_VM_IOC_WRITE_SHARED, &request);

	return result < 0 ? -errno : result;
}

uint64_t vault_request(struct vault *vault, uint64_t length, const void *message, uint64_t bytes)
{
	struct vault_page page;
	uint64_t request;

	if (vault_read(vault, vault->page, &page, sizeof(page)) != sizeof(page))
		return 0;
	request = page.request + 1;
	if (vault_write(vault, vault->page + offsetof(struct vault_page, length), &length, 8) != 8 ||
	    (bytes &&
	     vault_write(vault, vault->page + offsetof(struct vault_page, message), message, bytes) != (long)bytes) ||
	    vault_write(vault, vault->page + offsetof(struct vault_page, request), &request, 8) != 8)
		return 0;
	return request;
}

bool vault_ask(struct vault *vault, uint64_t length, const void *message, uint64_t bytes, struct vault_page *page)
{
	uint64_t request = vault_request(vault, length, message, bytes);

	return request && vault_run(vault, length == VAULT_END ? HYPERPS_EXIT_SHUTDOWN : HYPERPS_EXIT_HLT) &&
	       vault_read(vault, vault->page, page, sizeof(*page)) == sizeof(*page) && page->answer == request;
}
