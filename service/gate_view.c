// SPDX-License-Identifier: MIT
/* The gate's views: tables and pages, no VMCS. Every rule here is one of docs/gate.md. */
#include "gate_view.h"
#include "address_space.h"
#include "gate_page.h"
#include "memory_service.h"
#include "monitor.h"
#include "stop.h"

/* Entries of page tables and EPT. Nothing is global, large or a user's; accessed is set, dirty on the list only. */
#define PTE_CODE (BIT(0) | BIT(5))
#define EPT_IGNORE_PAT BIT(6)
#define EPT_LEAF ((u64)MEMORY_TYPE_WB << EPT_MEMORY_TYPE_SHIFT | EPT_IGNORE_PAT)

#define PML4_SHIFT 39
#define CR3_LIMIT BIT(32)

extern const u8 gate_landing[], gate_landing_end[], gate_landing_frame[], gate_landing_serve[];

u32 gate_state;
/* What every monitor view maps besides the monitor's own region. Under mm_lock. */
static struct ept donated;

static struct gate_area *area_of(struct cpu *cpu)
{
	return &cpu_area_of(cpu)->gate;
}

/* Of an object in the monitor's own memory. */
static u64 address_of(const void *object)
{
	return hpa_of(object).value;
}

/*
 * A page of the pool whose address is safe as an immediate of the airlock's code, whatever CR3 will be. The others go
 * back to the pool, by way of its quarantine.
 */
static u64 *take_root(u8 *scratch)
{
	u64 *page;

	while ((page = page_pool_take(&monitor.pool)) && !gate_root_is_safe(address_of(page), scratch))
		page_pool_put(&monitor.pool, address_of(page) >> PAGE_SHIFT);
	return page;
}

void gate_init(void)
{
	gate_state = monitor.boot->gate;
	if (gate_state != HYPERPS_GATE_OFFERED)
		return;
	CHECK(ept_init(&donated, &monitor.pool, 4, 2));
	FOR_EACH_CPU (cpu) {
		cpu->gate.monitor_root = take_root(area_of(cpu)->airlock);
		if (!cpu->gate.monitor_root) {
			gate_state = HYPERPS_GATE_MEMORY;
			log_line(LOG_WARNING, "but the gate is not offered: no safe page for CPU slot %u", cpu->slot);
			return;
		}
	}
}

static u64 *next_table(struct cpu *cpu)
{
	CHECK(cpu->gate.tables_used < GATE_TABLES);
	return area_of(cpu)->table[cpu->gate.tables_used++];
}

static u64 *table_at(u64 entry)
{
	return page_pool_linear(&monitor.pool, HPA(entry & EPT_ADDRESS));
}

/* Maps 4 KiB, or 2 MiB (level 2), in page tables or EPT under root; makes the tables on the way. */
static void map(struct cpu *cpu, u64 *root, unsigned levels, u64 address, unsigned leaf_level, u64 leaf, u64 table_bits)
{
	u64 *table = root;

	for (unsigned level = levels; level > leaf_level; level--) {
		u64 *entry = &table[(address >> (PAGE_SHIFT + 9 * (level - 1))) % 512];

		if (!*entry)
			*entry = address_of(next_table(cpu)) | table_bits;
		table = table_at(*entry);
	}
	table[(address >> (PAGE_SHIFT + 9 * (leaf_level - 1))) % 512] = leaf;
}

static void map_ept(struct cpu *cpu, u64 *root, u64 gpa, u64 hpa, u64 permissions)
{
	map(cpu, root, 4, gpa, 1, hpa | permissions | EPT_LEAF, EPT_RWX);
}

/*
 * The airlock: the code, which can't be read; the list; and the tables that map these two, read-only. `top` is the
 * guest-physical address in CR3, which means the host's own table in the host view.
 */
static void build_airlock(struct cpu *cpu, unsigned levels, u64 top)
{
	struct gate_area *area = area_of(cpu);
	u64 *view = next_table(cpu), *tables = next_table(cpu);
	u32 first = cpu->gate.tables_used, end;

	map(cpu, tables, levels, cpu->gate.linear, 1, address_of(area->airlock) | PTE_CODE, PTE_TABLE);
	map(cpu, tables, levels, gate_list_linear(cpu->gate.linear), 1, address_of(area->list) | PTE_RW, PTE_TABLE);
	end = cpu->gate.tables_used;

	map_ept(cpu, view, address_of(area->airlock), address_of(area->airlock), EPT_EXECUTE);
	map_ept(cpu, view, address_of(area->list), address_of(area->list), EPT_READ | EPT_WRITE);
	map_ept(cpu, view, top, address_of(tables), EPT_READ);
	for (u32 i = first; i < end; i++)
		map_ept(cpu, view, address_of(area->table[i]), address_of(area->table[i]), EPT_READ);
	cpu->gate.airlock_eptp = address_of(view) | EPTP_FLAGS(4);
}

/* Lets the CPU's view share the tables of `donated`, from the highest level down to where it has none of its own. */
static void share_donated(struct cpu *cpu, u64 gpa)
{
	u64 *own = cpu->gate.monitor_root, *shared = donated.root;

	for (unsigned level = 4; level > 1; level--) {
		u64 index = (gpa >> (PAGE_SHIFT + 9 * (level - 1))) % 512;

		if (!own[index])
			own[index] = shared[index];
		if (own[index] == shared[index])
			return;
		own = table_at(own[index]);
		shared = table_at(shared[index]);
	}
}

static void add_donated(struct cpu *cpu)
{
	u64 budget = ~0ULL;
	gpa_t gpa = GPA(0);

	while (gpa.value < PAGE_MARK_LIMIT) {
		bool found;

		/* Also stops, without a find, where another table begins. */
		gpa = ept_next(&donated, gpa, &budget, &found);
		if (!found)
			continue;
		share_donated(cpu, gpa.value);
		gpa.value += PAGE_SIZE_2M;
	}
}

bool gate_uses(hpa_t hpa)
{
	FOR_EACH_CPU (cpu)
		if (cpu->gate.top - hpa.value < PAGE_SIZE_2M && cpu->gate.top)
			return true;
	return false;
}

void gate_add_memory(hpa_t hpa)
{
	const u64 *final = table_at(monitor.boot->final_cr3);
	u64 index = ((MONITOR_DIRECT_VA + hpa.value) >> PML4_SHIFT) % 512, *entry;

	if (gate_state != HYPERPS_GATE_OFFERED)
		return;
	entry = ept_entry(&donated, GPA(hpa.value), 2);
	CHECK(entry && !*entry);
	ept_set_entry(&donated, entry, 2, hpa.value | EPT_LARGE | EPT_READ | EPT_WRITE | EPT_LEAF);
	FOR_EACH_CPU (cpu) {
		if (!cpu->gate.top)
			continue;
		cpu->gate.monitor_top[index] = final[index];
		share_donated(cpu, hpa.value);
	}
}

/* What the monitor view allows for a page of the monitor's memory at this linear address. */
static u64 permissions_of(struct cpu *cpu, u64 linear)
{
	const struct image_header *image = (const struct image_header *)MONITOR_VA;
	u64 offset = linear - MONITOR_VA;

	if (offset < image->text_end || linear == (u64)area_of(cpu)->landing)
		return EPT_READ | EPT_EXECUTE;
	return offset < image->rodata_end ? EPT_READ : EPT_READ | EPT_WRITE;
}

/* The monitor view: the monitor's memory at its own addresses, and the landing in the place of the airlock's code. */
static void build_monitor_view(struct cpu *cpu, unsigned levels, u64 top)
{
	const struct boot_info *boot = monitor.boot;
	struct gate_area *area = area_of(cpu);
	u64 *view = cpu->gate.monitor_root, *tables = next_table(cpu);
	const u64 *final = table_at(boot->final_cr3);

	for (unsigned i = 0; i < 512; i++)
		view[i] = 0;
	map(cpu, tables, levels, cpu->gate.linear, 1, address_of(area->landing) | PTE_CODE, PTE_TABLE);
	for (u64 linear = MONITOR_DIRECT_VA; linear <= MONITOR_VA; linear += BIT(PML4_SHIFT))
		map(cpu, tables, levels, linear, 4, final[(linear >> PML4_SHIFT) % 512], PTE_TABLE);
	cpu->gate.monitor_top = levels == 4 ? tables : table_at(tables[511]);
	/*
	 * Writable like all tables in this view, although nothing writes: a hypervisor below us that emulates an instruction
	 * here may take a walk of page tables for writes to them, as KVM does.
	 */
	map_ept(cpu, view, top, address_of(tables), EPT_READ | EPT_WRITE);
	for (u64 chunk = 0; chunk < boot->region_size; chunk += PAGE_SIZE_2M) {
		u64 linear = MONITOR_VA + chunk, hpa = boot->region_base + chunk;

		/* Small pages where the image or this CPU's landing is. */
		if (chunk && (linear ^ (u64)area->landing) >> 21) {
			map(cpu, view, 4, hpa, 2, hpa | EPT_LARGE | EPT_READ | EPT_WRITE | EPT_LEAF, EPT_RWX);
			continue;
		}
		for (u64 page = 0; page < PAGE_SIZE_2M; page += PAGE_SIZE)
			if (linear + page != (u64)area->stack_guard)
				map_ept(cpu, view, hpa + page, hpa + page, permissions_of(cpu, linear + page));
	}
	add_donated(cpu);
	cpu->gate.monitor_eptp = address_of(view) | EPTP_FLAGS(4);
}

static void build_landing(struct cpu *cpu)
{
	struct gate_area *area = area_of(cpu);
	u8 *code = area->landing + GATE_LANDING;
	u64 frame = (u64)&area->frame, serve = (u64)gate_serve;

	__builtin_memset(area->landing, 0xcc, PAGE_SIZE);
	__builtin_memcpy(code, gate_landing, (u64)(gate_landing_end - gate_landing));
	__builtin_memcpy(code + (gate_landing_frame - gate_landing), &frame, sizeof(frame));
	__builtin_memcpy(code + (gate_landing_serve - gate_landing), &serve, sizeof(serve));
	area->frame = (struct gate_frame){ .host_rsp = 0 };
}

void gate_reset_list(struct cpu *cpu)
{
	u64 *list = area_of(cpu)->list;

	for (unsigned i = 0; i < 512; i++)
		list[i] = 0;
	list[0] = monitor.host_eptp;
	list[1] = cpu->gate.airlock_eptp;
}

/* Upper half, and in no PML4 slot of the monitor's own tables. */
static bool linear_is_free(u64 linear, unsigned levels)
{
	return (s64)linear >> (PAGE_SHIFT + 9 * levels - 1) == -1 &&
	       (linear < MONITOR_DIRECT_VA || linear >= MONITOR_VA + BIT(PML4_SHIFT));
}

bool gate_views_fit(u64 linear, u64 top, unsigned levels)
{
	return linear % PAGE_SIZE == 0 && linear_is_free(linear, levels) &&
	       linear_is_free(ALIGN_DOWN(gate_list_linear(linear), PAGE_SIZE), levels) && top && top % PAGE_SIZE == 0 &&
	       top < CR3_LIMIT && page_marks_are(&monitor.marks, top >> PAGE_SHIFT, 1, HYPERPS_FRAME_HOST);
}

u64 gate_views_build(struct cpu *cpu, u64 linear, u64 top, unsigned levels)
{
	struct gate_area *area = area_of(cpu);
	u64 cr3 = top | GATE_PCID;

	__builtin_memset(area->table, 0, sizeof(area->table));
	cpu->gate.tables_used = 0;
	cpu->gate.linear = linear;
	build_airlock(cpu, levels, top);
	build_monitor_view(cpu, levels, top);
	build_landing(cpu);
	gate_reset_list(cpu);
	gate_page_fill(area->airlock, (u32)cr3, (u32)cpu->gate.monitor_eptp);
	return cr3;
}

bool gate_views_are_safe(struct cpu *cpu, u64 cr3)
{
	return gate_page_is_safe(area_of(cpu)->airlock, (u32)cr3, (u32)cpu->gate.monitor_eptp);
}
