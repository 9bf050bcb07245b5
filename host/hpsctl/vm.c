// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm.h"

#define FILE_BYTES_MAX (1ULL << 30)

static bool failed(struct vm *vm, const char *what)
{
	vm->failed = what;
	return false;
}

const char *vm_error(int error)
{
	const char *text = "the host has no memory left that VMs can have; see hpsctl status and dmesg";

	return error == EADDRNOTAVAIL ? text : strerror(error);
}

bool vm_populate(struct vm *vm, uint64_t gpa, uint64_t size, const void *source)
{
	while (size) {
		struct hyperps_vm_populate request = { gpa, size, (uintptr_t)source };
		int done = ioctl(vm->fd, HYPERPS_VM_IOC_POPULATE, &request);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return failed(vm, source ? "load the image" : "give the VM its RAM");
		gpa += done;
		size -= done;
		source = source ? (const char *)source + done : NULL;
	}
	return true;
}

static bool load(struct vm *vm, const struct image *image)
{
	for (size_t i = 0, n; i < image->pages; i += n) {
		for (n = 1; i + n < image->pages && image->gpa[i + n] == image->gpa[i] + n * IMAGE_PAGE;)
			n++;
		if (!vm_populate(vm, image->gpa[i], n * IMAGE_PAGE, image->data + i * IMAGE_PAGE))
			return false;
	}
	return true;
}

static bool make_vcpu(struct vm *vm, struct vm_vcpu *vcpu, const struct hyperps_vm_create_vcpu *start)
{
	void *page;

	vcpu->fd = ioctl(vm->fd, HYPERPS_VM_IOC_CREATE_VCPU, start);
	if (vcpu->fd < 0)
		return failed(vm, "create a vCPU");
	page = mmap(NULL, IMAGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (page == MAP_FAILED)
		return failed(vm, "map a vCPU");
	vcpu->run = page;
	return true;
}

bool vm_make(struct vm *vm, int device, const struct guest *guest)
{
	struct hyperps_measurement measurement;

	*vm = (struct vm){ .fd = ioctl(device, HYPERPS_IOC_CREATE_VM, 0) };
	if (vm->fd < 0)
		return failed(vm, "create a VM");
	for (size_t i = 0; i < guest->ranges; i++)
		if (ioctl(vm->fd, HYPERPS_VM_IOC_DECLARE, &guest->range[i]))
			return failed(vm, "declare the VM's addresses");
	if (!load(vm, &guest->image))
		return false;
	for (size_t i = 0; i < guest->vcpus; i++)
		if (!make_vcpu(vm, &vm->vcpu[i], &guest->image.start))
			return false;
	if (ioctl(vm->fd, HYPERPS_VM_IOC_SEAL, 0))
		return failed(vm, "seal the VM");
	if (ioctl(vm->fd, HYPERPS_VM_IOC_MEASUREMENT, &measurement))
		return failed(vm, "read the VM's measurement");
	for (size_t i = 0; i < sizeof(vm->measurement); i++)
		vm->measurement[i] = measurement.sha256[i];
	return true;
}

void vm_close(struct vm *vm)
{
	for (size_t i = 0; i < HYPERPS_VCPUS; i++) {
		if (vm->vcpu[i].run)
			munmap(vm->vcpu[i].run, IMAGE_PAGE);
		if (vm->vcpu[i].fd > 0)
			close(vm->vcpu[i].fd);
	}
	if (vm->fd > 0)
		close(vm->fd);
	*vm = (struct vm){ .fd = 0 };
}

void *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *data = NULL, *larger;
	size_t room = 0;
	ssize_t got = fd < 0 ? -1 : 1;

	*size = 0;
	while (got > 0) {
		if (*size == room) {
			room = room ? 2 * room : 1 << 20;
			larger = room > FILE_BYTES_MAX ? NULL : realloc(data, room);
			if (!larger) {
				errno = room > FILE_BYTES_MAX ? EFBIG : ENOMEM;
				got = -1;
				break;
			}
			data = larger;
		}
		got = read(fd, data + *size, room - *size);
		*size += got > 0 ? got : 0;
	}
	if (got < 0) {
		int reason = errno;

		free(data);
		data = NULL;
		errno = reason;
	}
	if (fd >= 0)
		close(fd);
	return data;
}
