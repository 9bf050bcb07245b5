// SPDX-License-Identifier: MIT
/*
 * Taking the other CPUs. The boot CPU does it once, when the firmware's boot services have ended: from then on the
 * firmware starts no CPU any more, and the host has not started one yet. One broadcast reaches also CPUs that the
 * firmware did not list.
 */
#include "address_space.h"
#include "apic.h"
#include "flush.h"
#include "host_cpu.h"
#include "iommu.h"
#include "memory_service.h"
#include "monitor.h"
#include "stop.h"

#define ARRIVAL_LIMIT_US 1000000
#define ENTRY_LIMIT_US 1000000
#define UNLISTED_WAIT_US 5000

static volatile u32 may_enter;

void wait_for_permission_to_enter(void)
{
	/*
	 * Nobody enters VMX before all have arrived: a late second SIPI would be an exit there, and start the host's
	 * code.
	 */
	while (!may_enter)
		pause();
}

static volatile struct trampoline_data *const trampoline = (volatile void *)MONITOR_TRAMPOLINE_DATA_VA;

/* CPUs that have passed the trampoline, without the boot CPU. */
static u32 arrived(void)
{
	return trampoline->next_slot - 1;
}

static bool wait_until_arrived(u32 expected, u64 limit_us)
{
	for (u64 i = 0; i < limit_us / 10 && arrived() < expected; i++)
		delay_us(10);
	return arrived() >= expected;
}

static u32 in_vmx(void)
{
	u32 n = 0;

	FOR_EACH_CPU (cpu)
		n += cpu->state == HYPERPS_CPU_STATE_IN_VMX;
	return n;
}

/* All CPUs but this one wait for a SIPI, and flush before they run host code. */
static void hold_devices_back(void)
{
	bool hidden = true;

	for (const u64 *unit = monitor.boot->dma.unit; unit < monitor.boot->dma.unit + BOOT_IOMMUS && *unit; unit++)
		hidden = hidden && memory_hide(HPA(ALIGN_DOWN(*unit, PAGE_SIZE)), *unit % PAGE_SIZE);
	flush_this_cpu(this_cpu());
	if (!hidden)
		log_line(LOG_WARNING, "no room to split the host view. Set memory in hyperps.conf to more");
	if (hidden && iommu_start()) {
		log_line(monitor.boot->dma.text_level, "%s", monitor.boot->dma.text);
		return;
	}
	if (monitor.boot->dma.required)
		panic("devices can't be held back (dma = require in hyperps.conf)");
	iommu_stop();
	log_line(LOG_WARNING, "DMA is not held back: the DMA-remapping units could not be switched on");
}

s64 take_other_cpus(void)
{
	u32 startup = APIC_STARTUP | (u32)(monitor.boot->low_base >> PAGE_SHIFT);
	u32 expected = monitor.boot->cpu_count - 1, listed = monitor.boot->cpus_listed - 1, started, without_slot;

	if (monitor.boot_services_ended || this_cpu()->slot != 0)
		return HYPERPS_ERROR_PERMISSION;
	monitor.boot_services_ended = true;
	if (rdmsr(MSR_IA32_APIC_BASE) & APIC_BASE_ENABLE) {
		apic_send_to_others(APIC_INIT);
		delay_us(10000);
		apic_send_to_others(startup);
		if (!wait_until_arrived(listed, 10000)) {
			apic_send_to_others(startup);
			wait_until_arrived(listed, ARRIVAL_LIMIT_US);
		}
		/*
		 * One that is not listed has had all that time, too; if every listed one came at once, grant it a
		 * little.
		 */
		delay_us(UNLISTED_WAIT_US);
	}
	started = arrived();
	__atomic_store_n(&may_enter, 1, __ATOMIC_SEQ_CST);
	for (u64 i = 0; i < ENTRY_LIMIT_US / 10 && in_vmx() < 1 + started - trampoline->excess; i++)
		delay_us(10);

	hold_devices_back();
	/* The trampoline has done its work: the monitor's tables keep nothing below 1 MiB. */
	without_slot = trampoline->excess;
	unmap_own_page((void *)trampoline);
	if (started > listed)
		log_line(LOG_WARNING, "%u CPUs found that the firmware does not list", started - listed);
	if (started < listed && started >= expected)
		log_line(LOG_WARNING, "%u listed CPUs do not exist: neither the firmware found them nor the monitor",
			 listed - started);
	if (without_slot || in_vmx() < 1 + (started > expected ? started : expected)) {
		log_line(LOG_ERROR,
			 "%u of %u listed CPUs are de-privileged, %u more are without a slot. Switch the missing ones "
			 "off in the firmware setup, or update it",
			 in_vmx(), monitor.boot->cpu_count, without_slot);
		/* The host could start them, outside VMX. */
		if (!monitor.boot->unfit_continue)
			panic("not every CPU could be taken (unfit = stop in hyperps.conf)");
		return HYPERPS_ERROR_NO_CPU;
	}
	monitor.other_cpus_taken = true;
	log_line(LOG_INFO, "%u CPUs de-privileged", in_vmx());
	return HYPERPS_OK;
}
