// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>

#include "hyperps_ioctl.h"
#include "monitor_device.h"

int monitor_open(void)
{
	return open(HYPERPS_DEVICE, O_RDWR | O_CLOEXEC);
}

int monitor_read(int device, uint32_t object, uint32_t index, uint64_t offset, void *buffer, size_t size)
{
	struct hyperps_read request = { .object = object, .index = index };
	size_t done = 0;
	int bytes;

	while (done < size) {
		request.offset = offset + done;
		request.length = size - done;
		request.buffer = (uintptr_t)buffer + done;
		bytes = ioctl(device, HYPERPS_IOC_READ, &request);
		if (bytes < 0)
			return -1;
		if (!bytes) {
			errno = ENODATA;
			return -1;
		}
		done += bytes;
	}
	return 0;
}

int monitor_read_status(int device, struct hyperps_status *status)
{
	if (monitor_read(device, HYPERPS_OBJECT_STATUS, 0, 0, status, sizeof(*status)))
		return -1;
	if (status->size != sizeof(*status) || status->abi_version != HYPERPS_ABI_VERSION) {
		errno = EPROTO;
		return -1;
	}
	return 0;
}

int monitor_read_exits(int device, uint32_t slot, struct hyperps_exits *exits)
{
	return monitor_read(device, HYPERPS_OBJECT_EXITS, slot, 0, exits, sizeof(*exits));
}
