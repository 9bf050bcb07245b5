/* SPDX-License-Identifier: MIT */
/* The monitor's state that is one for all CPUs, and time. */
#ifndef MONITOR_H
#define MONITOR_H

#include "cpu.h"

/* Written by the boot CPU before any other CPU runs, then constant; but for the last two, and what mm_lock guards. */
struct monitor {
	const struct boot_info *boot;
	struct page_pool pool; /* what is free in the monitor's memory */
	struct page_marks marks;
	struct ept host_view;
	u64 host_eptp;
	bool flush_l1; /* the CPUs leak L1 data and can flush it: done after each call */
	u8 *msr_bitmap; /* shared by all CPUs: the policy is one */
	bool kvm; /* VMX is offered to the host; docs/nested.md */
	const char *kvm_reason; /* why not */
	bool boot_services_ended; /* the firmware's: from then on the host is not trusted any more */
	bool other_cpus_taken; /* every CPU is in VMX */
};

extern struct monitor monitor;

/* The CPU of a slot; slot < boot_info->cpu_slots. Its fields belong to that CPU; others only read the counters. */
static inline struct cpu *cpu_of_slot(u32 slot)
{
	return &((struct cpu_area *)(MONITOR_VA + monitor.boot->cpu_area))[slot].cpu;
}

/* The CPUs of all slots, also those in which there is none. */
#define FOR_EACH_CPU(cpu)                                                                                              \
	for (struct cpu *cpu = cpu_of_slot(0), *end_ = cpu_of_slot(monitor.boot->cpu_slots); cpu < end_;               \
	     cpu = &(cpu_area_of(cpu) + 1)->cpu)

/* Host-physical address of an object in the monitor's memory. */
hpa_t hpa_of(const void *object);

/* TSC ticks since some moment, whatever the host writes to the TSC. CPUs differ by a constant. */
u64 monitor_time(void);

/* Waits at least that many microseconds, by the TSC. */
void delay_us(u64 microseconds);

#endif
