// SPDX-License-Identifier: MIT
#include "monitor.h"
#include "page_pool.h"

struct monitor monitor;

hpa_t hpa_of(const void *object)
{
	return page_pool_hpa(&monitor.pool, object);
}

u64 monitor_time(void)
{
	return rdtsc() - this_cpu()->tsc_written;
}

void delay_us(u64 microseconds)
{
	u64 start = rdtsc(), ticks = monitor.boot->tsc_hz / 1000000 * microseconds;

	while (rdtsc() - start < ticks)
		pause();
}
