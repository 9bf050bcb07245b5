// SPDX-License-Identifier: MIT
/*
 * libFuzzer on dmar_choose(): an input is a machine and a unit's registers (struct facts), how long the DMAR table is, and
 * then the DMAR and MCFG tables without their headers, whose lengths and checksums are right but for facts.bad_sum. What is
 * answered must be usable, whatever the tables hold. HYPERPS_FUZZ_LIE=ram has it not know of the RAM: that must be found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dmar.h"

#define DMAR_HEADER 48
#define MCFG_HEADER 44
#define ADDRESS_BITS 39
#define REGION 0x7f000000ULL

struct facts {
	struct dmar_registers registers;
	u32 host_bridge, graphics;
	u8 wanted, levels, leaf, flags, dmar_units_of_16, bad_sum;
} __attribute__((packed));

static const struct boot_memory_range memory[] = { { 0, 0xa0000, 7, 0 },
						   { 0x100000, 0x7ff00000, 7, 0 },
						   { 0xfed00000, 0x100000, 0, 0 },
						   { 0x100000000, 0x80000000, 2, 0 } };
/* A bridge with a bridge behind it, and another segment. */
static const struct dmar_function functions[] = {
	{ 0, 0, 0, 0, 0, 0 }, { 0, 0, 1, 0, 1, 3 }, { 0, 1, 0, 0, 2, 3 }, { 0, 3, 0, 1, 0, 0 }, { 1, 0, 1, 0, 0, 0 }
};
static struct facts facts;

static void require(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "finding: %s\n", what);
	abort();
}

/* Registers can be there: within the address width, and not in RAM. */
static bool is_free(u64 base, u64 size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(memory); i++)
		if (memory[i].type && base < memory[i].base + memory[i].size && base + size > memory[i].base)
			return false;
	return base % PAGE_SIZE == 0 && size && base < BIT(ADDRESS_BITS) && size <= BIT(ADDRESS_BITS) - base;
}

static bool read_unit(u64 base, struct dmar_registers *registers)
{
	require(is_free(base, PAGE_SIZE), "registers are read where something else is");
	*registers = facts.registers;
	return !(facts.flags & BIT(7));
}

/* A table in memory of its own, so that the sanitizer sees each byte beyond. */
static struct acpi_table *table(const char *signature, u32 header, const u8 *bytes, size_t size, u8 error)
{
	struct acpi_table *t = calloc(1, header + size);
	u8 sum = 0;

	memcpy(t->signature, signature, sizeof(t->signature));
	t->length = (u32)(header + size);
	memcpy((u8 *)t + header, bytes, size);
	for (size_t i = 0; i < header + size; i++)
		sum += ((const u8 *)t)[i];
	t->checksum = (u8)(error - sum);
	return t;
}

static void check(const struct dmar_machine *m, const struct dmar_choice *choice)
{
	const struct boot_dma *dma = &choice->dma;

	require(memchr(dma->text, 0, sizeof(dma->text)) && dma->text[0], "the text has an end");
	require(!dma->unit[0] == !!choice->reason, "there are units, or there is a reason");
	require(!dma->held_back || dma->unit[0], "without units DMA is not held back");
	require(dma->unit[0] || (!choice->reserved_count && !choice->write_back), "without units nothing else is done");
	require(choice->largest_leaf >= 2 && choice->largest_leaf <= m->largest_leaf, "the CPU has pages of that size");
	for (const u64 *unit = dma->unit; unit < dma->unit + BOOT_IOMMUS && *unit; unit++) {
		u64 base = ALIGN_DOWN(*unit, PAGE_SIZE), size = *unit % PAGE_SIZE * PAGE_SIZE;

		require(is_free(base, size), "all of a unit's registers are where nothing else is");
		for (const u64 *other = dma->unit; other < unit; other++)
			require(base >= ALIGN_DOWN(*other, PAGE_SIZE) + *other % PAGE_SIZE * PAGE_SIZE ||
					base + size <= ALIGN_DOWN(*other, PAGE_SIZE),
				"units don't overlap");
	}
	require(choice->reserved_count <= DMAR_RESERVED_MAX, "the reserved ranges fit");
	for (u32 i = 0; i < choice->reserved_count; i++) {
		u64 base = choice->reserved[i].base, last = base + choice->reserved[i].size - 1;

		require(base % PAGE_SIZE == 0 && last % PAGE_SIZE == PAGE_SIZE - 1 && last > base,
			"they are whole pages");
		require(last < m->own[0].base || base >= m->own[0].base + m->own[0].size,
			"they are not the monitor's memory");
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct dmar_choice choice;
	const bool lie = getenv("HYPERPS_FUZZ_LIE");
	struct dmar_machine m = { .ranges = memory,
				  .range_count = lie ? 0 : ARRAY_SIZE(memory),
				  .own = { { REGION, 0x200000, 0, 0 } },
				  .address_bits = ADDRESS_BITS,
				  .read = read_unit };
	struct acpi_table *dmar, *mcfg = NULL;
	size_t dmar_size;

	if (size < sizeof(facts))
		return 0;
	memcpy(&facts, data, sizeof(facts));
	data += sizeof(facts);
	size -= sizeof(facts);
	dmar_size = facts.dmar_units_of_16 * 16ULL < size ? facts.dmar_units_of_16 * 16ULL : size;
	dmar = table("DMAR", DMAR_HEADER, data, dmar_size, facts.bad_sum == 0xff);
	if (dmar_size < size)
		mcfg = table("MCFG", MCFG_HEADER, data + dmar_size, size - dmar_size, 0);
	m.dmar = dmar;
	m.mcfg = mcfg;
	m.wanted = facts.wanted % 8 == 7 ? CONF_DMA_OFF : CONF_DMA_AUTO;
	m.ept_levels = 4 + facts.levels % 2;
	m.largest_leaf = 2 + facts.leaf % 2;
	m.hypervisor = facts.flags & BIT(0);
	m.cxl = facts.flags & BIT(1);
	m.functions = functions;
	m.function_count = ARRAY_SIZE(functions);
	m.more_functions = facts.flags & BIT(2);
	m.x2apic_locked = (facts.flags & (BIT(3) | BIT(4))) == (BIT(3) | BIT(4));
	m.host_bridge = facts.host_bridge;
	m.graphics = facts.graphics;
	dmar_choose(&m, &choice);
	check(&m, &choice);
	free(dmar);
	free(mcfg);
	return 0;
}
