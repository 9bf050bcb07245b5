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
#include <linux/sched/signal.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/msr.h>
#include <asm/processor.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#else
#define rdmsrq rdmsrl
#define wrmsrq wrmsrl
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void hrtimer_setup_on_stack(struct hrtimer *timer, enum hrtimer_restart (*function)(struct hrtimer *),
					  clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init_on_stack(timer, clock, mode);
	timer->function = function;
}
#endif

/* What a task serves before a guest's turn, as before it goes back to user mode. Kernels without KVM don't export it. */
#if !IS_ENABLED(CONFIG_KVM_XFER_TO_GUEST_WORK) && !IS_ENABLED(CONFIG_VIRT_XFER_TO_GUEST_WORK)
static inline bool xfer_to_guest_mode_work_pending(void)
{
	return need_resched() || signal_pending(current);
}

static inline int xfer_to_guest_mode_handle_work(void)
{
	cond_resched();
	return signal_pending(current) ? -EINTR : 0;
}
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
#include <linux/entry-virt.h>
#else
#include <linux/entry-kvm.h>
#define xfer_to_guest_mode_handle_work() xfer_to_guest_mode_handle_work(NULL)
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
