// SPDX-License-Identifier: MIT
/* What nested VMX has from the start: kvm_pool, and what each CPU slot gets of it and of the monitor's pool. */
#include "nested.h"
#include "address_space.h"
#include "log.h"
#include "memory_service.h"
#include "page_pool.h"
#include "stop.h"

#define OWN_PAGES 3 /* of a share: struct nested's page, second and shadow_vmcs */

/* Not by mm_map_donated(): the monitor view of the gate is to have nothing whose bytes L1 chooses. */
static void map_kvm_pool(u64 base, u64 size)
{
	for (u64 hpa = base; hpa < base + size; hpa += PAGE_SIZE_2M) {
		volatile u64 *entry = own_page_entry(MONITOR_DIRECT_VA + hpa, PTE_2M_SHIFT, true);

		CHECK(entry);
		/* Nothing was mapped there, so it needs no flush. */
		*entry = hpa | PTE_RW | PTE_LARGE;
	}
}

/* The loader has made room for as many as are taken here. */
static void *take_page(void)
{
	void *page = page_pool_take(&monitor.pool);

	CHECK(page);
	return page;
}

/* Memory is cleared in reverse order: the roots first, the bitmap, which holds back an L2 of a CPU that did not stop, last. */
static void start_cpu(struct cpu *cpu, struct mm *mm, hpa_t share, u64 pages)
{
	u64 *msr_bitmap = take_page();
	u8 *vmcs02 = take_page();
	struct nested *n = take_page();

	_Static_assert(sizeof(*n) <= PAGE_SIZE, "struct nested has one page");
	__builtin_memset(msr_bitmap, 0xff, PAGE_SIZE);
	*n = (struct nested){ .vmxon_region = NO_ADDRESS,
			      .current = NO_ADDRESS,
			      .last_violation = NO_ADDRESS,
			      .page = page_pool_linear(&monitor.pool, share),
			      .second = page_pool_linear(&monitor.pool, HPA(share.value + PAGE_SIZE)),
			      .msr_bitmap = msr_bitmap,
			      .vmcs02 = vmcs02,
			      .shadow_vmcs = page_pool_linear(&monitor.pool, HPA(share.value + 2 * PAGE_SIZE)),
			      .shadow_vmcs_hpa = HPA(share.value + 2 * PAGE_SIZE),
			      .shadow.tables_hpa = HPA(share.value + OWN_PAGES * PAGE_SIZE),
			      .shadow.count = pages - OWN_PAGES };
	n->shadow.tables = page_pool_linear(&monitor.pool, n->shadow.tables_hpa);
	for (unsigned i = 0; i < SHADOW_ROOTS; i++)
		n->shadow.root[i] = take_page();
	shadow_add(mm, &n->shadow);
	cpu->nested = n;
}

void nested_init(void)
{
	const struct boot_info *boot = monitor.boot;
	u64 pages = boot->kvm_pool_size / PAGE_SIZE / boot->cpu_slots;
	hpa_t share = HPA(boot->kvm_pool_base);
	u32 level = LOG_WARNING;
	struct mm *mm;

	if (boot->kvm_pool_size) {
		monitor.kvm_reason = nested_capability_init();
	} else {
		monitor.kvm_reason = boot->kvm_text;
		level = boot->kvm_level;
	}
	if (monitor.kvm_reason) {
		log_line(level, "VMX is not offered to the host: %s", monitor.kvm_reason);
		return;
	}
	mm = memory_lock();
	nested_shadow_init();
	map_kvm_pool(boot->kvm_pool_base, boot->kvm_pool_size);
	FOR_EACH_CPU (cpu) {
		start_cpu(cpu, mm, share, pages);
		share.value += pages * PAGE_SIZE;
	}
	memory_unlock();
	monitor.kvm = true;
	log_line(LOG_INFO, "VMX is offered to the host: %lu MiB for its VMs at %lx", boot->kvm_pool_size >> 20,
		 boot->kvm_pool_base);
}
