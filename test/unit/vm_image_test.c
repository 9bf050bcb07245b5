// SPDX-License-Identifier: MIT
/*
 * host/hpsctl/vm_image.c and what of host/loader/ is pure: ranges of memory against a bitmap, SHA-384 of known texts, where a kernel
 * gets what, images with their headers, wrong kernels, PROTECT's list, the measurement and what changes it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "protect.h"
#include "digest.h"
#include "vm_image.h"

#define KERNEL_BYTES 0x5000
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static u8 kernel[KERNEL_BYTES], initrd[0x1234];
static struct vm_image_parts parts;
static char error[200];
static size_t bytes;
static u64 memory_mib;

static struct setup_header *setup(void)
{
	return &((struct boot_params *)kernel)->header;
}

static int set_up(void **state)
{
	(void)state;
	memset(kernel, 0x90, sizeof(kernel));
	*setup() = (struct setup_header){ .setup_sects = 3,
					  .magic = SETUP_MAGIC,
					  .bytes_after_jump = 0x6a,
					  .version = 0x20f,
					  .loadflags = 1,
					  .kernel_alignment = 0x200000,
					  .relocatable_kernel = 1,
					  .xloadflags = XLF_KERNEL_64,
					  .init_size = 3 * MIB + 1,
					  .setup_data = 5,
					  .cmdline_size = 2047 };
	memcpy(kernel + 0x4000, "IntelTDX    ", 12);
	memset(initrd, 7, sizeof(initrd));
	parts = (struct vm_image_parts){ kernel, initrd, sizeof(kernel), sizeof(initrd), "console=ttyS0", false };
	*error = 0;
	return 0;
}

static u8 *make(void)
{
	u8 *image = vm_image_make(&parts, &bytes, &memory_mib, error);

	if (!image)
		fail_msg("%s", error);
	return image;
}

static void test_sha384(void **state)
{
	static const struct {
		const char *text, *digest;
	} known[] = {
		{ "",
		  "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b" },
		{ "abc",
		  "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7" },
		{ "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnop"
		  "qrstnopqrstu",
		  "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039" },
	};
	u8 digest[SHA384_BYTES];
	char hex[2 * SHA384_BYTES + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		sha384(known[i].text, strlen(known[i].text), digest);
		for (int j = 0; j < SHA384_BYTES; j++)
			sprintf(hex + 2 * j, "%02x", digest[j]);
		assert_string_equal(hex, known[i].digest);
	}
}

static void test_ranges(void **state)
{
	(void)state;
	srandom(2);
	for (int round = 0; round < 300; round++) {
		struct ranges set = { 0 };
		bool model[256] = { false };

		for (int step = 0; step < 60; step++) {
			u64 start = random() % 256, end = start + random() % 24;
			bool adds = random() % 2;

			end = end < 256 ? end : 256;
			if (!(adds ? ranges_add : ranges_remove)(&set, start, end))
				continue;
			for (u64 i = start; i < end; i++)
				model[i] = adds;
			for (u64 i = 0; i < 256; i++)
				assert_int_equal(ranges_contain(&set, i, i + 1), model[i]);
			for (u64 i = 0; i < set.count; i++) {
				assert_true(set.range[i].start < set.range[i].end);
				assert_true(!i || set.range[i - 1].end < set.range[i].start);
				assert_true(ranges_contain(&set, set.range[i].start, set.range[i].end));
				assert_false(ranges_contain(&set, set.range[i].start, set.range[i].end + 1));
			}
		}
	}
}

static void test_ranges_full(void **state)
{
	struct ranges set = { 0 }, before;

	(void)state;
	for (u64 i = 0; i < RANGES; i++)
		assert_true(ranges_add(&set, 10 * i, 10 * i + 5));
	before = set;
	assert_false(ranges_add(&set, 10 * RANGES, 10 * RANGES + 5));
	assert_false(ranges_remove(&set, 2, 3));
	assert_memory_equal(&set, &before, sizeof(set));
	assert_true(ranges_add(&set, 5, 10));
	assert_int_equal(set.count, RANGES - 1);
}

static void test_highest(void **state)
{
	struct ranges set = { 0 };

	(void)state;
	ranges_add(&set, 0x1000, 0x9000);
	ranges_add(&set, 0x20001, 0x24fff);
	assert_int_equal(ranges_highest(&set, 0x1000, ~0ULL), 0x23000);
	assert_int_equal(ranges_highest(&set, 0x1001, ~0ULL), 0x22000);
	assert_int_equal(ranges_highest(&set, 0x3000, ~0ULL), 0x21000);
	assert_int_equal(ranges_highest(&set, 0x3001, ~0ULL), 0x5000);
	assert_int_equal(ranges_highest(&set, 0x8001, ~0ULL), 0);
	assert_int_equal(ranges_highest(&set, 0x1000, 0x22000), 0x21000);
	assert_int_equal(ranges_highest(&set, 0x1000, 0x1000), 0);
}

static void test_layout(void **state)
{
	struct payload payload = { PAYLOAD_MAGIC, 0, KERNEL_BYTES, sizeof(initrd), 10 };
	struct boot_params parameters;
	struct ranges ram = { 0 };
	struct layout layout;

	(void)state;
	assert_null(layout_find(&layout, &payload, (void *)kernel));
	assert_int_equal(layout.file + 4 * SETUP_SECTOR, KERNEL_ADDRESS);
	assert_int_equal(layout.entry, KERNEL_ADDRESS + 0x200);
	assert_int_equal(layout.initrd, KERNEL_ADDRESS + 3 * MIB + 0x1000);
	assert_int_equal(layout.end, layout.initrd + 0x2000);
	assert_true(layout.acpi + ACPI_BYTES <= layout.command_line &&
		    layout.command_line + 0x1000 <= layout.parameters && layout.parameters + 0x1000 <= layout.file);
	ranges_add(&ram, 0, 0xa0000);
	ranges_add(&ram, MIB, 64 * MIB);
	layout_parameters(&layout, &payload, (void *)kernel, &ram, &parameters);
	assert_int_equal(parameters.header.cmd_line_ptr, layout.command_line);
	assert_int_equal(parameters.header.ramdisk_image, layout.initrd);
	assert_int_equal(parameters.header.ramdisk_size, sizeof(initrd));
	assert_int_equal(parameters.header.setup_data, 0);
	assert_int_equal(parameters.header.magic, SETUP_MAGIC);
	/* The header ends where its own second byte says; nothing of the kernel's code is taken for more. */
	setup()->bytes_after_jump = 0x10;
	layout_parameters(&layout, &payload, (void *)kernel, &ram, &parameters);
	assert_int_equal(parameters.header.cmdline_size, 0);
	setup()->bytes_after_jump = 0xff;
	layout_parameters(&layout, &payload, (void *)kernel, &ram, &parameters);
	assert_int_equal(parameters.unused5[0], 0);
	assert_int_equal(parameters.acpi_rsdp_addr, layout.acpi);
	assert_int_equal(parameters.e820_entries, 6);
	for (u64 i = 0; i < parameters.e820_entries; i++) {
		const struct e820_entry *entry = &parameters.e820[i];

		assert_true(entry->type == E820_RAM || entry->address == layout.acpi || entry->address == STUB_ADDRESS);
		for (u64 j = 0; j < i; j++)
			assert_true(parameters.e820[j].address + parameters.e820[j].bytes <= entry->address ||
				    entry->address + entry->bytes <= parameters.e820[j].address);
	}
}

static void refused(const char *why)
{
	u8 *image = vm_image_make(&parts, &bytes, &memory_mib, error);

	free(image);
	assert_null(image);
	assert_non_null(strstr(error, why));
}

static void test_refused(void **state)
{
	static char line[COMMAND_LINE_BYTES + 1];

	setup()->magic++;
	refused("no bzImage");
	set_up(state);
	parts.kernel_bytes = 4 * SETUP_SECTOR + 4095;
	refused("no bzImage");
	parts.kernel_bytes = 10;
	refused("no bzImage");
	set_up(state);
	setup()->version = 0x20b;
	refused("64-bit");
	set_up(state);
	setup()->xloadflags = 0;
	refused("64-bit");
	set_up(state);
	setup()->relocatable_kernel = 0;
	refused("64-bit");
	set_up(state);
	setup()->kernel_alignment = 0x2000000;
	refused("64-bit");
	set_up(state);
	setup()->init_size = ~0U;
	refused("too large");
	set_up(state);
	kernel[0x4000] = 'i';
	refused("CONFIG_INTEL_TDX_GUEST");
	parts.is_unprotected = true;
	free(make());
	memset(line, 'x', COMMAND_LINE_BYTES - 1);
	parts.command_line = line;
	free(make());
	line[COMMAND_LINE_BYTES - 1] = 'x';
	refused("command line");
}

static u32 u32_at(const u8 *at)
{
	u32 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* What QEMU's -kernel and a UEFI firmware look at. */
static void test_headers(void **state)
{
	u8 *image = make(), *pe = image + u32_at(image + 0x3c), *section;
	const struct setup_header *header = &((struct boot_params *)image)->header;
	u32 end = 4096;

	(void)state;
	assert_true(vm_image_is(image, bytes));
	assert_false(vm_image_is(image, 4095));
	assert_false(vm_image_is(kernel, sizeof(kernel)));
	assert_int_equal(bytes % 4096, 0);
	assert_int_equal(header->magic, SETUP_MAGIC);
	assert_int_equal((header->setup_sects + 1) * SETUP_SECTOR, 4096);
	assert_int_equal(header->loadflags & 1, 1);
	assert_int_equal(header->init_size, bytes - 4096);
	assert_int_equal(header->syssize * 16ULL, bytes - 4096);
	/* The jump leads behind the header, to code. */
	assert_int_equal(image[0x200], 0xeb);
	assert_int_equal(image[0x202 + image[0x201]], 0xe9);
	assert_memory_equal(image, "MZ", 2);
	assert_memory_equal(pe, "PE\0\0", 4);
	assert_int_equal(u32_at(pe + 0x50), bytes);
	for (section = pe + 0xb8; section < pe + 0xb8 + 3 * 40; section += 40) {
		u32 rights = u32_at(section + 36);

		/* In the file each byte lies where it lies in memory. */
		assert_int_equal(u32_at(section + 12), end);
		assert_int_equal(u32_at(section + 20), end);
		assert_int_equal(u32_at(section + 8), u32_at(section + 16));
		assert_int_equal(end % 4096, 0);
		assert_true((rights & 0xa0000000) != 0xa0000000);
		end += u32_at(section + 8);
	}
	assert_int_equal(end, bytes);
	assert_in_range(u32_at(pe + 40), 4096, 8191);
	free(image);
}

static void test_list(void **state)
{
	struct loader_table table = { 0x10330, 0x11000, 0x16000 };
	struct ram ram = { 2 * GIB, 6 * GIB };
	struct protect_list list;

	(void)state;
	protect_fill(&list, &table, &ram);
	assert_int_equal(list.version, 1);
	assert_int_equal(list.ranges, 4);
	assert_int_equal(list.run[0].gpa, LOADER_ADDRESS);
	assert_int_equal(list.run[0].pages, 6);
	assert_int_equal(list.forbidden[0], 0xffffffff);
	assert_int_equal(list.forbidden[2], 1);
	for (u64 i = 0; i < list.ranges; i++) {
		u64 end = list.range[i].gpa + list.range[i].pages * 4096;

		assert_false(list.stub >= list.range[i].gpa && list.stub < end);
		assert_true(end <= 0xa0000 || list.range[i].gpa >= MIB);
		assert_true(!i || list.range[i - 1].gpa + list.range[i - 1].pages * 4096 <= list.range[i].gpa);
	}
	assert_int_equal(list.range[3].gpa + list.range[3].pages * 4096, 6 * GIB);
	ram.high_end = 4 * GIB;
	protect_fill(&list, &table, &ram);
	assert_int_equal(list.ranges, 3);
}

static void test_low_memory(void **state)
{
	(void)state;
	assert_int_equal(vm_image_low_memory("q35", 2 * GIB), 2 * GIB);
	assert_int_equal(vm_image_low_memory("q35", 0xb0000000), 2 * GIB);
	assert_int_equal(vm_image_low_memory("pc", 0xb0000000), 0xb0000000);
	assert_int_equal(vm_image_low_memory("pc", 8 * GIB), 3 * GIB);
	assert_int_equal(vm_image_low_memory("microvm", GIB), 0);
}

static struct vm_image_machine machine = { .memory = GIB, .low_memory = GIB, .shared_bit = 39 };

static struct vm_image_measurement measured(u8 *image)
{
	struct vm_image_measurement measurement;

	if (!vm_image_measure(image, bytes, &machine, &measurement, error))
		fail_msg("%s", error);
	return measurement;
}

#define DIFFER(a, b, what) assert_memory_not_equal((a).what, (b).what, VM_IMAGE_DIGEST)
#define AGREE(a, b, what) assert_memory_equal((a).what, (b).what, VM_IMAGE_DIGEST)

static void test_measure(void **state)
{
	u8 *image = make(), both[96] = { 0 }, digest[48];
	struct vm_image_measurement first = measured(image), other;
	static const u8 acpi[48] = { 1 };

	/* RTMR1 by hand. */
	sha384(kernel, sizeof(kernel), both + 48);
	sha384(both, sizeof(both), digest);
	assert_memory_equal(first.rtmr[1], digest, sizeof(digest));
	machine.shared_bit = 38;
	other = measured(image);
	DIFFER(first, other, mrtd);
	AGREE(first, other, rtmr[0]);
	machine.shared_bit = 39;
	machine.memory = machine.low_memory = GIB + MIB;
	other = measured(image);
	DIFFER(first, other, mrtd);
	DIFFER(first, other, rtmr[0]);
	AGREE(first, other, rtmr[1]);
	machine.memory = machine.low_memory = GIB;
	machine.acpi = acpi;
	other = measured(image);
	DIFFER(first, other, rtmr[0]);
	AGREE(first, other, mrtd);
	machine.acpi = NULL;
	free(image);
	parts.command_line = "console=ttyS1";
	image = make();
	other = measured(image);
	DIFFER(first, other, rtmr[2]);
	AGREE(first, other, rtmr[1]);
	AGREE(first, other, rtmr[0]);
	AGREE(first, other, mrtd);
	free(image);
	set_up(state);
	kernel[KERNEL_BYTES - 1] ^= 1;
	image = make();
	other = measured(image);
	DIFFER(first, other, rtmr[1]);
	AGREE(first, other, rtmr[2]);
	free(image);
	set_up(state);
	initrd[0] ^= 1;
	image = make();
	other = measured(image);
	DIFFER(first, other, rtmr[2]);
	AGREE(first, other, rtmr[1]);
	free(image);
}

static void not_measured(u8 *image, const char *why)
{
	struct vm_image_measurement measurement;

	assert_false(vm_image_measure(image, bytes, &machine, &measurement, error));
	assert_non_null(strstr(error, why));
}

static void test_not_measured(void **state)
{
	u8 *image = make();

	(void)state;
	image[0x1000] ^= 1;
	not_measured(image, "another version");
	image[0x1000] ^= 1;
	bytes -= 4096;
	not_measured(image, "truncated");
	bytes = 4096;
	not_measured(image, "another version");
	free(image);
	image = make();
	machine.memory = machine.low_memory = 16 * MIB;
	not_measured(image, "too little memory");
	machine.memory = machine.low_memory = GIB;
	free(image);
	parts.is_unprotected = true;
	image = make();
	not_measured(image, "--unprotected");
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha384),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_ranges_full),
		cmocka_unit_test(test_highest),
		cmocka_unit_test_setup(test_layout, set_up),
		cmocka_unit_test_setup(test_refused, set_up),
		cmocka_unit_test_setup(test_headers, set_up),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_low_memory),
		cmocka_unit_test_setup(test_measure, set_up),
		cmocka_unit_test_setup(test_not_measured, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
