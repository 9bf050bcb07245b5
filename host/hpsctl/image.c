// SPDX-License-Identifier: MIT
#include <elf.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define PIECES 64
#define FLAT_ADDRESS 0x7c00
#define FREE_FLAT 0x1000 /* where the search for free pages begins */
#define FREE_ELF 0x9000
#define LIMIT_32BIT (1ULL << 32)

#define MULTIBOOT_MAGIC 0x1badb002u
#define MULTIBOOT_SEARCH 8192
#define MULTIBOOT_UNKNOWN 0xfffcu /* what a loader must know and this one does not: video modes */
#define MULTIBOOT_MEMORY (1u << 0)
#define MULTIBOOT_COMMAND_LINE (1u << 2)
#define MULTIBOOT_MAP (1u << 6)
#define MULTIBOOT_MAP_OFFSET 128 /* in the page with the multiboot information */
#define MULTIBOOT_LINE_OFFSET 256

#define TABLE_ENTRIES 512
#define TABLE_ENTRY 0x3 /* present, writable */
#define TABLE_LARGE 0x83
#define SIZE_2M (1ULL << 21)
#define SIZE_1G (1ULL << 30)

struct file {
	const uint8_t *data;
	size_t size;
	uint64_t memory;
	char *error;
};

/* Memory that is spoken for; of its size, `filled` bytes have content: data, or what is written there later (NULL). */
struct piece {
	uint64_t gpa, size, filled;
	const uint8_t *data;
};

struct layout {
	struct piece piece[PIECES + 2]; /* segments, and what add_free() adds */
	size_t count;
};

/* An ELF program header of either class. */
struct segment {
	uint32_t type, flags;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

struct elf {
	bool is_64bit;
	uint64_t entry, headers, header_size, header_count;
};

struct multiboot_information {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods[2], syms[4], mmap_length, mmap_addr;
};

struct multiboot_map {
	uint32_t size;
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

__attribute__((format(printf, 2, 3))) static bool fail(const struct file *file, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(file->error, 200, format, arguments);
	va_end(arguments);
	return false;
}

static bool is_in_file(const struct file *file, uint64_t offset, uint64_t bytes)
{
	return offset <= file->size && bytes <= file->size - offset;
}

static bool overlaps(const struct piece *piece, uint64_t gpa, uint64_t size)
{
	return gpa < piece->gpa + piece->size && piece->gpa < gpa + size;
}

static bool add_segment(const struct file *file, struct layout *layout, const struct segment *segment)
{
	struct piece *piece = &layout->piece[layout->count];

	if (segment->filesz > segment->memsz)
		return fail(file, "the segment at 0x%" PRIx64 " is larger in the file than in memory", segment->paddr);
	if (!is_in_file(file, segment->offset, segment->filesz))
		return fail(file, "the file ends before the segment at 0x%" PRIx64 " does: is it truncated?",
			    segment->paddr);
	if (!segment->memsz)
		return true;
	if (segment->paddr >= file->memory || segment->memsz > file->memory - segment->paddr)
		return fail(file,
			    "the segment at 0x%" PRIx64 " of 0x%" PRIx64
			    " bytes does not fit into the RAM, which ends at 0x%" PRIx64 ": give more --memory",
			    segment->paddr, segment->memsz, file->memory);
	for (size_t i = 0; i < layout->count; i++)
		if (overlaps(&layout->piece[i], segment->paddr, segment->memsz))
			return fail(file, "the segments at 0x%" PRIx64 " and 0x%" PRIx64 " overlap",
				    layout->piece[i].gpa, segment->paddr);
	if (layout->count == PIECES)
		return fail(file, "it has more than %d segments", PIECES);
	*piece = (struct piece){ segment->paddr, segment->memsz, segment->filesz, file->data + segment->offset };
	layout->count++;
	return true;
}

/* Finds free pages; they will have content. */
static bool add_free(const struct file *file, struct layout *layout, uint64_t first, uint64_t size, uint64_t *gpa)
{
	*gpa = first;
	for (size_t i = 0; i < layout->count; i++) {
		const struct piece *piece = &layout->piece[i];

		if (!overlaps(piece, *gpa, size))
			continue;
		*gpa = (piece->gpa + piece->size + IMAGE_PAGE - 1) & ~(IMAGE_PAGE - 1);
		i = -1;
	}
	if (*gpa >= file->memory || size > file->memory - *gpa)
		return fail(file, "beside it there is no room in the RAM for 0x%" PRIx64 " bytes: give more --memory",
			    size);
	layout->piece[layout->count++] = (struct piece){ *gpa, size, size, NULL };
	return true;
}

static bool read_elf(const struct file *file, struct elf *elf)
{
	Elf32_Ehdr small;
	Elf64_Ehdr large;
	uint32_t type, machine;
	size_t expected;

	if (file->size < EI_NIDENT || file->data[EI_DATA] != ELFDATA2LSB)
		return fail(file, "it is an ELF file, but truncated or not little-endian");
	elf->is_64bit = file->data[EI_CLASS] == ELFCLASS64;
	if (!elf->is_64bit && file->data[EI_CLASS] != ELFCLASS32)
		return fail(file, "it is an ELF file of an unknown class");
	if (!is_in_file(file, 0, elf->is_64bit ? sizeof(large) : sizeof(small)))
		return fail(file, "the file ends in the ELF header: is it truncated?");
	if (elf->is_64bit) {
		memcpy(&large, file->data, sizeof(large));
		type = large.e_type;
		machine = large.e_machine;
		*elf = (struct elf){ true, large.e_entry, large.e_phoff, large.e_phentsize, large.e_phnum };
		expected = sizeof(Elf64_Phdr);
	} else {
		memcpy(&small, file->data, sizeof(small));
		type = small.e_type;
		machine = small.e_machine;
		*elf = (struct elf){ false, small.e_entry, small.e_phoff, small.e_phentsize, small.e_phnum };
		expected = sizeof(Elf32_Phdr);
	}
	if (machine != EM_X86_64 && machine != EM_386)
		return fail(file, "it is an ELF file for another machine than x86");
	if (type != ET_EXEC)
		return fail(file,
			    "it is an ELF file, but no executable with fixed addresses: link it with -static -no-pie");
	if (elf->header_size != expected || !elf->header_count)
		return fail(file, "it is an ELF file without program headers");
	if (!is_in_file(file, elf->headers, elf->header_count * expected))
		return fail(file, "the file ends in the ELF program headers: is it truncated?");
	return true;
}

static struct segment read_segment(const struct file *file, const struct elf *elf, uint64_t i)
{
	const uint8_t *at = file->data + elf->headers + i * elf->header_size;
	Elf32_Phdr small;
	Elf64_Phdr large;

	if (elf->is_64bit) {
		memcpy(&large, at, sizeof(large));
		return (struct segment){ large.p_type,  large.p_flags,  large.p_offset, large.p_vaddr,
					 large.p_paddr, large.p_filesz, large.p_memsz };
	}
	memcpy(&small, at, sizeof(small));
	return (struct segment){ small.p_type,  small.p_flags,  small.p_offset, small.p_vaddr,
				 small.p_paddr, small.p_filesz, small.p_memsz };
}

/*
 * The segments of an ELF file, and its entry as a physical address. What the file says is the virtual address of code, or,
 * as QEMU has it, too, a physical one: of kernels that are linked high and start before they page.
 */
static bool lay_out_elf(const struct file *file, struct layout *layout, struct elf *elf, uint64_t *entry)
{
	bool is_virtual = false, is_physical = false;

	if (!read_elf(file, elf))
		return false;
	for (uint64_t i = 0; i < elf->header_count; i++) {
		struct segment segment = read_segment(file, elf, i);

		if (segment.type == PT_INTERP)
			return fail(file, "it is a program for an operating system: a guest has none below it");
		if (segment.type != PT_LOAD)
			continue;
		if (!add_segment(file, layout, &segment))
			return false;
		is_physical |= elf->entry - segment.paddr < segment.memsz;
		if (is_virtual || !(segment.flags & PF_X) || elf->entry - segment.vaddr >= segment.memsz)
			continue;
		*entry = elf->entry - segment.vaddr + segment.paddr;
		is_virtual = true;
	}
	if (!is_virtual)
		*entry = elf->entry;
	return is_virtual || is_physical ||
	       fail(file, "its entry, 0x%" PRIx64 ", lies in none of its segments", elf->entry);
}

/* Whether there is a multiboot header, and then its flags. */
static bool find_multiboot(const struct file *file, uint32_t *flags)
{
	uint32_t word[3];

	for (size_t at = 0; at + sizeof(word) <= file->size && at + sizeof(word) <= MULTIBOOT_SEARCH; at += 4) {
		memcpy(word, file->data + at, sizeof(word));
		*flags = word[1];
		if (word[0] == MULTIBOOT_MAGIC && !(uint32_t)(word[0] + word[1] + word[2]))
			return true;
	}
	return false;
}

static int compare_gpa(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* The content of a page, and of those that follow it in the same piece. */
static uint8_t *at_gpa(const struct image *image, uint64_t gpa)
{
	uint64_t page = gpa & ~(IMAGE_PAGE - 1);
	const uint64_t *found = bsearch(&page, image->gpa, image->pages, sizeof(page), compare_gpa);

	return image->data + (found - image->gpa) * IMAGE_PAGE + gpa % IMAGE_PAGE;
}

/* The pages that have content, and of that what comes from the file. */
static bool fill_pages(const struct file *file, const struct layout *layout, struct image *image)
{
	size_t count = 0, pages = 0;

	for (size_t i = 0; i < layout->count; i++)
		pages += layout->piece[i].filled / IMAGE_PAGE + 2;
	image->gpa = calloc(pages + 1, sizeof(*image->gpa));
	if (!image->gpa)
		return fail(file, "there is no memory to load it");
	for (size_t i = 0; i < layout->count; i++) {
		const struct piece *piece = &layout->piece[i];

		for (uint64_t gpa = piece->gpa & ~(IMAGE_PAGE - 1); piece->filled && gpa < piece->gpa + piece->filled;
		     gpa += IMAGE_PAGE)
			image->gpa[count++] = gpa;
	}
	qsort(image->gpa, count, sizeof(*image->gpa), compare_gpa);
	for (size_t i = 0; i < count; i++)
		if (!i || image->gpa[i] != image->gpa[i - 1])
			image->gpa[image->pages++] = image->gpa[i];
	image->data = calloc(image->pages, IMAGE_PAGE);
	if (!image->data)
		return fail(file, "there is no memory to load it");
	for (size_t i = 0; i < layout->count; i++)
		if (layout->piece[i].data && layout->piece[i].filled)
			memcpy(at_gpa(image, layout->piece[i].gpa), layout->piece[i].data, layout->piece[i].filled);
	return true;
}

/* Maps [0, memory) to itself, in pages of 2 MiB. */
static void fill_tables(uint64_t *table, uint64_t cr3, uint64_t memory)
{
	uint64_t directories = (memory + SIZE_1G - 1) / SIZE_1G;
	uint64_t pointers = (directories + TABLE_ENTRIES - 1) / TABLE_ENTRIES;
	uint64_t *pointer = table + TABLE_ENTRIES, *directory = pointer + pointers * TABLE_ENTRIES;

	for (uint64_t i = 0; i < pointers; i++)
		table[i] = (cr3 + (1 + i) * IMAGE_PAGE) | TABLE_ENTRY;
	for (uint64_t i = 0; i < directories; i++)
		pointer[i] = (cr3 + (1 + pointers + i) * IMAGE_PAGE) | TABLE_ENTRY;
	for (uint64_t i = 0; i * SIZE_2M < memory; i++)
		directory[i] = i * SIZE_2M | TABLE_LARGE;
}

static uint64_t tables_size(uint64_t memory)
{
	uint64_t directories = (memory + SIZE_1G - 1) / SIZE_1G;

	return (1 + (directories + TABLE_ENTRIES - 1) / TABLE_ENTRIES + directories) * IMAGE_PAGE;
}

static void fill_multiboot(uint8_t *page, uint64_t gpa, uint64_t memory, const char *arguments)
{
	const uint64_t lower = memory < 640 << 10 ? memory : 640 << 10, upper = memory >> 20 ? memory - (1 << 20) : 0;
	const struct multiboot_information information = {
		.flags = MULTIBOOT_MEMORY | MULTIBOOT_COMMAND_LINE | MULTIBOOT_MAP,
		.mem_lower = lower >> 10,
		.mem_upper = upper >> 10,
		.cmdline = gpa + MULTIBOOT_LINE_OFFSET,
		.mmap_length = sizeof(struct multiboot_map),
		.mmap_addr = gpa + MULTIBOOT_MAP_OFFSET,
	};
	const struct multiboot_map map = { sizeof(map) - sizeof(map.size), 0, memory, 1 };

	memcpy(page, &information, sizeof(information));
	memcpy(page + MULTIBOOT_MAP_OFFSET, &map, sizeof(map));
	snprintf((char *)page + MULTIBOOT_LINE_OFFSET, IMAGE_PAGE - MULTIBOOT_LINE_OFFSET, "guest%s%s",
		 *arguments ? " " : "", arguments);
}

static bool lay_out(const struct file *file, struct layout *layout, struct hyperps_vm_create_vcpu *start)
{
	bool is_elf = file->size >= SELFMAG && !memcmp(file->data, ELFMAG, SELFMAG);
	uint32_t flags = 0;
	bool is_multiboot = find_multiboot(file, &flags);
	struct elf elf = { .headers = 0 };

	if (!is_elf && is_multiboot)
		return fail(file,
			    "it has a multiboot header, but is no ELF file: only ELF files can be loaded that way");
	if (!is_elf) {
		const struct segment flat = { PT_LOAD, PF_X, 0, FLAT_ADDRESS, FLAT_ADDRESS, file->size, file->size };

		*start = (struct hyperps_vm_create_vcpu){ .mode = HYPERPS_VCPU_REAL, .entry = FLAT_ADDRESS };
		if (!file->size)
			return fail(file, "it is empty");
		return add_segment(file, layout, &flat) &&
		       add_free(file, layout, FREE_FLAT, IMAGE_PAGE, &start->argument);
	}
	if (!lay_out_elf(file, layout, &elf, &start->entry) ||
	    !add_free(file, layout, FREE_ELF, IMAGE_PAGE, &start->argument))
		return false;
	if (is_multiboot) {
		start->mode = HYPERPS_VCPU_PROTECTED;
		if (flags & MULTIBOOT_UNKNOWN)
			return fail(file, "its multiboot header asks for what there is not: flags 0x%" PRIx32, flags);
		if (start->entry >= LIMIT_32BIT || start->argument >= LIMIT_32BIT - IMAGE_PAGE)
			return fail(file,
				    "its entry, or all free memory, is above 4 GiB: multiboot starts in 32-bit mode");
		return true;
	}
	if (!elf.is_64bit)
		return fail(file, "it is a 32-bit ELF file without a multiboot header: how to start it is not defined");
	start->mode = HYPERPS_VCPU_LONG;
	return add_free(file, layout, FREE_ELF, tables_size(file->memory), &start->cr3);
}

bool image_load(struct image *image, const void *data, size_t size, uint64_t memory, const char *arguments,
		char error[200])
{
	const struct file file = { data, size, memory, error };
	struct hyperps_vm_create_vcpu *start = &image->start;
	struct layout layout = { .count = 0 };
	const size_t longest = IMAGE_PAGE - MULTIBOOT_LINE_OFFSET - sizeof("guest ");

	*image = (struct image){ .pages = 0 };
	if (strlen(arguments) > longest)
		return fail(&file, "the guest's arguments are longer than %zu characters", longest);
	if (!lay_out(&file, &layout, start) || !fill_pages(&file, &layout, image))
		return false;
	if (start->mode == HYPERPS_VCPU_PROTECTED)
		fill_multiboot(at_gpa(image, start->argument), start->argument, memory, arguments);
	else
		strcpy((char *)at_gpa(image, start->argument), arguments);
	if (start->mode == HYPERPS_VCPU_LONG)
		fill_tables((uint64_t *)at_gpa(image, start->cr3), start->cr3, memory);
	return true;
}

void image_free(struct image *image)
{
	free(image->gpa);
	free(image->data);
	*image = (struct image){ .pages = 0 };
}
