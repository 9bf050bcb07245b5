/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages that Linux has and the monitor does not count as the host's: no MTRR made them write-back at the boot, or they were
 * not there then. No VM can have them, and Linux, given one back, would offer it again at once.
 */
#ifndef ASIDE_H
#define ASIDE_H

#include <linux/list.h>
#include <linux/mm_types.h>

/* Whether all of them are the host's. */
bool aside_is_hosts(struct page *page, unsigned int order);

/*
 * Puts what Linux would give next on the list, as long as that is not the host's. Whether it found something that is, which
 * is free then. It leaves Linux an eighth of the memory. The list's owner has it locked.
 */
bool aside_keep(struct list_head *list, unsigned int order);

/* Says in the kernel's log, once, that no page is left that a VM could have. */
void aside_complain(void);

void aside_give_back(struct list_head *list);

#endif
