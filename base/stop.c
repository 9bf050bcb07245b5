// SPDX-License-Identifier: MIT
/*
 * The end of the machine under this monitor: a panic, a reset, a sleep state or power-off. First every CPU stops for
 * good, then all that the host must not have is overwritten, so that nobody finds it in what stays in the RAM.
 */
#include "stop.h"
#include "apic.h"
#include "monitor.h"

#define STOP_LIMIT_US 100000
#define RESET_LIMIT_US 50000

static u32 stopper; /* slot + 1 of the CPU that has all others stop; 0: none */

void stop_this_cpu(void)
{
	this_cpu()->state = HYPERPS_CPU_STATE_NOT_STARTED;
	for (;;)
		cli_hlt();
}

bool this_cpu_stops_others(void)
{
	return stopper == this_cpu()->slot + 1;
}

void stop_if_asked(void)
{
	if (__builtin_expect(__atomic_load_n(&stopper, __ATOMIC_SEQ_CST) != 0, false) && !this_cpu_stops_others())
		stop_this_cpu();
}

/* A CPU that waits for a SIPI stops when one comes. */
static u32 still_running(void)
{
	u32 count = 0;

	FOR_EACH_CPU (cpu)
		count += cpu != this_cpu() && cpu->state == HYPERPS_CPU_STATE_IN_VMX && !cpu->parked;
	return count;
}

void stop_other_cpus(void)
{
	u32 none = 0, self = this_cpu()->slot + 1;

	if (!monitor.other_cpus_taken || this_cpu_stops_others())
		return;
	if (!__atomic_compare_exchange_n(&stopper, &none, self, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		stop_this_cpu();
	apic_send_to_others(APIC_NMI);
	for (u32 i = 0; i < STOP_LIMIT_US / 10 && still_running(); i++)
		delay_us(10);
	/* It runs host code at most: no guest runs longer than a slice, and none is entered any more. */
	if (still_running())
		log_line(LOG_WARNING, "%u CPUs do not answer, and may still run the host", still_running());
}

void clear_memory(const char *why)
{
	stop_other_cpus();
	log_line(LOG_INFO, "%s: the memory that is not the host's is cleared first", why);
	memory_clear();
}

void reset_machine(void)
{
	/* Time for a reset that is under way. Then the chipset's reset register: bit 2 has to go from 0 to 1. */
	delay_us(RESET_LIMIT_US);
	outb(0xcf9, 0x02);
	outb(0xcf9, 0x06);
	delay_us(RESET_LIMIT_US);
	outb(0x64, 0xfe);
	delay_us(RESET_LIMIT_US);
	panic("the machine did not reset");
}
