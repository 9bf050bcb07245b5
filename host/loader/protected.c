// SPDX-License-Identifier: MIT
/*
 * What runs once the VM is protected, in the copy at LOADER_ADDRESS. It believes nothing that is not private: what lies in shared memory
 * is read once, by read_shared(), and what the kernel gets of it is measured.
 */
#include "acpi_copy.h"
#include "loader.h"

static struct handover handover;
static struct payload payload;
static struct boot_params header, parameters;
static struct ranges ram;
static char command_line[COMMAND_LINE_BYTES];

static bool read_shared(void *to, u64 address, u64 bytes)
{
	if (address >= LIMIT_4G || bytes > LIMIT_4G - address)
		return false;
	memcpy(to, (const void *)(SHARED_WINDOW + address), bytes);
	return true;
}

void refused(u64 unused, u64 error)
{
	(void)unused, (void)error;
	give_up("the monitor does not protect this VM");
}

/* Entry by entry, so that the set is in order whatever was handed over. */
static void take_ram(void)
{
	for (u64 i = 0; i < handover.machine.ram.count && i < RANGES; i++)
		ranges_add(&ram, ALIGN_UP(handover.machine.ram.range[i].start, PAGE_SIZE),
			   ALIGN_DOWN(handover.machine.ram.range[i].end, PAGE_SIZE));
}

static void add_e820(u64 start, u64 end, u32 type)
{
	if (start < end && parameters.e820_entries < E820_ENTRIES)
		parameters.e820[parameters.e820_entries++] = (struct e820_entry){ start, end - start, type };
}

/* The kernel's page of parameters; its own defaults where nothing else is said. */
static void fill_parameters(const struct layout *layout, u64 acpi_bytes)
{
	u64 acpi_end = ALIGN_UP(layout->acpi + acpi_bytes, PAGE_SIZE);
	u64 header_bytes = offsetof(struct setup_header, magic) + header.header.bytes_after_jump;

	if (header_bytes > sizeof(header.header))
		header_bytes = sizeof(header.header);
	memcpy(&parameters.header, &header.header, header_bytes);
	parameters.header.type_of_loader = LOADER_TYPE_OTHER;
	parameters.header.code32_start = KERNEL_ADDRESS;
	parameters.header.setup_data = 0;
	parameters.header.cmd_line_ptr = (u64)command_line;
	parameters.header.ramdisk_image = payload.initrd_bytes ? layout->initrd : 0;
	parameters.header.ramdisk_size = payload.initrd_bytes;
	parameters.acpi_rsdp_addr = layout->acpi;
	ranges_remove(&ram, layout->acpi, acpi_end);
	ranges_remove(&ram, STUB_ADDRESS, STUB_ADDRESS + PAGE_SIZE);
	for (u64 i = 0; i < ram.count; i++)
		add_e820(ram.range[i].start, ram.range[i].end, E820_RAM);
	add_e820(layout->acpi, acpi_end, E820_ACPI);
	add_e820(STUB_ADDRESS, STUB_ADDRESS + PAGE_SIZE, E820_RESERVED);
}

void protected_start(void)
{
	struct acpi_copy acpi = { .read = read_shared };
	struct layout layout;
	const char *error;

	map_memory(0);
	read_shared(&handover, HANDOVER_ADDRESS, sizeof(handover));
	if (!read_shared(&payload, handover.payload, sizeof(payload)) ||
	    !read_shared(&header, handover.payload + PAGE_SIZE, sizeof(header)))
		give_up("the image was not handed over");
	take_ram();
	error = layout_find(&layout, &payload, &header);
	if (error)
		give_up(error);
	if (!ranges_contain(&ram, layout.file, layout.end) || !ranges_contain(&ram, LOW_START, LOW_END))
		give_up("the VM has too little memory");
	if (!read_shared((void *)layout.file, handover.payload + layout.kernel_offset, payload.kernel_bytes) ||
	    !read_shared((void *)layout.initrd, handover.payload + layout.initrd_offset, payload.initrd_bytes) ||
	    !read_shared(command_line, handover.payload + layout.command_line_offset, payload.command_line_bytes) ||
	    memcmp((void *)layout.file, &header, sizeof(header)))
		give_up("the image changed while it was copied");
	acpi.area = (u8 *)layout.acpi;
	acpi.address = layout.acpi;
	acpi.size = ACPI_BYTES;
	memset(acpi.area, 0, acpi.size);
	if (!acpi_copy(&acpi, handover.machine.rsdp))
		give_up(acpi.error);
	fill_parameters(&layout, acpi.used);
	enter_kernel(layout.entry, &parameters);
}
