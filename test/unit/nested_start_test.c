// SPDX-License-Identifier: MIT
/* nested/start.c: all of kvm_pool is mapped, its shares and the pages that each CPU gets lie apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "address_space.h"
#include "log.h"
#include "memory_service.h"
#include "nested.h"
#include "page_pool.h"
#include "stop.h"

#define CPUS 3
#define POOL_PAGES (CPUS * 8) /* what the loader reserves: fewer would be too few, as more would be taken */
#define KVM_POOL (5ULL << 21)
#define KVM_POOL_SIZE (2ULL << 21) /* 1024 frames are not a multiple of the CPUs */

struct monitor monitor;
static struct boot_info boot;
static struct cpu_area *areas;
static u64 mark[POOL_PAGES], entry[8];
static const char *lacks;
static char line[200];
static u32 line_level;
static struct mm mm;
static bool locked;

const char *nested_capability_init(void)
{
	return lacks;
}

volatile u64 *own_page_entry(u64 linear, unsigned last, bool make)
{
	assert_true(locked && make && last == 21 && linear >= MONITOR_DIRECT_VA);
	assert_true(linear - MONITOR_DIRECT_VA < sizeof(entry) / sizeof(entry[0]) << 21);
	return &entry[(linear - MONITOR_DIRECT_VA) >> 21];
}

struct mm *memory_lock(void)
{
	locked = true;
	return &mm;
}

void memory_unlock(void)
{
	locked = false;
}

void shadow_add(struct mm *to, struct shadow *shadow)
{
	assert_true(locked && to == &mm);
	shadow->next = mm.shadows;
	mm.shadows = shadow;
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list arguments;

	line_level = level;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
}

void nested_shadow_init(void)
{
}

void stop_other_cpus(void)
{
}

void panic_stop(void)
{
	fail_msg("panic: %s", line);
	abort();
}

static int start(void **state)
{
	(void)state;
	areas = aligned_alloc(PAGE_SIZE, CPUS * sizeof(*areas));
	memset(areas, 0, CPUS * sizeof(*areas));
	memset(entry, 0, sizeof(entry));
	boot = (struct boot_info){ .cpu_slots = CPUS,
				   .cpu_area = (u64)areas - MONITOR_VA,
				   .kvm_pool_base = KVM_POOL,
				   .kvm_pool_size = KVM_POOL_SIZE };
	monitor = (struct monitor){ .boot = &boot, .marks = { .mark = mark, .frames = POOL_PAGES } };
	monitor.pool = (struct page_pool){ .linear = aligned_alloc(PAGE_SIZE, POOL_PAGES * PAGE_SIZE),
					   .size = POOL_PAGES * PAGE_SIZE,
					   .direct = (u8 *)MONITOR_DIRECT_VA,
					   .marks = &monitor.marks };
	mm = (struct mm){ .shadows = NULL };
	lacks = NULL;
	return 0;
}

static int end(void **state)
{
	(void)state;
	free(areas);
	free(monitor.pool.linear);
	return 0;
}

/* Notes that a CPU has a page, at its linear address: nobody else may. */
static void take(const void *page)
{
	static const void *taken[CPUS * 8];
	static size_t count;

	assert_int_equal((u64)page % PAGE_SIZE, 0);
	for (size_t i = 0; i < count; i++)
		assert_ptr_not_equal(page, taken[i]);
	taken[count++] = page;
}

static void shares(void **state)
{
	u64 next = MONITOR_DIRECT_VA + KVM_POOL;
	struct shadow *shadow = mm.shadows;

	(void)state;
	nested_init();
	assert_true(monitor.kvm && !locked);
	assert_null(monitor.kvm_reason);
	assert_string_equal(line, "VMX is offered to the host: 4 MiB for its VMs at a00000");
	for (u64 i = 0; i < 8; i++)
		assert_int_equal(entry[i], i == 5 || i == 6 ? i << 21 | PTE_RW | PTE_LARGE : 0);
	shadow = mm.shadows;
	FOR_EACH_CPU (cpu) {
		struct nested *n = cpu->nested;

		take(n);
		take(n->msr_bitmap);
		for (unsigned i = 0; i < PAGE_SIZE / sizeof(u64); i++)
			assert_true(n->msr_bitmap[i] == ~0ULL);
		take(n->vmcs02);
		for (unsigned i = 0; i < SHADOW_ROOTS; i++) {
			take(n->shadow.root[i]);
			/* Of the region, which the monitor view has, too; and cleared before the bitmap is. */
			assert_true(n->shadow.root[i] > n->msr_bitmap);
			assert_true((u8 *)n->shadow.root[i] < monitor.pool.linear + POOL_PAGES * PAGE_SIZE);
		}
		assert_int_equal((u64)n->page, next);
		assert_int_equal((u64)n->second, next + PAGE_SIZE);
		assert_int_equal((u64)n->shadow_vmcs, next + 2 * PAGE_SIZE);
		assert_int_equal(n->shadow_vmcs_hpa.value, next + 2 * PAGE_SIZE - MONITOR_DIRECT_VA);
		assert_int_equal((u64)n->shadow.tables, next + 3 * PAGE_SIZE);
		assert_int_equal(n->shadow.tables_hpa.value, next + 3 * PAGE_SIZE - MONITOR_DIRECT_VA);
		assert_int_equal(n->shadow.count, 1024 / CPUS - 3);
		assert_int_equal(n->shadow.used, 0);
		next += 1024 / CPUS * PAGE_SIZE;
		assert_true(n->state == NESTED_OFF && n->current == NO_ADDRESS && n->vmxon_region == NO_ADDRESS &&
			    n->last_violation == NO_ADDRESS);
	}
	for (unsigned i = CPUS; i-- > 0; shadow = shadow->next)
		assert_ptr_equal(shadow, &areas[i].cpu.nested->shadow);
	assert_null(shadow);
}

static void assert_off(const char *says, u32 level)
{
	nested_init();
	assert_false(monitor.kvm || locked);
	assert_string_equal(line, says);
	assert_int_equal(line_level, level);
	for (unsigned i = 0; i < CPUS; i++)
		assert_null(areas[i].cpu.nested);
	assert_null(mm.shadows);
	for (u64 i = 0; i < 8; i++)
		assert_int_equal(entry[i], 0);
	assert_int_equal(monitor.pool.used, 0);
}

static void reasons(void **state)
{
	(void)state;
	lacks = "the CPU lacks X";
	assert_off("VMX is not offered to the host: the CPU lacks X", LOG_WARNING);
	assert_string_equal(monitor.kvm_reason, lacks);
	boot.kvm_pool_base = boot.kvm_pool_size = 0;
	strcpy(boot.kvm_text, "kvm = off in hyperps.conf");
	boot.kvm_level = LOG_INFO;
	assert_off("VMX is not offered to the host: kvm = off in hyperps.conf", LOG_INFO);
	assert_string_equal(monitor.kvm_reason, boot.kvm_text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shares, start, end),
		cmocka_unit_test_setup_teardown(reasons, start, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
