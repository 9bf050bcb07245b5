// SPDX-License-Identifier: MIT
/* VM exits of the host, dispatched by reason. */
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"

/* What was said last to exit.asm: the VMCS that is current is entered by VMLAUNCH (true) or VMRESUME. */
bool exit_dispatch(struct registers *regs);
void entry_failed(void);

/* VM entry was a VMfail. Returns if it was VMCS02's, by what L1 wrote: L1 goes on. */
void entry_failed(void)
{
	struct cpu *cpu = this_cpu();

	if (!nested_entry_failed(cpu))
		panic("VM entry failed");
	if (cpu->latched)
		host_deliver_latched(cpu);
}

static void (*const handlers[])(struct registers *regs) = {
	[EXIT_EXCEPTION_OR_NMI] = exit_exception_or_nmi,
	[EXIT_TRIPLE_FAULT] = exit_triple_fault,
	[EXIT_INIT] = exit_init,
	[EXIT_SIPI] = exit_sipi,
	[EXIT_NMI_WINDOW] = exit_nmi_window,
	[EXIT_TASK_SWITCH] = exit_refused_instruction,
	[EXIT_CPUID] = exit_cpuid, /* what exit.asm did not answer */
	[EXIT_INVD] = exit_refused_instruction,
	[EXIT_VMCALL] = exit_refused_instruction, /* from elsewhere than the kernel */
	[EXIT_CR_ACCESS] = exit_cr_access,
	[EXIT_IO_INSTRUCTION] = exit_io,
	[EXIT_RDMSR] = exit_rdmsr,
	[EXIT_WRMSR] = exit_wrmsr,
	[EXIT_EPT_VIOLATION] = exit_ept_violation,
	[EXIT_XSETBV] = exit_xsetbv,
};

static bool is_vmx_instruction(u32 reason)
{
	return (reason >= EXIT_VMCLEAR && reason <= EXIT_VMXON) || reason == EXIT_INVEPT || reason == EXIT_INVVPID;
}

/* VMCS01 is current, and an exit of L2 may have changed its guest state. */
static void go_on_in_l1(struct cpu *cpu)
{
	if (cpu->nested->state == NESTED_ABORTED)
		end_machine("VMX abort");
	gate_check(cpu);
}

static void handle_exit(struct registers *regs, u32 reason)
{
	struct cpu *cpu = this_cpu();

	stop_if_asked();
	if (reason < ARRAY_SIZE(handlers) && handlers[reason]) {
		handlers[reason](regs);
	} else if (is_vmx_instruction(reason) && monitor.kvm && monitor.other_cpus_taken && cpu->nested) {
		nested_instruction(regs, reason);
		if (!cpu->timer_wakes)
			go_on_in_l1(cpu);
	} else if (is_undefined_instruction(reason)) {
		exit_refused_instruction(regs);
	} else {
		panic("unexpected VM exit, reason %u", reason);
	}
}

/* VMCS02 is current. */
static void dispatch_l2(struct cpu *cpu, struct registers *regs)
{
	stop_if_asked();
	switch (nested_exit(cpu, regs)) {
	case NESTED_RESUME:
		return;
	case NESTED_EVENT:
		exit_init(regs);
		break;
	case NESTED_SHOWN:
		go_on_in_l1(cpu);
		break;
	}
	if (cpu->latched)
		host_deliver_latched(cpu);
}

static void dispatch_host(struct cpu *cpu, struct registers *regs)
{
	u64 full_reason = vmread(VMCS_EXIT_REASON);
	u32 reason = full_reason & 0xffff;

	if (full_reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_MACHINE_CHECK)) {
		__atomic_fetch_or(&cpu->latched, LATCHED_MACHINE_CHECK, __ATOMIC_SEQ_CST);
		if (cpu->gate.on && vmread(VMCS_EPTP) != monitor.host_eptp)
			gate_wait_for_cr3(cpu);
		else
			host_deliver_latched(cpu);
		return;
	}
	/*
	 * Outside 64-bit mode the next fetch wraps at 4 GiB, but an event before it can leave RIP above, which VM entry refuses.
	 * It has changed nothing (SDM, "VM-Entry Failures During or After Loading Guest State"): once more.
	 */
	if (full_reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAILED_GUEST_STATE) && !is_64bit() &&
	    vmread(VMCS_GUEST_RIP) >> 32) {
		vmwrite(VMCS_GUEST_RIP, (u32)vmread(VMCS_GUEST_RIP));
		return;
	}
	if (full_reason & EXIT_REASON_ENTRY_FAILURE)
		panic("VM entry refused by the CPU: reason %u", reason);
	if (reason < HYPERPS_EXIT_REASONS)
		cpu->exits[reason]++;

	if (cpu->gate.on && vmread(VMCS_EPTP) != monitor.host_eptp && gate_exit(cpu, reason))
		return;
	/* First: it is what a host waits for. */
	if (reason == EXIT_VMCALL && is_64bit_ring0()) {
		cpu->exits_vmcall++;
		stop_if_asked();
		serve_call(regs);
		skip_instruction();
		if (monitor.flush_l1)
			wrmsr(MSR_IA32_FLUSH_CMD, FLUSH_CMD_L1D);
		if (__builtin_expect(!cpu->latched, true))
			return;
	} else {
		handle_exit(regs, reason);
	}
	/* The handler was VMLAUNCH's: VMCS02 is current, and sees to what waits by itself. */
	if (cpu->timer_wakes)
		return;
	if (cpu->latched & LATCHED_INIT) {
		__atomic_fetch_and(&cpu->latched, (u32)~LATCHED_INIT, __ATOMIC_SEQ_CST);
		exit_init(regs);
	}
	if (cpu->latched)
		host_deliver_latched(cpu);
}

bool exit_dispatch(struct registers *regs)
{
	struct cpu *cpu = this_cpu();

	if (__builtin_expect(cpu->timer_wakes, false))
		dispatch_l2(cpu, regs);
	else
		dispatch_host(cpu, regs);
	return cpu->timer_wakes && !cpu->nested->launched;
}
