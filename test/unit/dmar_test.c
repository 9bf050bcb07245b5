// SPDX-License-Identifier: MIT
/* boot/dmar.c: each reason why units stay off, or don't do; good tables; mangled ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "dmar.h"

#define UNIT 0xfed90000ULL
#define SKYLAKE 0x191f8086
#define HD_GRAPHICS 0x19128086
#define RESERVED 0
#define LOADER_DATA 2
#define CONVENTIONAL 7
/* A unit of QEMU's: records at 0x220, IOTLB registers at 0xf0; 39 and 48 bits, 2 MiB and 1 GiB, drain. */
#define CAPABILITY (3ULL << 54 | 3ULL << 34 | 0x22ULL << 24 | 47ULL << 16 | 6ULL << 8 | 0xd2)
#define EXTENDED (0xfULL << 8 | 3)

static const struct boot_memory_range memory[] = { { 0, 0xa0000, CONVENTIONAL, 0 },
						   { 0x100000, 0x7ff00000, CONVENTIONAL, 0 },
						   { 0xfed00000, 0x100000, RESERVED, 0 },
						   { 0x100000000, 0x80000000, LOADER_DATA, 0 } };
static u8 tables[2][8192];
static u32 used[2];
static struct dmar_machine machine;
static struct dmar_choice choice;
static struct dmar_registers registers;
static u64 silent; /* a unit that does not answer */

/* Whether it is none of the RAM and none of the monitor's memory, which lies in that. */
static bool is_free(u64 base, u64 size)
{
	for (unsigned i = 0; i < machine.range_count; i++)
		if (machine.ranges[i].type != RESERVED && base < machine.ranges[i].base + machine.ranges[i].size &&
		    base + size > machine.ranges[i].base)
			return false;
	return base % PAGE_SIZE == 0 && size && base + size > base && base + size <= BIT(machine.address_bits);
}

static bool read_unit(u64 base, struct dmar_registers *r)
{
	/* Nothing is read where something else may be. */
	assert_true(is_free(base, PAGE_SIZE));
	*r = registers;
	return base != silent;
}

static void put(unsigned table, const void *bytes, u32 size)
{
	if (size)
		memcpy(tables[table] + used[table], bytes, size);
	used[table] += size;
}

static void start(unsigned table, const char *signature, u32 size)
{
	memset(tables[table], 0, size);
	memcpy(tables[table], signature, 4);
	used[table] = size;
}

static void finish(unsigned table)
{
	struct acpi_table *t = (void *)tables[table];
	u8 sum = 0;

	t->length = used[table];
	t->checksum = 0;
	for (u32 i = 0; i < used[table]; i++)
		sum += tables[table][i];
	t->checksum = -sum;
}

struct unit {
	u16 type, length;
	u8 flags, size;
	u16 segment;
	u64 base;
	u8 scope[8];
} __attribute__((packed));

static void add_unit(u8 flags, u8 size, u16 segment, u64 base)
{
	put(0, &(struct unit){ 0, 16, flags, size, segment, base, { 0 } }, 16);
}

static void add_scoped_unit(u64 base, u8 device)
{
	put(0, &(struct unit){ 0, 24, 0, 0, 0, base, { 1, 8, 0, 0, 0, 0, device, 0 } }, 24);
}

static void add_range(u64 base, u64 last)
{
	put(0, &(struct {
		    u16 type, length, reserved, segment;
		    u64 base, last;
	    }){ 1, 24, 0, 0, base, last },
	    24);
}

static void add_segment(u16 segment)
{
	put(1, &(struct {
		    u64 base;
		    u16 segment;
		    u8 first, last;
		    u32 reserved;
	    }){ 0xe0000000, segment, 0, 255, 0 },
	    16);
}

/* The copies are as long as they say, so that the sanitizer sees each byte beyond. */
static void choose(void)
{
	struct acpi_table *copies[2] = { NULL };

	for (unsigned i = 0; i < 2; i++)
		if (used[i]) {
			copies[i] = malloc(used[i]);
			memcpy(copies[i], tables[i], used[i]);
		}
	machine.dmar = copies[0];
	machine.mcfg = copies[1];
	memset(&choice, 0xa5, sizeof(choice));
	dmar_choose(&machine, &choice);
	free(copies[0]);
	free(copies[1]);
	assert_non_null(memchr(choice.dma.text, 0, sizeof(choice.dma.text)));
	assert_true(strlen(choice.dma.text) < sizeof(choice.dma.text) - 1); /* not cut off */
	assert_int_equal(choice.dma.text_level, choice.dma.held_back ? 2 : 1);
}

static void expect(const char *text)
{
	choose();
	assert_string_equal(choice.dma.text, text);
}

#define HELD "DMA is held back"
#define REAL HELD " unless the chipset is reprogrammed"
#define VIRTUAL HELD " only as far as the hypervisor below does: its disks and own devices may go around the units"
#define PART HELD " only in part: "
#define SOME PART "no VT-d unit takes all devices of a PCI segment. Update the firmware"
#define OFF "DMA is not held back: "

static void expect_off(const char *reason)
{
	char text[200];

	snprintf(text, sizeof(text), OFF "%s", reason);
	expect(text);
	assert_false(choice.dma.unit[0] || choice.dma.held_back || choice.write_back || choice.reserved_count);
	assert_int_equal(choice.largest_leaf, machine.largest_leaf);
}

/* A machine on which all is well, and the beginning of its tables. */
static void begin(void)
{
	machine = (struct dmar_machine){ .ranges = memory,
					 .range_count = ARRAY_SIZE(memory),
					 .own = { { 0x7f000000, 0x200000, 0, 0 }, { 0x8a000, 0x6000, 0, 0 } },
					 .address_bits = 39,
					 .ept_levels = 4,
					 .largest_leaf = 3,
					 .read = read_unit,
					 .cpu = 0x506e3,
					 .largest_apic_id = 254,
					 .host_bridge = SKYLAKE };
	registers = (struct dmar_registers){ 0x10, CAPABILITY, EXTENDED };
	silent = 0;
	start(0, "DMAR", 48);
	start(1, "MCFG", 44);
	add_segment(0);
	finish(1);
}

static void usual(void)
{
	begin();
	add_unit(1, 0, 0, UNIT);
	finish(0);
}

static void good(void **state)
{
	(void)state;
	usual();
	expect(REAL);
	assert_true(choice.dma.held_back && !choice.dma.required && !choice.has_fault && !choice.write_back);
	assert_int_equal(choice.dma.unit[0], UNIT | 1);
	assert_int_equal(choice.dma.unit[1], 0);
	assert_int_equal(choice.largest_leaf, 3);
	used[1] = 0; /* no MCFG */
	expect(REAL);
	machine.wanted = CONF_DMA_REQUIRE;
	expect(REAL);
	assert_true(choice.dma.held_back && choice.dma.required);
}

static void many(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < BOOT_IOMMUS; i++)
		add_unit(i == 5, 0, 0, 0xd0000000 + 0x10000 * i);
	/* Unknown structures are passed over. */
	put(0, (u8[]){ 2, 0, 8, 0, 1, 0, 0, 0, 99, 0, 4, 0 }, 12);
	add_range(0x7b000000, 0x7b0fffff);
	add_range(0x7c000800, 0x7c000900);
	finish(0);
	expect(REAL);
	for (unsigned i = 0; i < BOOT_IOMMUS; i++)
		assert_int_equal(choice.dma.unit[i], (0xd0000000 + 0x10000 * i) | 1);
	assert_int_equal(choice.reserved_count, 2);
	assert_int_equal(choice.reserved[0].base, 0x7b000000);
	assert_int_equal(choice.reserved[0].size, 0x100000);
	assert_int_equal(choice.reserved[0].type, RESERVED);
	assert_int_equal(choice.reserved[1].base, 0x7c000000);
	assert_int_equal(choice.reserved[1].size, 0x1000);
	add_unit(0, 0, 0, 0xe0000000);
	finish(0);
	expect_off("the DMAR table names more than 64 units. Report this machine to the project");
	assert_true(choice.has_fault);
}

/* The registers' pages: by the table, by the fault records, by the IOTLB's registers. */
static void pages(void **state)
{
	(void)state;
	begin();
	add_unit(1, 0xf2, 0, UNIT);
	finish(0);
	expect(REAL);
	assert_int_equal(choice.dma.unit[0], UNIT | 4);
	usual();
	registers.capability |= 0x3ffULL << 24 | 0xffULL << 40; /* up to 0x3ff0 + 0x1000 */
	expect(REAL);
	assert_int_equal(choice.dma.unit[0], UNIT | 5);
	usual();
	registers.extended_capability = 0xffULL << 8 | 3; /* the last 16 bytes of the first page */
	expect(REAL);
	assert_int_equal(choice.dma.unit[0], UNIT | 1);
	registers.extended_capability = 0x100ULL << 8 | 3;
	expect(REAL);
	assert_int_equal(choice.dma.unit[0], UNIT | 2);
}

static void capabilities(void **state)
{
	static const char lacks[] = "a VT-d unit lacks queued invalidation, drain or 2 MiB pages";
	static const char reach[] = "a VT-d unit does not reach all RAM";

	(void)state;
	usual();
	registers.extended_capability = EXTENDED & ~1ULL;
	expect(REAL);
	assert_true(choice.write_back);
	registers.extended_capability = EXTENDED & ~2ULL;
	expect_off(lacks);
	registers.extended_capability = EXTENDED;
	for (unsigned bit = 34; bit <= 55; bit = bit == 34 ? 54 : bit + 1) {
		registers.capability = CAPABILITY & ~BIT(bit);
		expect_off(lacks);
	}
	/* RAM ends below 8 GiB: 33 bits. Three levels do. */
	registers.capability = (CAPABILITY & ~(0x1fULL << 8)) | 2 << 8;
	expect(REAL);
	registers.capability = (CAPABILITY & ~(0x1fULL << 8)) | 8 << 8; /* five only */
	expect_off(reach);
	machine.ept_levels = 5;
	expect(REAL);
	registers.capability = CAPABILITY & ~(0x1fULL << 8);
	expect_off(reach);
	registers.capability = (CAPABILITY & ~(0x3fULL << 16)) | 32ULL << 16;
	expect(REAL);
	registers.capability = (CAPABILITY & ~(0x3fULL << 16)) | 31ULL << 16;
	expect_off(reach);
	/* RAM above what three levels reach. */
	begin();
	add_unit(1, 0, 0, UNIT);
	finish(0);
	registers.capability = (CAPABILITY & ~(0x1fULL << 8)) | 2 << 8;
	machine.address_bits = 42;
	machine.ranges = (struct boot_memory_range[]){ { 0, 0x80000000, CONVENTIONAL, 0 },
						       { BIT(39) - 0x1000, 0x1000, CONVENTIONAL, 0 } };
	machine.range_count = 2;
	expect(REAL);
	machine.ranges = (struct boot_memory_range[]){ { 0, 0x80000000, CONVENTIONAL, 0 },
						       { BIT(39), 0x1000, CONVENTIONAL, 0 } };
	expect_off(reach);
}

static void leaves(void **state)
{
	(void)state;
	usual();
	registers.capability = CAPABILITY & ~BIT(35);
	expect(REAL);
	assert_int_equal(choice.largest_leaf, 2);
	machine.address_bits = 40;
	expect(REAL);
	machine.address_bits = 41;
	expect_off("a VT-d unit lacks 1 GiB pages, and the CPU has more than 40 address bits");
	/* Nothing is lost if the CPU has none either. */
	machine.largest_leaf = 2;
	expect(REAL);
	registers.capability = CAPABILITY;
	expect(REAL);
	assert_int_equal(choice.largest_leaf, 2);
}

static void misplaced(void **state)
{
	static const char reason[] = "the DMAR table has registers of a unit where they can't be. Update the firmware";
	static const struct {
		u64 base;
		u8 size;
	} wrong[] = { { 0, 0 },          { UNIT + 0x800, 0 }, { BIT(39), 0 },    { ~0xfffULL, 0 },
		      { 0x7fff0000, 0 }, { 0x100000000, 0 },  { 0xfffff000, 1 }, { BIT(39) - 0x1000, 1 },
		      { 0x7f000000, 0 }, { 0x8a000, 0 },      { UNIT, 12 } };
	static const u64 second[] = { UNIT, UNIT + 0x1000, UNIT - 0x1000 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		begin();
		add_unit(1, wrong[i].size, 0, wrong[i].base);
		finish(0);
		expect_off(reason);
		assert_true(choice.has_fault);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(second); i++) {
		begin();
		add_unit(1, 1, 0, UNIT);
		add_unit(0, 1, 0, second[i]);
		finish(0);
		expect_off(reason);
	}
	begin();
	add_unit(1, 1, 0, UNIT);
	add_unit(0, 1, 0, UNIT + 0x2000);
	finish(0);
	expect(REAL);
	/* The capabilities may say that there are more pages than the table has. */
	registers.capability |= 0x3ffULL << 24;
	expect_off(reason);
	/* Where the monitor's memory is may not be known yet. */
	begin();
	add_unit(1, 0, 0, UNIT);
	finish(0);
	machine.own[0] = machine.own[1] = (struct boot_memory_range){ 0 };
	expect(REAL);
	for (unsigned i = 0; i < ARRAY_SIZE(machine.own); i++) {
		machine.own[i] = (struct boot_memory_range){ UNIT - 0x1000, 0x1001, 0, 0 };
		expect_off(reason);
		machine.own[i].size = 0;
	}
}

static void no_answer(void **state)
{
	static const char reason[] =
		"the registers of a unit that the DMAR table names don't answer. Update the firmware";

	(void)state;
	usual();
	silent = UNIT;
	expect_off(reason);
	silent = 0;
	registers.version = 0;
	expect_off(reason);
	registers.version = ~0U;
	expect_off(reason);
}

static void segments(void **state)
{
	static const char reason[] = "the DMAR table leaves devices of a PCI segment out. Update the firmware";

	(void)state;
	begin();
	add_unit(0, 0, 0, UNIT);
	finish(0);
	expect_off(reason);
	used[1] = 0;
	expect_off(reason);
	usual();
	add_segment(7);
	finish(1);
	expect_off(reason);
	add_unit(0, 0, 7, UNIT + 0x10000);
	finish(0);
	expect_off(reason);
	add_unit(1, 0, 7, UNIT + 0x20000);
	finish(0);
	expect(REAL);
	used[1]--;
	finish(1);
	expect_off("the MCFG table is damaged. Update the firmware");
	used[1] = 40;
	finish(1);
	expect_off("the MCFG table is damaged. Update the firmware");
}

/* Units that name each function, as QEMU's do: on segment 0 a bridge with a bridge behind it, and on segment 2 a device. */
static void functions(void **state)
{
	static const char reason[] = "the DMAR table leaves devices of a PCI segment out. Update the firmware";
	static const struct dmar_function all[] = {
		{ 0, 0, 0, 0, 0, 0 }, { 0, 0, 1, 0, 1, 3 },    { 0, 1, 0, 0, 2, 3 },
		{ 0, 3, 0, 1, 0, 0 }, { 0, 0, 0x1f, 2, 0, 0 }, { 2, 0, 1, 0, 0, 0 }
	};
	static const u8 host[] = { 1, 8, 0, 0, 0, 0, 0, 0 }, bridge[] = { 2, 8, 0, 0, 0, 0, 1, 0 },
			sata[] = { 1, 8, 0, 0, 0, 0, 0x1f, 2 }, ioapic[] = { 3, 8, 0, 0, 0, 0, 1, 0 },
			behind[] = { 2, 10, 0, 0, 0, 0, 1, 0, 0, 0 }, last[] = { 1, 8, 0, 0, 0, 3, 0, 1 },
			alone[] = { 1, 8, 0, 0, 0, 0, 1, 0 }, through_a_device[] = { 2, 10, 0, 0, 0, 0, 0x1f, 2, 1, 0 };
#define SCOPE(name)                                                                                                    \
	{                                                                                                              \
		name, sizeof(name)                                                                                     \
	}
	static const struct {
		struct {
			const u8 *bytes;
			u32 size;
		} scopes[6];
		bool enough;
	} cases[] = { { { SCOPE(host), SCOPE(bridge), SCOPE(sata) }, true },
		      { { SCOPE(host), SCOPE(alone), SCOPE(behind), SCOPE(sata) }, true },
		      { { SCOPE(ioapic), SCOPE(sata), SCOPE(bridge), SCOPE(host) }, true },
		      { { SCOPE(bridge), SCOPE(sata) }, false },
		      { { SCOPE(host), SCOPE(bridge) }, false },
		      { { SCOPE(host), SCOPE(sata), SCOPE(ioapic) }, false },
		      { { SCOPE(host), SCOPE(sata), SCOPE(alone) }, false },
		      { { SCOPE(host), SCOPE(sata), SCOPE(alone), SCOPE(last) }, false }, /* the bridge between */
		      { { SCOPE(host), SCOPE(sata), SCOPE(through_a_device) }, false } };

	(void)state;
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
		u32 size = 16, before;

		begin();
		before = used[0];
		add_unit(0, 0, i % 2 ? 1 : 0, UNIT); /* and once of another segment */
		for (unsigned j = 0; j < ARRAY_SIZE(cases[0].scopes); j++) {
			put(0, cases[i / 2].scopes[j].bytes, cases[i / 2].scopes[j].size);
			size += cases[i / 2].scopes[j].size;
		}
		tables[0][before + 2] = (u8)size;
		finish(0);
		machine.functions = all;
		machine.function_count = ARRAY_SIZE(all);
		if (!cases[i / 2].enough || i % 2) {
			expect_off(reason);
			continue;
		}
		expect(SOME);
		machine.hypervisor = true;
		expect(VIRTUAL);
		machine.hypervisor = false;
		machine.more_functions = true;
		expect_off(reason);
		machine.more_functions = false;
		add_segment(2);
		finish(1);
		expect_off(reason);
		put(0, &(struct unit){ 0, 24, 0, 0, 2, UNIT + 0x1000, { 1, 8, 0, 0, 0, 0, 1, 0 } }, 24);
		finish(0);
		expect(SOME);
		/* A segment of which no function is known. */
		add_segment(3);
		finish(1);
		expect_off(reason);
	}
}

static void reserved(void **state)
{
	static const char overlaps[] =
		"a device's reserved range (RMRR) overlaps the monitor's memory. Update the firmware";

	(void)state;
	usual();
	add_range(0x7effe000, 0x7effefff);
	add_range(0x7f200000, 0x7f200fff);
	finish(0);
	expect(REAL);
	add_range(0x7efff000, 0x7f000000);
	finish(0);
	expect_off(overlaps);
	usual();
	add_range(0, 0x8afff);
	finish(0);
	expect_off(overlaps);
	usual();
	add_range(0x1000, 0xfff);
	finish(0);
	expect_off("a structure in the DMAR table is damaged. Update the firmware");
	usual();
	add_range(0, ~0ULL);
	finish(0);
	expect_off("a structure in the DMAR table is damaged. Update the firmware");
	usual();
	for (unsigned i = 0; i < DMAR_RESERVED_MAX; i++)
		add_range(0x1000 * i, 0x1000 * i);
	finish(0);
	expect(REAL);
	assert_int_equal(choice.reserved_count, DMAR_RESERVED_MAX);
	add_range(0x1000000, 0x1000000);
	finish(0);
	expect_off("the DMAR table names more than 64 reserved ranges. Report this machine to the project");
}

static void damaged(void **state)
{
	static const char reason[] = "a structure in the DMAR table is damaged. Update the firmware";
	static const char whole[] = "the DMAR table has a wrong length or checksum. Update the firmware";

	(void)state;
	usual();
	tables[0][60]++;
	expect_off(whole);
	start(0, "DMAR", 47);
	finish(0);
	expect_off(whole);
	start(0, "DMAR", 48);
	finish(0);
	expect_off("the DMAR table names no unit. Update the firmware");
	/* Cut off at each byte. */
	for (unsigned cut = 1; cut < 40; cut++) {
		begin();
		add_unit(1, 0, 0, UNIT);
		add_range(0x1000, 0x1fff);
		add_scoped_unit(UNIT + 0x1000, 1);
		used[0] -= cut;
		finish(0);
		if (cut != 24)
			expect_off(reason);
	}
	/* Structures and device scopes that are too short, too long, or of no length. */
	for (unsigned length = 0; length < 256; length++) {
		usual();
		put(0, &(struct unit){ 0, length, 0, 0, 0, UNIT + 0x1000, { 1, 8 } }, 24);
		finish(0);
		if (length != 16 && length != 24)
			expect_off(reason);
		usual();
		put(0, &(struct unit){ 0, 24, 0, 0, 0, UNIT + 0x1000, { 1, length } }, 24);
		finish(0);
		if (length != 8)
			expect_off(reason);
		usual();
		put(0, &(struct unit){ 1, length, 0, 0, 0, 0x1000, { 0xff, 0x1f } }, 24);
		finish(0);
		if (length != 24)
			expect_off(reason);
	}
}

static void machines(void **state)
{
	static const char remapping[] =
		"the CPUs need interrupt remapping (x2APIC is locked, or an APIC ID is 255 or more)";

	(void)state;
	used[0] = used[1] = 0;
	machine.wanted = CONF_DMA_AUTO;
	expect_off("no DMAR table (no VT-d, or switched off in the firmware setup)");
	assert_false(choice.has_fault);
	machine.wanted = CONF_DMA_REQUIRE;
	expect_off("no DMAR table (no VT-d, or switched off in the firmware setup)");
	assert_true(choice.dma.required);
	usual();
	machine.wanted = CONF_DMA_OFF;
	expect_off("dma = off in hyperps.conf");
	assert_false(choice.has_fault);
	machine.wanted = CONF_DMA_AUTO;
	machine.largest_apic_id = 255;
	expect_off(remapping);
	machine.largest_apic_id = 0;
	machine.x2apic_locked = true;
	expect_off(remapping);
	usual();
	machine.host_bridge = 0x2e208086;
	expect_off("this chipset's VT-d has known defects (4 Series)");
	assert_true(choice.has_fault);
	machine.host_bridge = 0x00448086;
	expect_off("this chipset's VT-d has known defects (Arrandale, Clarkdale)");
	machine.host_bridge = SKYLAKE;
	machine.cpu = 0x206a7;
	expect_off("this CPU's VT-d has known defects (Sandy Bridge)");
	machine.cpu = 0x206d7;
	expect_off("this CPU's VT-d has known defects (Sandy Bridge)");
	/* There the units are not the CPU's. */
	machine.hypervisor = true;
	expect(VIRTUAL);
	usual();
	machine.graphics = 0x16168086;
	expect_off("this CPU's VT-d has known defects (graphics of Broadwell)");
}

static void expect_part(const char *reason)
{
	char text[200];

	snprintf(text, sizeof(text), PART "%s", reason);
	expect(text);
	assert_true(choice.dma.unit[0] && !choice.dma.held_back && !choice.has_fault);
}

static void gaps(void **state)
{
	static const char graphics[] = "no VT-d unit names the graphics device. Update the firmware";

	(void)state;
	usual();
	machine.graphics = HD_GRAPHICS;
	expect_part(graphics);
	add_scoped_unit(UNIT + 0x1000, 3);
	put(0, &(struct unit){ 0, 24, 0, 0, 1, UNIT + 0x2000, { 1, 8, 0, 0, 0, 0, 2, 0 } },
	    24); /* of another segment */
	put(0, &(struct unit){ 0, 24, 0, 0, 0, UNIT + 0x3000, { 1, 8, 0, 0, 0, 1, 2, 0 } }, 24); /* on another bus */
	put(0, &(struct unit){ 0, 24, 0, 0, 0, UNIT + 0x4000, { 2, 8, 0, 0, 0, 0, 2, 0 } }, 24); /* a bridge */
	put(0, &(struct unit){ 0, 24, 0, 0, 0, UNIT + 0x5000, { 1, 8, 0, 0, 0, 0, 2, 1 } }, 24); /* another function */
	finish(0);
	expect_part(graphics);
	add_scoped_unit(UNIT + 0x6000, 2);
	finish(0);
	expect(REAL);
	machine.cxl = true;
	expect_part("the machine has CXL, which VT-d does not hold back");
	machine.hypervisor = true;
	machine.wanted = CONF_DMA_REQUIRE;
	expect(VIRTUAL);
	assert_true(choice.dma.unit[0] && !choice.dma.held_back && choice.dma.required && !choice.has_fault);
}

/* Whatever the tables and registers hold: no byte beyond is read, and what is answered can be used. */
static void mangled(void **state)
{
	unsigned found = 0;

	(void)state;
	srand(1);
	for (unsigned round = 0; round < 200000; round++) {
		usual();
		add_scoped_unit(UNIT + 0x10000, 2);
		add_range(0x7b000000, 0x7b0fffff);
		add_unit(rand() % 2, rand() % 4, rand() % 2, UNIT + 0x1000 * (rand() % 64));
		for (unsigned n = rand() % 4; n; n--)
			tables[0][48 + rand() % (used[0] - 48)] = rand() % 3 ? rand() % 32 : rand();
		if (rand() % 8 == 0)
			used[0] -= rand() % (used[0] - 35);
		if (rand() % 8 == 0)
			used[1] -= rand() % (used[1] - 35);
		if (rand() % 2)
			registers.capability ^= BIT(rand() % 64);
		if (rand() % 4 == 0)
			registers.extended_capability ^= BIT(rand() % 64);
		finish(0);
		finish(1);
		choose();
		for (const u64 *unit = choice.dma.unit; *unit; unit++) {
			u64 base = ALIGN_DOWN(*unit, PAGE_SIZE), size = *unit % PAGE_SIZE * PAGE_SIZE;

			assert_true(is_free(base, size));
			for (const u64 *other = choice.dma.unit; other < unit; other++)
				assert_true(base >= ALIGN_DOWN(*other, PAGE_SIZE) + *other % PAGE_SIZE * PAGE_SIZE ||
					    base + size <= ALIGN_DOWN(*other, PAGE_SIZE));
		}
		for (u32 i = 0; i < choice.reserved_count; i++)
			assert_true(choice.reserved[i].size && choice.reserved[i].base % PAGE_SIZE == 0 &&
				    choice.reserved[i].size % PAGE_SIZE == 0);
		found += choice.dma.unit[0] != 0;
	}
	assert_true(found > 20000 && found < 180000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),         cmocka_unit_test(many),     cmocka_unit_test(pages),
		cmocka_unit_test(capabilities), cmocka_unit_test(leaves),   cmocka_unit_test(misplaced),
		cmocka_unit_test(no_answer),    cmocka_unit_test(segments), cmocka_unit_test(functions),
		cmocka_unit_test(reserved),     cmocka_unit_test(damaged),  cmocka_unit_test(machines),
		cmocka_unit_test(gaps),         cmocka_unit_test(mangled),
	};

	return cmocka_run_group_tests_name("dmar", tests, NULL, NULL);
}
