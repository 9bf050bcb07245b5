/* SPDX-License-Identifier: GPL-2.0 */
/* One attempt at the gate: gate_attack.h. Its data is global: one CPU at a time. */
#include <asm/segment.h>

#include "compat.h"

#define REGISTER(n) gate_attempt + 8 * (n)(%rip)
#define FRAME gate_attempt + 120(%rip)
#define CR3 gate_attempt + 160(%rip)
#define DR(n) gate_attempt + 168 + 8 * (n)(%rip)
#define DR7 gate_attempt + 200(%rip)
#define IDTR gate_attempt + 208(%rip)
#define GDTR gate_attempt + 218(%rip)
#define DONE gate_attempt + 232(%rip)
#define VECTOR gate_attempt + 240(%rip)
#define ERROR gate_attempt + 248(%rip)
#define FAULT_RIP gate_attempt + 256(%rip)
#define RESULT gate_attempt + 264(%rip)
#define STATUS gate_attempt + 272(%rip)

	.text
SYM_START(gate_attempt_run, SYM_L_GLOBAL, SYM_A_NONE)
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushfq
	cli
	movq	%rsp, saved_rsp(%rip)
	movq	%cr3, %rax
	movq	%rax, saved_cr3(%rip)
	sidt	saved_idtr(%rip)
	sgdt	saved_gdtr(%rip)
	movq	$0, DONE
	movq	CR3, %rax
	movq	%rax, %cr3
	lgdt	GDTR
	lidt	IDTR
	movq	DR(0), %rax
	movq	%rax, %dr0
	movq	DR(1), %rax
	movq	%rax, %dr1
	movq	DR(2), %rax
	movq	%rax, %dr2
	movq	DR(3), %rax
	movq	%rax, %dr3
	movq	DR7, %rax
	movq	%rax, %dr7
	movq	REGISTER(0), %rax
	movq	REGISTER(1), %rcx
	movq	REGISTER(2), %rdx
	movq	REGISTER(3), %rbx
	movq	REGISTER(4), %rbp
	movq	REGISTER(5), %rsi
	movq	REGISTER(6), %rdi
	movq	REGISTER(7), %r8
	movq	REGISTER(8), %r9
	movq	REGISTER(9), %r10
	movq	REGISTER(10), %r11
	movq	REGISTER(11), %r12
	movq	REGISTER(12), %r13
	movq	REGISTER(13), %r14
	movq	REGISTER(14), %r15
	leaq	FRAME, %rsp
	iretq

.Lfault:
	cmpq	$0, DONE
	jne	.Lrecover
	movq	$1, DONE
	popq	VECTOR
	popq	ERROR
	popq	FAULT_RIP
	jmp	.Lrecover

SYM_INNER_LABEL(gate_attempt_returned, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	movq	$1, DONE
	movq	$-1, VECTOR
	movq	%rbx, RESULT
	movq	%rbp, STATUS
.Lrecover:
	movq	saved_rsp(%rip), %rsp
	xorl	%eax, %eax
	movq	%rax, %dr7
	movq	saved_cr3(%rip), %rax
	movq	%rax, %cr3
	lgdt	saved_gdtr(%rip)
	lidt	saved_idtr(%rip)
	movl	$__KERNEL_DS, %eax
	movl	%eax, %ss
	popfq
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ANNOTATE_UNRET_SAFE
	ret
	int3

/* A VMFUNC that is not on the gate page. */
SYM_INNER_LABEL(gate_attempt_vmfunc, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	.byte	0x0f, 0x01, 0xd4
	int3

.macro STUB vector, code
stub_\vector:
	ANNOTATE_NOENDBR
	.if !\code
	pushq	$0
	.endif
	pushq	$\vector
	jmp	.Lfault
.endm
	STUB	1, 0
	STUB	3, 0
	STUB	6, 0
	STUB	8, 1
	STUB	10, 1
	STUB	11, 1
	STUB	12, 1
	STUB	13, 1
	STUB	14, 1
	STUB	16, 0
	STUB	17, 1
SYM_FUNC_END(gate_attempt_run)
	STACK_FRAME_NON_STANDARD gate_attempt_run

	.section .rodata
/* Vector and handler; ends with 0. */
SYM_DATA_START(gate_attempt_stubs)
.macro ENTRY vector
	.quad	\vector, stub_\vector
.endm
	ENTRY	1
	ENTRY	3
	ENTRY	6
	ENTRY	8
	ENTRY	10
	ENTRY	11
	ENTRY	12
	ENTRY	13
	ENTRY	14
	ENTRY	16
	ENTRY	17
	.quad	0, 0
SYM_DATA_END(gate_attempt_stubs)

	.bss
	.balign	16
saved_rsp:
	.quad	0
saved_cr3:
	.quad	0
saved_idtr:
	.skip	16
saved_gdtr:
	.skip	16
