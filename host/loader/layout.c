// SPDX-License-Identifier: MIT
#include "layout.h"

const char *layout_find(struct layout *layout, const struct payload *payload, const struct boot_params *header)
{
	const struct setup_header *setup = &header->header;
	u64 setup_bytes = (setup->setup_sects + 1ULL) * SETUP_SECTOR, room = setup->init_size;

	if (payload->magic != PAYLOAD_MAGIC)
		return "the image has no payload: make it with hpsctl image";
	if (payload->kernel_bytes >= LIMIT_4G || payload->initrd_bytes >= LIMIT_4G ||
	    payload->command_line_bytes >= COMMAND_LINE_BYTES)
		return "kernel, initrd or command line are too large";
	if (payload->kernel_bytes < sizeof(*header) || setup->magic != SETUP_MAGIC || !setup->setup_sects ||
	    setup_bytes + sizeof(*header) > payload->kernel_bytes)
		return "the kernel is no bzImage";
	if (setup->version < SETUP_VERSION_XLOADFLAGS || !(setup->xloadflags & XLF_KERNEL_64) ||
	    !setup->relocatable_kernel || KERNEL_ADDRESS % (setup->kernel_alignment ?: 1))
		return "the kernel has no 64-bit entry, or can't be moved";
	if (room < payload->kernel_bytes)
		room = payload->kernel_bytes;
	layout->file = KERNEL_ADDRESS - setup_bytes;
	layout->entry = KERNEL_ADDRESS + ENTRY_64_OFFSET;
	layout->initrd = ALIGN_UP(KERNEL_ADDRESS + room, PAGE_SIZE);
	layout->acpi = ALIGN_UP(layout->initrd + payload->initrd_bytes, PAGE_SIZE);
	layout->end = layout->acpi + ACPI_BYTES;
	layout->kernel_offset = PAGE_SIZE;
	layout->initrd_offset = layout->kernel_offset + ALIGN_UP(payload->kernel_bytes, PAGE_SIZE);
	layout->command_line_offset = layout->initrd_offset + ALIGN_UP(payload->initrd_bytes, PAGE_SIZE);
	layout->payload_bytes = layout->command_line_offset + PAGE_SIZE;
	return layout->end > LIMIT_4G ? "kernel and initrd are too large" : NULL;
}
