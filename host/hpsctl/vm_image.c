// SPDX-License-Identifier: MIT
#define _GNU_SOURCE /* memmem() */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "vm_image.h"

/* In the headers of an image: what depends on the payload. */
#define PE_OFFSET 0x3c
#define PE_SIZE_OF_IMAGE 0x50 /* from the PE header on */
#define PE_PAYLOAD_SECTION (0xb8 + 2 * 40)
#define SECTION_MEMORY_BYTES 8
#define SECTION_FILE_BYTES 16
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
