/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The host's side of the gate: one page, at whose offsets the CPU leaves the host view and comes back. What it does is
 * said at HYPERPS_CALL_GATE_SET in hyperps/abi.h. Nothing depends on its being right but this kernel itself.
 */
#include <asm/asm.h>
#include <hyperps/gate.h>

#include "compat.h"

#define ENTER_BYTES 25

	.section .text.hyperps_gate, "ax", @progbits
	.balign 4096, 0xcc
SYM_START(hyperps_gate_page, SYM_L_GLOBAL, SYM_A_NONE)
	ANNOTATE_NOENDBR
	.org	hyperps_gate_page + HYPERPS_GATE_RETRY - ENTER_BYTES, 0xcc

/*
 * struct gate_result hyperps_gate_enter(u64 argument1, u64 argument2, u64 argument3, u64 gate_cr3, u64 argument4,
 * u64 number): status 0 with a value, or an error code; -EOPNOTSUPP also if the gate is off on this CPU. The arguments
 * lie where the gate wants them.
 */
SYM_INNER_LABEL(hyperps_gate_enter, SYM_L_GLOBAL)
	pushq	%rbx
	pushq	%rbp
	pushfq
	cli
	movq	%dr7, %rax
	pushq	%rax
	movq	%cr3, %rax
	orq	hyperps_cr3_bits(%rip), %rax
	pushq	%rax
	movq	%rsp, %rbp
	movq	%rcx, %cr3
	/* Exactly these three instructions lie between RETRY and ENTRY. */
	.org	hyperps_gate_page + HYPERPS_GATE_RETRY, 0x90
	xorl	%eax, %eax
	leal	1(%rax), %ecx
.Lvmfunc:
	.byte	0x0f, 0x01, 0xd4
	.org	hyperps_gate_page + HYPERPS_GATE_ENTRY, 0xcc
.Loff:
	movq	$-95, %rbp
	xorl	%ebx, %ebx
	jmp	.Lleave
	.org	hyperps_gate_page + HYPERPS_GATE_RETURN, 0xcc
.Lleave:
	popq	%rax
	movq	%rax, %cr3
	popq	%rax
	movq	%rax, %dr7
	popfq
	movq	%rbp, %rax
	movq	%rbx, %rdx
	popq	%rbp
	popq	%rbx
	ANNOTATE_UNRET_SAFE
	ret
	int3
	_ASM_EXTABLE(.Lvmfunc, .Loff)
	.org	hyperps_gate_page + 4096, 0xcc
SYM_FUNC_END(hyperps_gate_page)
	STACK_FRAME_NON_STANDARD hyperps_gate_page
