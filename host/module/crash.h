/* SPDX-License-Identifier: GPL-2.0 */
#ifndef CRASH_H
#define CRASH_H

#include <linux/mm_types.h>

void hyperps_crash_start(void);

/* When no VM has memory any more. */
void hyperps_crash_stop(void);

/*
 * New pages that can be lent: alloc_pages() without those that another kernel reads before it knows of the monitor. NULL: no
 * memory.
 */
struct page *hyperps_alloc_pages(gfp_t flags, unsigned int order);

#endif
