// SPDX-License-Identifier: MIT
/*
 * Structures and registers: Intel, "Virtualization Technology for Directed I/O", chapters "BIOS Considerations" and "Register
 * Descriptions".
 */
#include "dmar.h"

struct dmar_table {
	struct acpi_table header;
	u8 width, flags, reserved[10];
	u8 structures[];
} __attribute__((packed));

struct structure {
	u16 type, length;
} __attribute__((packed));

#define TYPE_DRHD 0
#define TYPE_RMRR 1

/* DMA-remapping hardware unit definition. */
struct drhd {
	struct structure head;
	u8 flags;
	u8 size; /* bits 3:0: the registers are 2^n pages; reserved and 0 in old tables */
	u16 segment;
	u64 base;
	u8 scopes[];
} __attribute__((packed));

#define DRHD_INCLUDE_PCI_ALL BIT(0)

/* Reserved memory region reporting. */
struct rmrr {
	struct structure head;
	u16 reserved, segment;
	u64 base, last; /* last: of its bytes */
	u8 scopes[];
} __attribute__((packed));

struct scope {
	u8 type, length;
	u16 reserved;
	u8 enumeration, bus;
	u8 path[]; /* device and function, for each bus on the way */
} __attribute__((packed));

#define SCOPE_ENDPOINT 1
#define SCOPE_BRIDGE 2 /* and all below it */

/* PCI Firmware Specification, "MCFG Table". */
struct mcfg_table {
	struct acpi_table header;
	u64 reserved;
	struct {
		u64 base;
		u16 segment;
		u8 first_bus, last_bus;
		u32 reserved;
	} __attribute__((packed)) entry[];
} __attribute__((packed));

/* Capability register. */
#define CAP_LEVELS(n) BIT(8 + (n)-2) /* SAGAW: n levels, 3 to 5 */
#define CAP_MGAW(cap) (((cap) >> 16 & 0x3f) + 1) /* bits of an address in a request */
#define CAP_FAULT_OFFSET(cap) (((cap) >> 24 & 0x3ff) * 16) /* FRO */
#define CAP_2M BIT(34) /* SLLPS */
#define CAP_1G BIT(35)
#define CAP_FAULT_RECORDS(cap) (((cap) >> 40 & 0xff) + 1) /* NFR */
#define CAP_DRAIN (BIT(54) | BIT(55)) /* DWD, DRD */
/* Extended capability register. */
#define ECAP_COHERENT BIT(0) /* C */
#define ECAP_QUEUE BIT(1) /* QI */
#define ECAP_IOTLB_OFFSET(ecap) (((ecap) >> 8 & 0x3ff) * 16) /* IRO */

#define UNIT_PAGES_MAX 0xfff /* in the low bits of boot_dma.unit */
/* Without 1 GiB pages: 4 MiB of tables. */
#define SMALL_ADDRESS_BITS 40
/* A message of an interrupt that is not remapped names the CPU with 8 bits; 255 is all. */
#define APIC_ID_LIMIT 255

#define PCI_ID(vendor, device) ((vendor) | (u32)(device) << 16)
#define CPU_MODEL_MASK 0x0fff0ff0
#define CPU_SANDY_BRIDGE 0x000206a0
#define CPU_SANDY_BRIDGE_E 0x000206d0

static const char damaged[] = "a structure in the DMAR table is damaged. Update the firmware";
static const char misplaced[] = "the DMAR table has registers of a unit where they can't be. Update the firmware";

static bool overlap(u64 a, u64 a_size, u64 b, u64 b_size)
{
	return b - a < a_size || a - b < b_size;
}

/* EFI_MEMORY_TYPE: all but reserved, unusable, and memory-mapped I/O. */
static bool is_ram(const struct boot_memory_range *range)
{
	return range->size && range->type < 64 && !((BIT(0) | BIT(8) | BIT(11) | BIT(12) | BIT(13)) & BIT(range->type));
}

/* Bits of the addresses of all RAM. */
static unsigned ram_bits(const struct dmar_machine *m)
{
	u64 last = 0;

	for (u32 i = 0; i < m->range_count; i++)
		if (is_ram(&m->ranges[i]) && m->ranges[i].base + m->ranges[i].size - 1 > last)
			last = m->ranges[i].base + m->ranges[i].size - 1;
	return last ? 64 - (unsigned)__builtin_clzll(last) : 0;
}

static bool is_own(const struct dmar_machine *m, u64 base, u64 size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(m->own); i++)
		if (m->own[i].size && overlap(base, size, m->own[i].base, m->own[i].size))
			return true;
	return false;
}

/* Whether registers can lie there: page-aligned, within the address width, and nothing else is there. */
static bool has_room(const struct dmar_machine *m, const u64 *unit, u64 base, u64 size)
{
	if (base % PAGE_SIZE || base >= BIT(m->address_bits) || size > BIT(m->address_bits) - base ||
	    is_own(m, base, size))
		return false;
	for (u32 i = 0; i < m->range_count; i++)
		if (is_ram(&m->ranges[i]) && overlap(base, size, m->ranges[i].base, m->ranges[i].size))
			return false;
	for (; *unit; unit++)
		if (overlap(base, size, ALIGN_DOWN(*unit, PAGE_SIZE), *unit % PAGE_SIZE * PAGE_SIZE))
			return false;
	return true;
}

/* The structure at *at, which is moved behind it; NULL at the table's end, and where none fits, which leaves *at before the end. */
static const struct structure *next(const struct dmar_table *table, u32 *at)
{
	const struct structure *s = (const void *)((const u8 *)table + *at);
	u32 left = table->header.length - *at;

	if (left < sizeof(*s) || s->length < sizeof(*s) || s->length > left)
		return NULL;
	*at += s->length;
	return s;
}

/* Whether the device scopes, from `from` to the end of the structure, are whole. *graphics: one of them is 00:02.0. */
static bool check_scopes(const struct structure *s, const u8 *from, bool *graphics)
{
	const u8 *end = (const u8 *)s + s->length;

	*graphics = false;
	if (from > end)
		return false;
	while (from < end) {
		const struct scope *scope = (const void *)from;

		if (end - from < (long)sizeof(*scope) || scope->length < sizeof(*scope) || scope->length > end - from)
			return false;
		if (scope->type == SCOPE_ENDPOINT && scope->bus == 0 && scope->length == sizeof(*scope) + 2 &&
		    scope->path[0] == 2 && scope->path[1] == 0)
			*graphics = true;
		from += scope->length;
	}
	return true;
}

/* The most bits of an address that a unit and the host view's tables can translate. */
static unsigned walk_bits(const struct dmar_machine *m, u64 cap)
{
	for (unsigned levels = m->ept_levels; levels >= 3; levels--)
		if (cap & CAP_LEVELS(levels))
			return 12 + 9 * levels;
	return 0;
}

static const char *add_unit(const struct dmar_machine *m, const struct drhd *drhd, struct dmar_choice *choice,
			    u32 *count)
{
	u64 pages = 1ULL << (drhd->size & 0xf), bytes, cap, ecap, *unit = choice->dma.unit;
	struct dmar_registers r;

	if (*count == BOOT_IOMMUS)
		return "the DMAR table names more than 64 units. Report this machine to the project";
	if (!drhd->base || pages > UNIT_PAGES_MAX || !has_room(m, unit, drhd->base, pages * PAGE_SIZE))
		return misplaced;
	if (!m->read(drhd->base, &r) || !r.version || r.version == ~0U)
		return "the registers of a unit that the DMAR table names don't answer. Update the firmware";
	cap = r.capability;
	ecap = r.extended_capability;
	if (!(ecap & ECAP_QUEUE) || (cap & CAP_DRAIN) != CAP_DRAIN || !(cap & CAP_2M))
		return "a VT-d unit lacks queued invalidation, drain or 2 MiB pages";
	if (walk_bits(m, cap) < ram_bits(m) || CAP_MGAW(cap) < ram_bits(m))
		return "a VT-d unit does not reach all RAM";
	bytes = ECAP_IOTLB_OFFSET(ecap) + 16;
	if (CAP_FAULT_OFFSET(cap) + CAP_FAULT_RECORDS(cap) * 16 > bytes)
		bytes = CAP_FAULT_OFFSET(cap) + CAP_FAULT_RECORDS(cap) * 16;
	if (bytes > pages * PAGE_SIZE)
		pages = ALIGN_UP(bytes, PAGE_SIZE) / PAGE_SIZE;
	if (!has_room(m, unit, drhd->base, pages * PAGE_SIZE))
		return misplaced;
	unit[(*count)++] = drhd->base | pages;
	if (!(cap & CAP_1G) && choice->largest_leaf > 2)
		choice->largest_leaf = 2;
	choice->write_back = choice->write_back || !(ecap & ECAP_COHERENT);
	return NULL;
}

static const char *add_reserved(const struct dmar_machine *m, const struct rmrr *rmrr, struct dmar_choice *choice)
{
	u64 base = ALIGN_DOWN(rmrr->base, PAGE_SIZE), size = (rmrr->last | (PAGE_SIZE - 1)) - base + 1;

	if (rmrr->last < rmrr->base || !size)
		return damaged;
	if (choice->reserved_count == DMAR_RESERVED_MAX)
		return "the DMAR table names more than 64 reserved ranges. Report this machine to the project";
	if (is_own(m, base, size))
		return "a device's reserved range (RMRR) overlaps the monitor's memory. Update the firmware";
	choice->reserved[choice->reserved_count++] = (struct boot_memory_range){ base, size, 0, 0 };
	return NULL;
}

/* All structures. *graphics: a unit names 00:02.0. */
static const char *read_structures(const struct dmar_machine *m, const struct dmar_table *table,
				   struct dmar_choice *choice, bool *graphics)
{
	const struct structure *s;
	const char *wrong = NULL;
	u32 at = sizeof(*table), count = 0;
	bool names_it;

	while (!wrong && (s = next(table, &at))) {
		if (s->type == TYPE_DRHD) {
			const struct drhd *drhd = (const void *)s;

			if (s->length < sizeof(*drhd) || !check_scopes(s, drhd->scopes, &names_it))
				return damaged;
			wrong = add_unit(m, drhd, choice, &count);
			*graphics = *graphics || (names_it && !drhd->segment);
		} else if (s->type == TYPE_RMRR) {
			const struct rmrr *rmrr = (const void *)s;

			if (s->length < sizeof(*rmrr) || !check_scopes(s, rmrr->scopes, &names_it))
				return damaged;
			wrong = add_reserved(m, rmrr, choice);
		}
	}
	if (!wrong && at != table->header.length)
		return damaged;
	if (!wrong && !count)
		return "the DMAR table names no unit. Update the firmware";
	return wrong;
}

/* Whether a device scope names the function, or a bridge above it. */
static bool scope_covers(const struct dmar_machine *m, u16 segment, const struct scope *scope,
			 const struct dmar_function *f)
{
	const struct dmar_function *at = NULL;
	u8 bus = scope->bus;

	if (f->segment != segment || (scope->type != SCOPE_ENDPOINT && scope->type != SCOPE_BRIDGE))
		return false;
	/* Down the path, through the bridges. */
	for (const u8 *step = scope->path; step + 2 <= (const u8 *)scope + scope->length; step += 2) {
		const struct dmar_function *found = NULL;

		for (u32 i = 0; i < m->function_count && !found; i++) {
			const struct dmar_function *other = &m->functions[i];

			if (other->segment == segment && other->bus == bus && other->device == step[0] &&
			    other->function == step[1])
				found = other;
		}
		if (!found || (at && !at->secondary))
			return false;
		at = found;
		bus = at->secondary;
	}
	return at && (at == f || (scope->type == SCOPE_BRIDGE && at->secondary && f->bus >= at->secondary &&
				  f->bus <= at->subordinate));
}

/* Of a table whose structures are whole: a unit takes the function; NULL: one takes all of the segment that no other one names. */
static bool is_covered(const struct dmar_machine *m, const struct dmar_table *table, u16 segment,
		       const struct dmar_function *f)
{
	const struct structure *s;

	for (u32 at = sizeof(*table); (s = next(table, &at));) {
		const struct drhd *drhd = (const void *)s;

		if (s->type != TYPE_DRHD || drhd->segment != segment)
			continue;
		if (drhd->flags & DRHD_INCLUDE_PCI_ALL)
			return true;
		for (const u8 *from = drhd->scopes; f && from < (const u8 *)s + s->length;
		     from += ((const struct scope *)from)->length)
			if (scope_covers(m, segment, (const struct scope *)from, f))
				return true;
	}
	return false;
}

/* QEMU names all functions, instead of having a unit for all. */
static bool covers_segment(const struct dmar_machine *m, const struct dmar_table *table, u16 segment)
{
	bool any = false;

	if (is_covered(m, table, segment, NULL))
		return true;
	for (u32 i = 0; i < m->function_count; i++)
		if (m->functions[i].segment == segment) {
			if (!is_covered(m, table, segment, &m->functions[i]))
				return false;
			any = true;
		}
	return any && !m->more_functions;
}

static const char *check_segments(const struct dmar_machine *m, const struct dmar_table *table)
{
	const struct mcfg_table *mcfg = (const void *)m->mcfg;
	bool all = covers_segment(m, table, 0);

	if (mcfg &&
	    (mcfg->header.length < sizeof(*mcfg) || (mcfg->header.length - sizeof(*mcfg)) % sizeof(mcfg->entry[0])))
		return "the MCFG table is damaged. Update the firmware";
	for (u32 i = 0; mcfg && i < (mcfg->header.length - sizeof(*mcfg)) / sizeof(mcfg->entry[0]); i++)
		all = all && covers_segment(m, table, mcfg->entry[i].segment);
	if (!all)
		return "the DMAR table leaves devices of a PCI segment out. Update the firmware";
	return NULL;
}

/* Units that don't do what their capabilities say. */
static const char *known_defect(const struct dmar_machine *m)
{
	/* 4 Series and Mobile 4 Series: they need write-buffer flushes that they don't report; the graphics unit hangs. */
	static const u16 series_4[] = { 0x2a40, 0x2e00, 0x2e10, 0x2e20, 0x2e30, 0x2e40, 0x2e90 };
	/* Arrandale and Clarkdale: an invalidation hangs unless the graphics device is idle. */
	static const u16 ironlake[] = { 0x0040, 0x0044, 0x0046, 0x0062, 0x006a };

	if (m->hypervisor)
		return NULL;
	for (unsigned i = 0; i < ARRAY_SIZE(series_4); i++)
		if (m->host_bridge == PCI_ID(0x8086, series_4[i]))
			return "this chipset's VT-d has known defects (4 Series)";
	for (unsigned i = 0; i < ARRAY_SIZE(ironlake); i++)
		if (m->host_bridge == PCI_ID(0x8086, ironlake[i]))
			return "this chipset's VT-d has known defects (Arrandale, Clarkdale)";
	/* They report large pages but walk them as small ones, and fail if that changes while a request is under way. */
	if ((m->cpu & CPU_MODEL_MASK) == CPU_SANDY_BRIDGE || (m->cpu & CPU_MODEL_MASK) == CPU_SANDY_BRIDGE_E)
		return "this CPU's VT-d has known defects (Sandy Bridge)";
	/* Broadwell's graphics device, 1602h to 163eh, works with translation only in part. */
	if (m->graphics >> 22 == 0x1600 >> 6)
		return "this CPU's VT-d has known defects (graphics of Broadwell)";
	return NULL;
}

/* Why the units can't be switched on; NULL: they can. */
static const char *find_units(const struct dmar_machine *m, struct dmar_choice *choice, bool *graphics)
{
	const struct dmar_table *table = (const void *)m->dmar;
	const char *wrong;
	u8 sum = 0;

	if (m->wanted == CONF_DMA_OFF)
		return "dma = off in hyperps.conf";
	if (!table)
		return "no DMAR table (no VT-d, or switched off in the firmware setup)";
	choice->has_fault = true;
	for (u32 i = 0; i < table->header.length; i++)
		sum += ((const u8 *)table)[i];
	if (table->header.length < sizeof(*table) || sum)
		return "the DMAR table has a wrong length or checksum. Update the firmware";
	if (m->fixed)
		return "the DMAR table can't be hidden from the host: it lies in read-only memory";
	wrong = read_structures(m, table, choice, graphics);
	if (!wrong)
		wrong = check_segments(m, table);
	if (wrong)
		return wrong;
	if (choice->largest_leaf < m->largest_leaf && m->address_bits > SMALL_ADDRESS_BITS)
		return "a VT-d unit lacks 1 GiB pages, and the CPU has more than 40 address bits";
	if (m->largest_apic_id >= APIC_ID_LIMIT || m->x2apic_locked)
		return "the CPUs need interrupt remapping (x2APIC is locked, or an APIC ID is 255 or more)";
	wrong = known_defect(m);
	if (wrong)
		return wrong;
	choice->has_fault = false;
	return NULL;
}

/* Each segment has a unit that takes what no other one names, also what is not seen now. */
static bool includes_all(const struct dmar_machine *m)
{
	const struct dmar_table *table = (const void *)m->dmar;
	const struct mcfg_table *mcfg = (const void *)m->mcfg;
	bool all = is_covered(m, table, 0, NULL);

	for (u32 i = 0; i < m->function_count; i++)
		all = all && is_covered(m, table, m->functions[i].segment, NULL);
	for (u32 i = 0; mcfg && i < (mcfg->header.length - sizeof(*mcfg)) / sizeof(mcfg->entry[0]); i++)
		all = all && is_covered(m, table, mcfg->entry[i].segment, NULL);
	return all;
}

/* What is true once the units are on, behind "DMA is held back". *good: no known device goes around them. */
static const char *describe(const struct dmar_machine *m, bool graphics, bool *good)
{
	*good = false;
	if (m->hypervisor)
		return " only as far as the hypervisor below does: its disks and own devices may go around the units";
	if (!includes_all(m))
		return " only in part: no VT-d unit takes all devices of a PCI segment. Update the firmware";
	if (m->graphics && !graphics)
		return " only in part: no VT-d unit names the graphics device. Update the firmware";
	if (m->cxl)
		return " only in part: the machine has CXL, which VT-d does not hold back";
	*good = true;
	return " unless the chipset is reprogrammed";
}

static void append(struct boot_dma *dma, const char *text)
{
	size_t used = 0;

	while (dma->text[used])
		used++;
	while (*text && used < sizeof(dma->text) - 1)
		dma->text[used++] = *text++;
	dma->text[used] = 0;
}

void dmar_choose(const struct dmar_machine *m, struct dmar_choice *choice)
{
	struct boot_dma *dma = &choice->dma;
	bool graphics = false;
	const char *wrong;

	*choice = (struct dmar_choice){ .largest_leaf = m->largest_leaf };
	wrong = find_units(m, choice, &graphics);
	if (wrong) {
		*choice = (struct dmar_choice){ .largest_leaf = m->largest_leaf,
						.reason = wrong,
						.has_fault = choice->has_fault };
		append(dma, "DMA is not held back: ");
		append(dma, wrong);
	} else {
		append(dma, "DMA is held back");
		append(dma, describe(m, graphics, &dma->held_back));
	}
	dma->required = m->wanted == CONF_DMA_REQUIRE;
	dma->text_level = dma->held_back ? 2 : 1;
}
