// SPDX-License-Identifier: MIT
/* Start-up of the monitor, in order. */
#include "address_space.h"
#include "capabilities.h"
#include "cpu_features.h"
#include "flush.h"
#include "gate_view.h"
#include "host_cpu.h"
#include "iommu.h"
#include "memory_service.h"
#include "monitor.h"
#include "msr_policy.h"
#include "nested.h"
#include "page_pool.h"
#include "stop.h"
#include "vcpu.h"
#include "vmcs.h"

void cpu_start(u32 slot, const struct boot_info *boot, struct cpu_area *area) __attribute__((noreturn));

static void start_monitor(struct cpu *cpu, const struct boot_info *boot)
{
	log_line(LOG_INFO, "HyperPS %s: %lu MiB of monitor memory at %lx, %u CPUs listed", VERSION,
		 boot->region_size >> 20, boot->region_base, boot->cpu_count);
	log_line(LOG_INFO, "page marks: %lu frames, %lu of the host's", boot->marks.frames,
		 boot->marks.count[HYPERPS_FRAME_HOST]);
	log_line(LOG_INFO, "low pages at %lx, %lu KiB", boot->low_base, boot->low_size >> 10);
	log_line(LOG_INFO, "host view: %u bits, %lu pages of 1 GiB, %lu of 2 MiB, %lu of 4 KiB",
		 cpu->capabilities.physical_address_bits, boot->host_view.leaves[3], boot->host_view.leaves[2],
		 boot->host_view.leaves[1]);
	monitor.host_eptp = ept_pointer(&monitor.host_view);
	monitor.flush_l1 = !monitor.boot->capabilities.feature[HYPERPS_FEATURE_RDCL_NO] &&
			   (cpuid_or_zero(7).edx & BIT(CPUID_L1D_FLUSH));
	monitor.msr_bitmap = page_pool_take(&monitor.pool);
	CHECK(monitor.msr_bitmap);
	msr_fill_bitmap(monitor.msr_bitmap, host_msr_access);
	port_init();
	memory_init();
	nested_init();
	iommu_init();
	guest_init();
	log_line(boot->gate_level, "%s", boot->gate_text);
	gate_init();
}

/*
 * Every CPU comes here from entry.asm: the boot CPU when the loader starts the monitor, each other one when
 * take_other_cpus() starts it. boot and area are the same objects for all.
 */
void cpu_start(u32 slot, const struct boot_info *boot, struct cpu_area *area)
{
	struct cpu *cpu = &area->cpu;
	const char *difference;

	if (slot == 0) {
		monitor.boot = boot;
		monitor.marks = boot->marks;
		monitor.pool = boot->pool;
		monitor.pool.marks = &monitor.marks;
		monitor.host_view = boot->host_view;
		monitor.host_view.pool = &monitor.pool;
	}
	cpu->slot = slot;
	cpu->apic_id = cpuid_or_zero(0xb).ebx ? cpuid(0xb, 0).edx : cpuid(1, 0).ebx >> 24;
	cpu_load_tables(cpu);
	if (slot == 0)
		log_init(boot);
	CHECK(boot->cpu_slots <= MONITOR_WINDOWS);
	window_init(cpu);
	CHECK(unmap_own_page(area->stack_guard) && unmap_own_page(area->nmi_stack_guard) &&
	      unmap_own_page(area->double_fault_stack_guard) && unmap_own_page(area->gate.stack_guard));
	cpu->capabilities = boot->capabilities;
	cpu->mtrr = boot->mtrr;

	vmx_read_features(&cpu->capabilities);
	if (slot == 0) {
		start_monitor(cpu, boot);
		vmx_switch_on(cpu);
		host_vmcs_init(cpu, &boot->boot_cpu);
	} else {
		wait_for_permission_to_enter();
		/* First: an INIT does not reach a CPU in VMX root, so one that is stopped there stays stopped. */
		vmx_switch_on(cpu);
		difference = vmx_compare_this_cpu(&boot->capabilities);
		if (!difference && monitor.kvm)
			difference = nested_compare_this_cpu();
		if (difference)
			panic("CPU with APIC ID %u differs from the boot CPU: %s", cpu->apic_id, difference);
		host_vmcs_init(cpu, NULL);
		flush_park(cpu);
	}
	cpu->state = HYPERPS_CPU_STATE_IN_VMX;
	host_launch();
}
