/* SPDX-License-Identifier: GPL-2.0 */
/* A CPU that a SIPI starts, and that makes one call through the gate at the tick it is told: gate_sweep.h. */
#include "compat.h"
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/segment.h>
#include "gate_sweep.h"

#define LOW(label) (label - sweep_start)

	.section .rodata
/* Copied to SWEEP_PAGE. */
	.balign	16
SYM_DATA_START(sweep_start)
	.code16
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	LOW(.Lgdtr)
	movl	LOW(sweep_start_cr4), %eax
	andl	$~X86_CR4_PCIDE, %eax
	movl	%eax, %cr4
	movl	LOW(sweep_start_cr3), %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	movl	$(1 << _EFER_LME | 1 << _EFER_NX), %eax
	xorl	%edx, %edx
	wrmsr
	movl	$(X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_PE), %eax
	movl	%eax, %cr0
	ljmpl	*LOW(.Lfar)
	.code64
.Llong:
	movl	$__KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	sweep_start_cr4(%rip), %eax
	movq	%rax, %cr4
	movq	sweep_start_stack(%rip), %rsp
	jmpq	*sweep_start_entry(%rip)
	.balign	8
.Lgdt:
	.quad	0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
.Lgdtr:
	.word	31
	.long	SWEEP_PAGE + LOW(.Lgdt)
.Lfar:
	.long	SWEEP_PAGE + LOW(.Llong)
	.word	__KERNEL_CS
	.balign	8
SYM_DATA(sweep_start_cr3, .quad 0)
SYM_DATA(sweep_start_cr4, .quad 0)
SYM_DATA(sweep_start_stack, .quad 0)
SYM_DATA(sweep_start_entry, .quad 0)
SYM_DATA_END_LABEL(sweep_start, SYM_L_GLOBAL, sweep_start_end)

#define TOP sweep_cpu(%rip)
#define MOMENT sweep_cpu + 8(%rip)
#define READY sweep_cpu + 16(%rip)
#define ERROR sweep_cpu + 24(%rip)
#define ENTERED sweep_cpu + 32(%rip)
#define DONE sweep_cpu + 40(%rip)
#define STATUS sweep_cpu + 48(%rip)
#define VALUE sweep_cpu + 56(%rip)
#define SET_NUMBER sweep_cpu + 64(%rip)
#define CALL_NUMBER sweep_cpu + 68(%rip)

	.text
SYM_START(sweep_run, SYM_L_GLOBAL, SYM_A_NONE)
	ANNOTATE_NOENDBR
	leaq	hyperps_gate_page(%rip), %rdi
	movq	TOP, %rsi
	movl	SET_NUMBER, %eax
	vmcall
	movq	%rax, ERROR
	movq	%rbx, %r12
	/* An event, of which gate_sweep.c says why. */
	lidt	sweep_idtr(%rip)
	pushfq
	orq	$X86_EFLAGS_TF, (%rsp)
	popfq
	nop
	incq	READY
1:	cmpq	$0, MOMENT
	je	1b
	rdtsc
	shlq	$32, %rdx
	orq	%rdx, %rax
	movq	MOMENT, %rcx
	addq	$SWEEP_LEAD, %rcx
	subq	%rax, %rcx
2:	loop	2b
	xorl	%edi, %edi
	xorl	%esi, %esi
	xorl	%edx, %edx
	movq	%r12, %rcx
	xorl	%r8d, %r8d
	movl	CALL_NUMBER, %r9d
	movq	$1, ENTERED
	call	hyperps_gate_enter
	movq	%rax, STATUS
	movq	%rdx, VALUE
	movq	$1, DONE
3:	jmp	3b
SYM_FUNC_END(sweep_run)
	STACK_FRAME_NON_STANDARD sweep_run

/* Ends the single-stepping that called it. */
SYM_START(sweep_trap, SYM_L_GLOBAL, SYM_A_NONE)
	ANNOTATE_NOENDBR
	andq	$~X86_EFLAGS_TF, 16(%rsp)
	iretq
SYM_FUNC_END(sweep_trap)
	STACK_FRAME_NON_STANDARD sweep_trap

/* A call of nothing, to compare with. */
SYM_START(sweep_nothing, SYM_L_GLOBAL, SYM_A_NONE)
	ANNOTATE_UNRET_SAFE
	ret
	int3
SYM_FUNC_END(sweep_nothing)
	STACK_FRAME_NON_STANDARD sweep_nothing
