/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between the kernels that the modules are built for, Linux 6.1 to 7.3: here each has the newest one's names. */
#ifndef COMPAT_H
#define COMPAT_H

/* For assembler: what objtool is told, ANNOTATE_UNRET_SAFE, ANNOTATE_NOENDBR, ENDBR. */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/ibt.h>
#include <asm/nospec-branch.h>

#ifndef __ASSEMBLER__
#include <linux/hrtimer.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/msr.h>
#include <asm/processor.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#else
#define rdmsrq rdmsrl
#define wrmsrq wrmsrl
#define rdmsrq_safe rdmsrl_safe
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void hrtimer_setup_on_stack(struct hrtimer *timer, enum hrtimer_restart (*function)(struct hrtimer *),
					  clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init_on_stack(timer, clock, mode);
	timer->function = function;
}
#endif

/* From 6.6 on apic_read() and its like are static calls, which modules can't make. */
static inline u32 local_apic_read(u32 reg)
{
	return apic->read(reg);
}

static inline void local_apic_write(u32 reg, u32 value)
{
	apic->write(reg, value);
}

static inline void local_apic_eoi(void)
{
	apic->write(APIC_EOI, APIC_EOI_ACK);
}

#endif
#endif
