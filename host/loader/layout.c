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
	layout->acpi = ACPI_ADDRESS;
	layout->command_line = layout->acpi + ACPI_BYTES;
	layout->parameters = layout->command_line + PAGE_SIZE;
	layout->file = KERNEL_ADDRESS - setup_bytes;
	layout->entry = KERNEL_ADDRESS + ENTRY_64_OFFSET;
	layout->initrd = ALIGN_UP(KERNEL_ADDRESS + room, PAGE_SIZE);
	layout->end = ALIGN_UP(layout->initrd + payload->initrd_bytes, PAGE_SIZE);
	layout->kernel_offset = PAGE_SIZE;
	layout->initrd_offset = layout->kernel_offset + ALIGN_UP(payload->kernel_bytes, PAGE_SIZE);
	layout->command_line_offset = layout->initrd_offset + ALIGN_UP(payload->initrd_bytes, PAGE_SIZE);
	layout->payload_bytes = layout->command_line_offset + PAGE_SIZE;
	return layout->end > LIMIT_4G ? "kernel and initrd are too large" : NULL;
}

u64 layout_ranges(const struct ram *ram, struct range range[RAM_RANGES])
{
	range[0] = (struct range){ 0, STUB_ADDRESS };
	range[1] = (struct range){ STUB_ADDRESS + PAGE_SIZE, 0xa0000 };
	range[2] = (struct range){ 0x100000, ram->low_end };
	range[3] = (struct range){ LIMIT_4G, ram->high_end };
	return ram->high_end > LIMIT_4G ? 4 : 3;
}

static void add_e820(struct boot_params *parameters, u64 start, u64 end, u32 type)
{
	if (start < end && parameters->e820_entries < E820_ENTRIES)
		parameters->e820[parameters->e820_entries++] = (struct e820_entry){ start, end - start, type };
}

void layout_parameters(const struct layout *layout, const struct payload *payload, const struct boot_params *header,
		       const struct ranges *ranges, struct boot_params *parameters)
{
	struct setup_header *setup = &parameters->header;
	u64 header_bytes = offsetof(struct setup_header, magic) + header->header.bytes_after_jump;
	struct ranges ram = *ranges;

	if (header_bytes > sizeof(*setup))
		header_bytes = sizeof(*setup);
	__builtin_memset(parameters, 0, sizeof(*parameters));
	/* Its own defaults where nothing else is said. */
	__builtin_memcpy(setup, &header->header, header_bytes);
	setup->type_of_loader = LOADER_TYPE_OTHER;
	setup->code32_start = KERNEL_ADDRESS;
	setup->setup_data = 0;
	setup->cmd_line_ptr = layout->command_line;
	setup->ramdisk_image = payload->initrd_bytes ? layout->initrd : 0;
	setup->ramdisk_size = payload->initrd_bytes;
	parameters->acpi_rsdp_addr = layout->acpi;
	ranges_remove(&ram, layout->acpi, layout->acpi + ACPI_BYTES);
	ranges_remove(&ram, STUB_ADDRESS, STUB_ADDRESS + PAGE_SIZE);
	for (u64 i = 0; i < ram.count; i++)
		add_e820(parameters, ram.range[i].start, ram.range[i].end, E820_RAM);
	add_e820(parameters, layout->acpi, layout->acpi + ACPI_BYTES, E820_ACPI);
	add_e820(parameters, STUB_ADDRESS, STUB_ADDRESS + PAGE_SIZE, E820_RESERVED);
}
