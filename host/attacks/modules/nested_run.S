/* SPDX-License-Identifier: GPL-2.0 */
/* A VM entry, interrupts that exits have taken, and what the VM executes. */
#include <asm/asm.h>

#include "compat.h"

#define HOST_RSP 0x6c14
#define HOST_RIP 0x6c16

	.text
/* EAX: 0 after an exit; else as VMX_DO() has it. RDI: registers; ESI: whether it is VMLAUNCH. Interrupts are off. */
SYM_START(nested_enter, SYM_L_GLOBAL, SYM_A_NONE)
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rdi
	movl	$HOST_RSP, %eax
	vmwrite	%rsp, %rax
	leaq	.Lexit(%rip), %rcx
	movl	$HOST_RIP, %eax
	vmwrite	%rcx, %rax
	testb	%sil, %sil
	movq	(%rdi), %rax
	movq	8(%rdi), %rcx
	movq	16(%rdi), %rdx
	movq	24(%rdi), %rbx
	movq	40(%rdi), %rbp
	movq	48(%rdi), %rsi
	movq	64(%rdi), %r8
	movq	72(%rdi), %r9
	movq	80(%rdi), %r10
	movq	88(%rdi), %r11
	movq	96(%rdi), %r12
	movq	104(%rdi), %r13
	movq	112(%rdi), %r14
	movq	120(%rdi), %r15
	movq	56(%rdi), %rdi
	jz	2f
1:	vmlaunch
	jmp	3f
2:	vmresume
3:	setc	%al
	setz	%ah
	movzwl	%ax, %eax
	orl	$0x10000, %eax
4:	popq	%rdi
5:	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ANNOTATE_UNRET_SAFE
	ret
	int3
.Lexit:
	pushq	%rdi
	movq	8(%rsp), %rdi
	movq	%rax, (%rdi)
	movq	%rcx, 8(%rdi)
	movq	%rdx, 16(%rdi)
	movq	%rbx, 24(%rdi)
	movq	%rbp, 40(%rdi)
	movq	%rsi, 48(%rdi)
	movq	%r8, 64(%rdi)
	movq	%r9, 72(%rdi)
	movq	%r10, 80(%rdi)
	movq	%r11, 88(%rdi)
	movq	%r12, 96(%rdi)
	movq	%r13, 104(%rdi)
	movq	%r14, 112(%rdi)
	movq	%r15, 120(%rdi)
	popq	%rax
	movq	%rax, 56(%rdi)
	popq	%rdi
	xorl	%eax, %eax
	jmp	5b
	_ASM_EXTABLE_FAULT(1b, 4b)
	_ASM_EXTABLE_FAULT(2b, 4b)
SYM_END(nested_enter, SYM_T_NONE)

/* Gives Linux an interrupt or an NMI that an exit has taken: RDI is its vector. INT goes through the same gate. */
SYM_START(nested_interrupt, SYM_L_GLOBAL, SYM_A_NONE)
	leaq	1f(%rip), %rax
	leaq	(%rax, %rdi, 4), %rax
	pushq	%rax
	ANNOTATE_UNRET_SAFE
	ret
	int3
	.balign	4
1:
	.set	vector, 0
	.rept	256
	.byte	0xcd, vector, 0xc3, 0xcc	/* int $vector; ret */
	.set	vector, vector + 1
	.endr
SYM_END(nested_interrupt, SYM_T_NONE)

	.section .rodata
	.code16
	.balign	16
	.globl	l2_code, l2_code_end, l2_cpuid, l2_hlt, l2_out, l2_vmcall, l2_vmfunc, l2_rdmsr, l2_wrmsr, l2_xsetbv, l2_read
	.globl	l2_write, l2_invert, l2_spin, l2_loop, l2_ud, l2_cr0, l2_mwait, l2_wbinvd, l2_handler
l2_code:
l2_cpuid:
	cpuid
	outl	%eax, $0x40
l2_hlt:
	hlt
l2_out:
	outl	%eax, $0x40
l2_vmcall:
	vmcall
	outl	%eax, $0x40
l2_vmfunc:
	vmfunc
	outl	%eax, $0x40
l2_rdmsr:
	rdmsr
	outl	%eax, $0x40
l2_wrmsr:
	wrmsr
	outl	%eax, $0x40
l2_xsetbv:
	xsetbv
	outl	%eax, $0x40
l2_read:
	movl	(%edi), %eax
	outl	%eax, $0x40
l2_write:
	movl	%eax, (%edi)
	outl	%eax, $0x40
l2_invert:
	notl	%eax
	notl	%ecx
	notl	%edx
	notl	%ebx
	notl	%ebp
	notl	%esi
	notl	%edi
	outl	%eax, $0x40
l2_spin:
	jmp	l2_spin
/* EDI: the page it reads and writes; ESI: where it says what it saw, and how often. */
l2_loop:
	movl	(%edi), %eax
	cmpl	%edx, %eax
	jne	1f
	incl	8(%esi)
1:	movl	%eax, (%esi)
	incl	%ecx
	movl	%ecx, (%edi)
	movl	%ecx, 4(%esi)
	jmp	l2_loop
l2_ud:
	ud2
	outl	%eax, $0x40
l2_cr0:
	movl	%cr0, %eax
	xorl	$8, %eax
	movl	%eax, %cr0
	outl	%eax, $0x40
l2_mwait:
	mwait
	outl	%eax, $0x40
l2_wbinvd:
	wbinvd
	outl	%eax, $0x40
l2_handler:
	outl	%eax, $0x44
l2_code_end:
	.code64
