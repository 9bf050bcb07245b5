// SPDX-License-Identifier: MIT
/* host/hpsctl/image.c, host/hpsctl/measure.c: images of every kind, wrong and mangled ones, and a measurement by hand. */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "image.h"
#include "sha256.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define ELF_BYTES 0x3000
#define CODE 0x1000 /* file offset of the first segment's content */

static char error[200];
static struct image image;

/* Two segments: [1 MiB + 0x10, + 0x1800), of which 0x1000 in the file, and [1 MiB + 0x1810, + 0x100) behind it. */
static struct {
	Elf64_Ehdr header;
	Elf64_Phdr segment[2];
	uint32_t multiboot[3];
	uint8_t rest[ELF_BYTES - sizeof(Elf64_Ehdr) - 2 * sizeof(Elf64_Phdr) - 12];
} large;

static struct {
	Elf32_Ehdr header;
	Elf32_Phdr segment[2];
	uint32_t multiboot[3];
	uint8_t rest[ELF_BYTES - sizeof(Elf32_Ehdr) - 2 * sizeof(Elf32_Phdr) - 12];
} small;

static void set_multiboot(uint32_t word[3], uint32_t flags)
{
	word[0] = 0x1badb002;
	word[1] = flags;
	word[2] = -(word[0] + word[1]);
}

static int set_up(void **state)
{
	(void)state;
	memset(&large, 0xab, sizeof(large));
	large.header = (Elf64_Ehdr){ .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
				     .e_type = ET_EXEC,
				     .e_machine = EM_X86_64,
				     .e_entry = 0xffffffff80000100,
				     .e_phoff = offsetof(typeof(large), segment),
				     .e_phentsize = sizeof(Elf64_Phdr),
				     .e_phnum = 2 };
	large.segment[0] = (Elf64_Phdr){ PT_LOAD, 7, CODE, 0xffffffff80000010, MIB + 0x10, 0x1000, 0x1800, 0 };
	large.segment[1] = (Elf64_Phdr){ PT_LOAD, 7, 0x2000, 0xffffffff80001810, MIB + 0x1810, 0x100, 0x100, 0 };
	memset(&small, 0xcd, sizeof(small));
	small.header = (Elf32_Ehdr){ .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1 },
				     .e_type = ET_EXEC,
				     .e_machine = EM_386,
				     .e_entry = MIB + 0x20,
				     .e_phoff = offsetof(typeof(small), segment),
				     .e_phentsize = sizeof(Elf32_Phdr),
				     .e_phnum = 2 };
	small.segment[0] = (Elf32_Phdr){ PT_LOAD, CODE, MIB + 0x10, MIB + 0x10, 0x1000, 0x1800, 7, 0 };
	small.segment[1] = (Elf32_Phdr){ PT_LOAD, 0x2000, MIB + 0x1810, MIB + 0x1810, 0x100, 0x100, 7, 0 };
	set_multiboot(small.multiboot, 3);
	return 0;
}

static bool load(const void *file, size_t size, uint64_t memory, const char *arguments)
{
	memset(error, 0, sizeof(error));
	return image_load(&image, file, size, memory, arguments, error);
}

static uint8_t *at(uint64_t gpa)
{
	for (size_t i = 0; i < image.pages; i++)
		if (image.gpa[i] == (gpa & ~0xfffULL))
			return image.data + i * IMAGE_PAGE + gpa % IMAGE_PAGE;
	fail_msg("no page for %llx", (unsigned long long)gpa);
	return NULL;
}

static uint64_t read64(uint64_t gpa)
{
	uint64_t value;

	memcpy(&value, at(gpa), sizeof(value));
	return value;
}

static uint32_t read32(uint64_t gpa)
{
	uint32_t value;

	memcpy(&value, at(gpa), sizeof(value));
	return value;
}

/* What holds of every image that loads. */
static void assert_sound(uint64_t memory)
{
	assert_true(image.pages > 0 && image.start.argument % IMAGE_PAGE == 0 && image.start.argument < memory);
	for (size_t i = 0; i < image.pages; i++) {
		assert_true(image.gpa[i] % IMAGE_PAGE == 0 && image.gpa[i] < memory);
		assert_true(!i || image.gpa[i] > image.gpa[i - 1]);
	}
	assert_true(image.start.mode < HYPERPS_VCPU_MODES && image.start.entry < memory);
	assert_true(image.start.mode == HYPERPS_VCPU_LONG || !image.start.cr3);
	at(image.start.argument);
}

static void assert_refused(const void *file, size_t size, uint64_t memory, const char *part)
{
	assert_false(load(file, size, memory, ""));
	if (!strstr(error, part))
		fail_msg("\"%s\" is not in: %s", part, error);
	image_free(&image);
}

/* By the tables at cr3. */
static uint64_t translate(uint64_t linear)
{
	uint64_t entry = image.start.cr3;

	for (int shift = 39; shift >= 21; shift -= 9) {
		entry = read64((entry & ~0xfffULL) + (linear >> shift & 511) * 8);
		if (!(entry & 1))
			return UINT64_MAX;
		assert_int_equal(!!(entry & 0x80), shift == 21);
	}
	return (entry & ~0x1fffffULL) | (linear & 0x1fffff);
}

static void elf_in_long_mode(void **state)
{
	const uint64_t sizes[] = { 2 * MIB, 64 * MIB + 4096, GIB, 3 * GIB - 4096, 600 * GIB };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_true(load(&large, sizeof(large), sizes[i], "one two"));
		assert_sound(sizes[i]);
		assert_int_equal(image.start.mode, HYPERPS_VCPU_LONG);
		assert_int_equal(image.start.entry, MIB + 0x100);
		assert_string_equal((char *)at(image.start.argument), "one two");
		assert_int_equal(*at(MIB + 0xf), 0);
		assert_int_equal(*at(MIB + 0x10), 0xab);
		assert_int_equal(*at(MIB + 0x100f), 0xab);
		assert_int_equal(*at(MIB + 0x1010), 0);
		assert_int_equal(*at(MIB + 0x180f), 0);
		assert_int_equal(*at(MIB + 0x1810), 0xab);
		assert_int_equal(translate(0), 0);
		assert_int_equal(translate(MIB + 0x100), MIB + 0x100);
		assert_int_equal(translate(sizes[i] - 1), sizes[i] - 1);
		assert_int_equal(translate((sizes[i] + 2 * MIB) & ~(2 * MIB - 1)), UINT64_MAX);
		image_free(&image);
	}
	/* Only the pages with content: the segments', the command line, the tables. */
	assert_true(load(&large, sizeof(large), GIB, ""));
	assert_int_equal(image.pages, 2 + 1 + 3);
	image_free(&image);
}

static void free_pages_avoid_segments(void **state)
{
	(void)state;
	large.segment[0].p_paddr = 0x8ff0;
	large.segment[1].p_paddr = 0xb010;
	assert_true(load(&large, sizeof(large), MIB, ""));
	assert_sound(MIB);
	assert_int_equal(image.start.argument, 0xc000);
	assert_int_equal(image.start.cr3, 0xd000);
	image_free(&image);
	large.segment[1].p_paddr = 0xb010 - 0x1000;
	large.segment[0].p_memsz = 0x1000;
	assert_true(load(&large, sizeof(large), MIB, ""));
	assert_int_equal(image.start.argument, 0xb000);
	image_free(&image);
	large.segment[0].p_memsz = large.segment[0].p_filesz = 0x1000;
	large.segment[0].p_paddr = 0x9000;
	large.segment[1].p_paddr = 0xb000;
	assert_refused(&large, sizeof(large), 0xd000, "no room");
	assert_true(load(&large, sizeof(large), 0xf000, ""));
	assert_int_equal(image.start.argument, 0xa000);
	assert_int_equal(image.start.cr3, 0xc000);
	image_free(&image);
}

static void elf_with_multiboot_header(void **state)
{
	uint32_t information;

	(void)state;
	assert_true(load(&small, sizeof(small), 16 * MIB, "a=1 b"));
	assert_sound(16 * MIB);
	assert_int_equal(image.start.mode, HYPERPS_VCPU_PROTECTED);
	assert_int_equal(image.start.entry, MIB + 0x20);
	assert_int_equal(*at(MIB + 0x10), 0xcd);
	information = image.start.argument;
	assert_int_equal(read32(information), 1 << 0 | 1 << 2 | 1 << 6);
	assert_int_equal(read32(information + 4), 640);
	assert_int_equal(read32(information + 8), 15 << 10);
	assert_string_equal((char *)at(read32(information + 16)), "guest a=1 b");
	assert_int_equal(read32(information + 44), 24);
	assert_int_equal(read32(read32(information + 48)), 20);
	assert_int_equal(read64(read32(information + 48) + 4), 0);
	assert_int_equal(read64(read32(information + 48) + 12), 16 * MIB);
	assert_int_equal(read32(read32(information + 48) + 20), 1);
	image_free(&image);
	/* A 64-bit file with that header starts in 32-bit mode, too. */
	set_multiboot(large.multiboot, 0);
	assert_true(load(&large, sizeof(large), 16 * MIB, ""));
	assert_int_equal(image.start.mode, HYPERPS_VCPU_PROTECTED);
	assert_int_equal(image.start.entry, MIB + 0x100);
	assert_string_equal((char *)at(read32(image.start.argument + 16)), "guest");
	image_free(&image);
	set_multiboot(small.multiboot, 1 << 2);
	assert_refused(&small, sizeof(small), 16 * MIB, "flags 0x4");
	small.multiboot[2]++;
	assert_refused(&small, sizeof(small), 16 * MIB, "without a multiboot header");
	large.segment[0].p_paddr = 5 * GIB;
	assert_refused(&large, sizeof(large), 6 * GIB, "32-bit mode");
}

/* What QEMU runs, too: a kernel that is linked high, whose entry is a physical address. */
static void physical_entry(void **state)
{
	(void)state;
	small.segment[0].p_vaddr += 0xc0000000;
	small.segment[1].p_vaddr += 0xc0000000;
	assert_true(load(&small, sizeof(small), 16 * MIB, ""));
	assert_sound(16 * MIB);
	assert_int_equal(image.start.entry, MIB + 0x20);
	image_free(&image);
	large.header.e_entry = MIB + 0x1810;
	assert_true(load(&large, sizeof(large), 16 * MIB, ""));
	assert_int_equal(image.start.mode, HYPERPS_VCPU_LONG);
	assert_int_equal(image.start.entry, MIB + 0x1810);
	image_free(&image);
	/* Linux's per-CPU data are linked at 0: where nothing is code, no entry is a virtual address. */
	large.segment[0].p_vaddr = 0;
	large.segment[0].p_memsz = large.segment[0].p_filesz = 0x100;
	large.segment[0].p_flags = PF_R | PF_W;
	large.segment[0].p_paddr = 4 * MIB;
	large.segment[1].p_paddr = 0;
	large.header.e_entry = 0x20;
	assert_true(load(&large, sizeof(large), 16 * MIB, ""));
	assert_int_equal(image.start.entry, 0x20);
	image_free(&image);
	large.header.e_entry = MIB - 1;
	assert_refused(&large, sizeof(large), 16 * MIB, "entry");
}

static void flat(void **state)
{
	uint8_t code[5000];

	(void)state;
	memset(code, 0xf4, sizeof(code));
	assert_true(load(code, sizeof(code), 64 << 10, "x"));
	assert_sound(64 << 10);
	assert_int_equal(image.start.mode, HYPERPS_VCPU_REAL);
	assert_int_equal(image.start.entry, 0x7c00);
	assert_int_equal(image.start.argument, 0x1000);
	assert_int_equal(image.pages, 3);
	assert_int_equal(*at(0x7bff), 0);
	assert_int_equal(*at(0x7c00), 0xf4);
	assert_int_equal(*at(0x7c00 + 4999), 0xf4);
	assert_int_equal(*at(0x7c00 + 5000), 0);
	image_free(&image);
	assert_true(load(code, 1, 64 << 10, ""));
	image_free(&image);
	assert_refused(code, 0, 64 << 10, "empty");
	assert_refused(code, sizeof(code), 0x8000, "does not fit");
	set_multiboot((uint32_t *)code, 1 << 16);
	assert_refused(code, sizeof(code), 64 << 10, "no ELF file");
}

static void wrong_files(void **state)
{
	char arguments[5000] = { 0 };

	(void)state;
	assert_refused(&large, sizeof(large), MIB, "does not fit");
	assert_refused(&large, sizeof(large), MIB + 0x1000, "does not fit");
	assert_refused(&large, CODE + 0x800, 16 * MIB, "truncated");
	assert_refused(&large, sizeof(Elf64_Ehdr), 16 * MIB, "truncated");
	assert_refused(&large, 20, 16 * MIB, "truncated");
	assert_refused(&large, 4, 16 * MIB, "truncated");
	memset(arguments, 'a', sizeof(arguments) - 1);
	assert_false(load(&large, sizeof(large), 16 * MIB, arguments));
	assert_non_null(strstr(error, "longer"));
	large.segment[1].p_paddr--;
	assert_refused(&large, sizeof(large), 16 * MIB, "overlap");
	set_up(state);
	large.segment[0].p_memsz = 0xfff;
	assert_refused(&large, sizeof(large), 16 * MIB, "larger in the file");
	set_up(state);
	large.segment[1].p_memsz = UINT64_MAX;
	assert_refused(&large, sizeof(large), 16 * MIB, "does not fit");
	large.segment[1].p_paddr = UINT64_MAX;
	assert_refused(&large, sizeof(large), 16 * MIB, "does not fit");
	set_up(state);
	large.segment[0].p_offset = UINT64_MAX;
	assert_refused(&large, sizeof(large), 16 * MIB, "truncated");
	set_up(state);
	large.header.e_entry = 0xffffffff80000000;
	assert_refused(&large, sizeof(large), 16 * MIB, "entry");
	large.header.e_entry = 0xffffffff80001910;
	assert_refused(&large, sizeof(large), 16 * MIB, "entry");
	set_up(state);
	large.segment[1].p_type = PT_INTERP;
	assert_refused(&large, sizeof(large), 16 * MIB, "operating system");
	set_up(state);
	large.header.e_type = ET_DYN;
	assert_refused(&large, sizeof(large), 16 * MIB, "-no-pie");
	set_up(state);
	large.header.e_machine = EM_AARCH64;
	assert_refused(&large, sizeof(large), 16 * MIB, "another machine");
	set_up(state);
	large.header.e_phoff = UINT64_MAX - 8;
	assert_refused(&large, sizeof(large), 16 * MIB, "truncated");
	large.header.e_phentsize = 8;
	assert_refused(&large, sizeof(large), 16 * MIB, "program headers");
	set_up(state);
	large.header.e_phnum = 0;
	assert_refused(&large, sizeof(large), 16 * MIB, "program headers");
	set_up(state);
	large.header.e_ident[EI_CLASS] = 7;
	assert_refused(&large, sizeof(large), 16 * MIB, "class");
	large.header.e_ident[EI_DATA] = ELFDATA2MSB;
	assert_refused(&large, sizeof(large), 16 * MIB, "endian");
}

static void too_many_segments(void **state)
{
	static struct {
		Elf64_Ehdr header;
		Elf64_Phdr segment[66];
	} many;

	(void)state;
	many.header = large.header;
	many.header.e_entry = 0;
	for (int i = 0; i < 66; i++)
		many.segment[i] = (Elf64_Phdr){ PT_LOAD, 7, 0, i, MIB + i, 1, 1, 0 };
	many.header.e_phnum = 64;
	assert_true(load(&many, sizeof(many), 16 * MIB, ""));
	assert_sound(16 * MIB);
	image_free(&image);
	many.header.e_phnum = 65;
	assert_refused(&many, sizeof(many), 16 * MIB, "segments");
}

/* Whatever the bytes are: a sound image or a reason. Run under ASan. */
static void mangled_files(void **state)
{
	uint32_t random = 1;
	int loaded = 0;

	for (int round = 0; round < 20000; round++) {
		bool is_large = round & 1;
		uint8_t *file = is_large ? (void *)&large : (void *)&small;
		size_t size = ELF_BYTES;

		set_up(state);
		for (int i = 0; i < 1 + round % 3; i++) {
			random = random * 1664525 + 1013904223;
			file[(random >> 8) % 200] = (random >> 3 & 1) ? random >> 24 : 0xff * (random >> 4 & 1);
		}
		if (round % 5 == 0)
			size = (random >> 7) % ELF_BYTES;
		file = memcpy(malloc(size ? size : 1), file, size);
		if (load(file, size, 16 * MIB, "x")) {
			assert_sound(16 * MIB);
			loaded++;
		} else {
			assert_true(*error);
		}
		image_free(&image);
		free(file);
	}
	assert_true(loaded > 100);
}

static void measurement(void **state)
{
	struct guest guest = { .range = { { 0, 16 * MIB, 7 }, { 0xfee00000, 4096, 8 } }, .ranges = 2, .vcpus = 3 };
	uint8_t expected[32], got[32];
	struct sha256 s;
	const uint64_t ranges[] = { 0, 16 * MIB, 7, 0xfee00000, 4096, 8 }, counts[] = { 2, 3 };

	(void)state;
	assert_true(load(&large, sizeof(large), 16 * MIB, "x"));
	guest.image = image;
	sha256_init(&s);
	for (size_t i = 0; i < image.pages; i++) {
		sha256_update(&s, &image.gpa[i], 8);
		sha256_update(&s, image.data + i * 4096, 4096);
	}
	sha256_update(&s, ranges, sizeof(ranges));
	for (int i = 0; i < 3; i++) {
		const uint64_t start[] = { image.start.argument | HYPERPS_VCPU_LONG, MIB + 0x100, image.start.cr3 };

		sha256_update(&s, start, sizeof(start));
	}
	sha256_update(&s, counts, sizeof(counts));
	sha256_final(&s, expected);
	guest_measure(&guest, got);
	assert_memory_equal(got, expected, 32);
	guest.image.data[5]++;
	guest_measure(&guest, got);
	assert_memory_not_equal(got, expected, 32);
	image_free(&guest.image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(elf_in_long_mode, set_up),
		cmocka_unit_test_setup(free_pages_avoid_segments, set_up),
		cmocka_unit_test_setup(elf_with_multiboot_header, set_up),
		cmocka_unit_test_setup(physical_entry, set_up),
		cmocka_unit_test_setup(flat, set_up),
		cmocka_unit_test_setup(wrong_files, set_up),
		cmocka_unit_test_setup(too_many_segments, set_up),
		cmocka_unit_test_setup(mangled_files, set_up),
		cmocka_unit_test_setup(measurement, set_up),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
