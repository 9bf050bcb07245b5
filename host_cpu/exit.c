// SPDX-License-Identifier: MIT
/* VM exits of the host, dispatched by reason. */
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "monitor.h"
#include "stop.h"

void exit_dispatch(struct registers *regs);
void entry_failed(void) __attribute__((noreturn));

void entry_failed(void)
{
	panic("VM entry failed");
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

static void handle_exit(struct registers *regs, u32 reason)
{
	stop_if_asked();
	if (reason < ARRAY_SIZE(handlers) && handlers[reason])
		handlers[reason](regs);
	else if (is_undefined_instruction(reason))
		exit_refused_instruction(regs);
	else
		panic("unexpected VM exit, reason %u", reason);
}

void exit_dispatch(struct registers *regs)
{
	struct cpu *cpu = this_cpu();
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
	if (cpu->latched & LATCHED_INIT) {
		__atomic_fetch_and(&cpu->latched, (u32)~LATCHED_INIT, __ATOMIC_SEQ_CST);
		exit_init(regs);
	}
	if (cpu->latched)
		host_deliver_latched(cpu);
}
