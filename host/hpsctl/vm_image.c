// SPDX-License-Identifier: MIT
#define _GNU_SOURCE /* memmem() */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protect.h"
#include "digest.h"
#include "vm_image.h"

/* In the headers of an image: what depends on the payload. */
#define PE_OFFSET 0x3c
#define PE_SIZE_OF_IMAGE 0x50 /* from the PE header on */
#define PE_PAYLOAD_SECTION (0xb8 + 2 * 40)
#define SECTION_MEMORY_BYTES 8
#define SECTION_FILE_BYTES 16
#define VERSION_OFFSET 0x20e /* of the version's text, less a sector */
#define VERSION_TEXT "HyperPS protected VM"
#define TDX_SIGNATURE "IntelTDX    " /* what a kernel that can be a TDX guest compares CPUID's answer with */

extern const uint8_t loader_image[], loader_image_end[];

static void *fail(char error[200], const char *why)
{
	snprintf(error, 200, "%s", why);
	return NULL;
}

static void set_u32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

void *vm_image_make(const struct vm_image_parts *parts, size_t *bytes, uint64_t *memory_mib, char error[200])
{
	size_t loader_bytes = loader_image_end - loader_image;
	struct payload payload = { PAYLOAD_MAGIC, parts->is_unprotected ? PAYLOAD_UNPROTECTED : 0, parts->kernel_bytes,
				   parts->initrd_bytes, strlen(parts->command_line) };
	struct boot_params header = { 0 };
	struct layout layout;
	struct setup_header *setup;
	const char *unfit;
	uint8_t *image, *pe, *at;

	if (payload.command_line_bytes >= COMMAND_LINE_BYTES)
		return fail(error, "the command line is too long: Linux takes 2047 bytes");
	memcpy(&header, parts->kernel, parts->kernel_bytes < sizeof(header) ? parts->kernel_bytes : sizeof(header));
	unfit = layout_find(&layout, &payload, &header);
	if (unfit)
		return fail(error, unfit);
	if (!parts->is_unprotected && !memmem(parts->kernel, parts->kernel_bytes, TDX_SIGNATURE, strlen(TDX_SIGNATURE)))
		return fail(error, "the kernel can't run in a protected VM, as it is built without "
				   "CONFIG_INTEL_TDX_GUEST: take Debian's 6.12 or a later one");
	*bytes = loader_bytes + layout.payload_bytes;
	*memory_mib = ((layout.end + layout.payload_bytes) >> 20) + 2;
	image = calloc(1, *bytes);
	if (!image)
		return fail(error, "out of memory");
	memcpy(image, loader_image, loader_bytes);
	setup = &((struct boot_params *)image)->header;
	setup->syssize = (*bytes - IMAGE_HEADER_BYTES + 15) / 16;
	setup->init_size = *bytes - IMAGE_HEADER_BYTES;
	pe = image + image[PE_OFFSET];
	set_u32(pe + PE_SIZE_OF_IMAGE, *bytes);
	set_u32(pe + PE_PAYLOAD_SECTION + SECTION_MEMORY_BYTES, layout.payload_bytes);
	set_u32(pe + PE_PAYLOAD_SECTION + SECTION_FILE_BYTES, layout.payload_bytes);
	at = image + loader_bytes;
	memcpy(at, &payload, sizeof(payload));
	memcpy(at + layout.kernel_offset, parts->kernel, parts->kernel_bytes);
	memcpy(at + layout.initrd_offset, parts->initrd, parts->initrd_bytes);
	memcpy(at + layout.command_line_offset, parts->command_line, payload.command_line_bytes);
	return image;
}

bool vm_image_is(const void *file, size_t bytes)
{
	uint16_t at;

	if (bytes < IMAGE_HEADER_BYTES)
		return false;
	memcpy(&at, (const uint8_t *)file + VERSION_OFFSET, sizeof(at));
	return at + SETUP_SECTOR + sizeof(VERSION_TEXT) <= IMAGE_HEADER_BYTES &&
	       !memcmp((const uint8_t *)file + at + SETUP_SECTOR, VERSION_TEXT, sizeof(VERSION_TEXT));
}

uint64_t vm_image_low_memory(const char *machine, uint64_t memory)
{
	uint64_t most, split;

	if (!strcmp(machine, "q35"))
		most = 0xb0000000, split = 0x80000000;
	else if (!strcmp(machine, "pc"))
		most = 0xe0000000, split = 0xc0000000;
	else
		return 0;
	return memory < most ? memory : split;
}

static void extend(uint8_t rtmr[VM_IMAGE_DIGEST], const uint8_t digest[VM_IMAGE_DIGEST])
{
	uint8_t both[2 * VM_IMAGE_DIGEST];

	memcpy(both, rtmr, VM_IMAGE_DIGEST);
	memcpy(both + VM_IMAGE_DIGEST, digest, VM_IMAGE_DIGEST);
	sha384(both, sizeof(both), rtmr);
}

static void extend_by(uint8_t rtmr[VM_IMAGE_DIGEST], const void *data, size_t bytes)
{
	uint8_t digest[VM_IMAGE_DIGEST];

	sha384(data, bytes, digest);
	extend(rtmr, digest);
}

bool vm_image_measure(const void *file, size_t bytes, const struct vm_image_machine *machine,
		      struct vm_image_measurement *measurement, char error[200])
{
	const uint8_t *loader = (const uint8_t *)file + IMAGE_HEADER_BYTES, *at;
	struct ram ram = { machine->low_memory, LIMIT_4G + machine->memory - machine->low_memory };
	struct range range[RAM_RANGES];
	struct ranges ranges = { 0 };
	struct protect_list list;
	struct boot_params header, parameters;
	struct loader_table table;
	struct payload payload;
	struct layout layout;
	size_t loader_bytes = loader_image_end - loader_image;
	uint8_t *stream;
	const char *unfit;

	*measurement = (struct vm_image_measurement){ 0 };
	/* What is measured depends on the loader alone. hpsctl knows how long its own is. */
	if (bytes < loader_bytes + PAGE_SIZE + sizeof(header) ||
	    memcmp(loader, loader_image + IMAGE_HEADER_BYTES, loader_bytes - IMAGE_HEADER_BYTES))
		return fail(error, "the image is of another version of hpsctl"), false;
	at = (const uint8_t *)file + loader_bytes;
	memcpy(&payload, at, sizeof(payload));
	memcpy(&header, at + PAGE_SIZE, sizeof(header));
	memcpy(&table, loader + LOADER_TABLE_OFFSET, sizeof(table));
	unfit = layout_find(&layout, &payload, &header);
	if (!unfit && layout.payload_bytes > bytes - loader_bytes)
		unfit = "the file ends too early: is it truncated?";
	if (!unfit && (payload.flags & PAYLOAD_UNPROTECTED))
		unfit = "the image was made with --unprotected: nobody measures it";
	if (!unfit && layout.end > ram.low_end)
		unfit = "the VM has too little memory for this image: give it more";
	if (unfit)
		return fail(error, unfit), false;
	stream = malloc(PROTECT_STREAM_BYTES);
	if (!stream)
		return fail(error, "out of memory"), false;
	protect_fill(&list, &table, &ram);
	list.shared_bit = machine->shared_bit;
	sha384(stream, protect_stream(&list, loader, stream), measurement->mrtd);
	free(stream);
	for (u64 i = 0, count = layout_ranges(&ram, range); i < count; i++)
		ranges_add(&ranges, range[i].start, range[i].end);
	layout_parameters(&layout, &payload, &header, &ranges, &parameters);
	extend_by(measurement->rtmr[0], &parameters, sizeof(parameters));
	if (machine->acpi)
		extend(measurement->rtmr[0], machine->acpi);
	extend_by(measurement->rtmr[1], at + layout.kernel_offset, payload.kernel_bytes);
	extend_by(measurement->rtmr[2], at + layout.command_line_offset, payload.command_line_bytes);
	extend_by(measurement->rtmr[2], at + layout.initrd_offset, payload.initrd_bytes);
	return true;
}
