// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bool read_file(const char *path, uint8_t **data, size_t *size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	bool done = file >= 0 && !fstat(file, &status);

	*size = done ? status.st_size : 0;
	*data = malloc(*size + 1);
	done = done && *data && read(file, *data, *size) == (ssize_t)*size;
	if (file >= 0)
		close(file);
	return done;
}

bool vault_run(struct vault *vault, uint32_t exit)
{
	struct hyperps_run *run = vault->run;

	for (int i = 0; i < EXITS_AT_MOST; i++) {
		if (ioctl(vault->vcpu, HYPERPS_VCPU_IOC_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return fail(vault, "running its vCPU: %s", strerror(errno));
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

static bool populate(struct vault *vault, const struct image *image)
{
	for (size_t i = 0; i < image->pages; i++) {
		struct hyperps_vm_populate page = { image->gpa[i], IMAGE_PAGE,
						    (uintptr_t)image->data + i * IMAGE_PAGE };

		if (ioctl(vault->vm, HYPERPS_VM_IOC_POPULATE, &page) != IMAGE_PAGE)
			return fail(vault, "giving it memory: %s", strerror(errno));
		vault->not_zero += !is_zero(image->data + i * IMAGE_PAGE, IMAGE_PAGE);
	}
	return true;
}

static bool make_vm(struct vault *vault, int device, struct guest *guest)
{
	struct hyperps_vm_declare range = { 0, KEYVAULT_MEMORY, RWX };
	struct hyperps_measurement measured;

	vault->vm = ioctl(device, HYPERPS_IOC_CREATE_VM, 0);
	if (vault->vm < 0 || ioctl(vault->vm, HYPERPS_VM_IOC_DECLARE, &range))
		return fail(vault, "creating a VM: %s", strerror(errno));
	if (!populate(vault, &guest->image))
		return false;
	vault->vcpu = ioctl(vault->vm, HYPERPS_VM_IOC_CREATE_VCPU, &guest->image.start);
	if (vault->vcpu < 0)
		return fail(vault, "creating a vCPU: %s", strerror(errno));
	vault->run = mmap(NULL, IMAGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vault->vcpu, 0);
	if (vault->run == MAP_FAILED)
		return fail(vault, "mapping the vCPU: %s", strerror(errno));
	if (ioctl(vault->vm, HYPERPS_VM_IOC_SEAL, 0) || ioctl(vault->vm, HYPERPS_VM_IOC_MEASUREMENT, &measured))
		return fail(vault, "sealing the VM: %s", strerror(errno));
	vault->run->flags = HYPERPS_RUN_LAZY;
	guest->range[0] = range;
	guest->ranges = guest->vcpus = 1;
	guest_measure(guest, vault->measurement);
	return !memcmp(measured.sha256, vault->measurement, 32) || fail(vault, "the measurement is not the image's");
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
	uint8_t *file;
	size_t size;
	bool done;

	*vault = (struct vault){ .vm = -1, .vcpu = -1, .run = MAP_FAILED };
	if (!read_file(path, &file, &size)) {
		free(file);
		return fail(vault, "cannot read %s", path);
	}
	done = image_load(&guest.image, file, size, KEYVAULT_MEMORY, arguments, error) ||
	       fail(vault, "%s: %s", path, error);
	done = done && make_vm(vault, device, &guest) && wait_until_ready(vault);
	image_free(&guest.image);
	free(file);
	return done;
}

void vault_end(struct vault *vault)
{
	if (vault->run != MAP_FAILED)
		munmap(vault->run, IMAGE_PAGE);
	if (vault->vcpu >= 0)
		close(vault->vcpu);
	if (vault->vm >= 0)
		close(vault->vm);
	vault->vm = vault->vcpu = -1;
	vault->run = MAP_FAILED;
}

long vault_read(const struct vault *vault, uint64_t gpa, void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm, HYPERPS_VM_IOC_READ_SHARED, &request);

	return result < 0 ? -errno : result;
}

long vault_write(const struct vault *vault, uint64_t gpa, const void *buffer, uint64_t size)
{
	struct hyperps_vm_shared request = { gpa, size, (uintptr_t)buffer };
	long result = ioctl(vault->vm, HYPERPS_VM_IOC_WRITE_SHARED, &request);

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
