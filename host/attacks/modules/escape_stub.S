/* SPDX-License-Identifier: GPL-2.0 */
/* See escape.h. Several CPUs may be here at once: nothing on the stack is ever read. */
#include "escape.h"

#define AT(label) (STUB + ((label) - escape_stub))
#define ABS(offset) (STUB + (offset))
#define CPUID_1_ECX_VMX (1 << 5)
#define RESET_PORT 0xcf9
#define RESET_CPU 6
#define MSR_APIC_BASE 0x1b
#define APIC_BASE_ENABLE (1 << 11)
#define APIC_SPURIOUS 0xfee000f0
#define SPURIOUS_ENABLE (1 << 8)
#define MSR_EFER 0xc0000080
#define EFER_LME (1 << 8)
#define CR0_PE 1
#define CR0_PG (1 << 31)
#define CR4_PAE (1 << 5)
#define CODE32 8
#define DATA32 16
#define CODE64 24

	.section .rodata
	.balign	16
	.globl	escape_stub, escape_stub_end, escape_ud_real, escape_ud_protected, escape_ud_long

	.code16
escape_stub:
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$STUB_SEEN, %sp
	lock incl SEEN_RUNS
	movl	$1, %eax
	cpuid
	testl	$CPUID_1_ECX_VMX, %ecx
	jz	1f
	lock incl SEEN_VMX
1:	lidtl	real_idt - escape_stub
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	vmfunc
	jmp	2f
escape_ud_real:
	lock incl SEEN_UD
2:	lgdtl	gdt - escape_stub
	lidtl	protected_idt - escape_stub
	movl	%cr0, %eax
	orl	$CR0_PE, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $AT(protected)

	.code32
protected:
	movw	$DATA32, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movl	$ABS(STUB_SEEN), %esp
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	vmfunc
	jmp	3f
escape_ud_protected:
	movl	%cr0, %eax
	testl	%eax, %eax
	js	4f
	lock incl ABS(SEEN_UD + 4)
3:	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$STUB_PAE, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	vmfunc
	jmp	5f
4:	lock incl ABS(SEEN_UD + 8)
5:	movl	%cr0, %eax
	andl	$~CR0_PG, %eax
	movl	%eax, %cr0
	movl	$STUB_PML4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
	ljmpl	$CODE64, $AT(long_mode)

	.code64
long_mode:
	lidt	AT(long_idt)
	xorl	%eax, %eax
	xorl	%ecx, %ecx
	vmfunc
	jmp	6f
escape_ud_long:
	lock incl ABS(SEEN_UD + 12)
6:	movl	$STUB_IDENTIFY, %eax
	vmcall
	testq	%rax, %rax
	jnz	7f
	movabsq	$STUB_SIGNATURE, %rax
	cmpq	%rax, %rbx
	jne	7f
	lock incl ABS(SEEN_ANSWERS)
7:	lock incl ABS(SEEN_DONE)
8:	pause
	movl	ABS(SEEN_COMMAND), %ebx
	cmpl	ABS(SEEN_OBEYED), %ebx
	je	8b
	cmpl	$COMMAND_RESET, %ebx
	jne	9f
	movl	$RESET_PORT, %edx
	movb	$RESET_CPU, %al
	outb	%al, %dx
9:	movl	$MSR_APIC_BASE, %ecx
	rdmsr
	andl	$~APIC_BASE_ENABLE, %eax
	cmpl	$COMMAND_APIC_GLOBALLY_OFF, %ebx
	je	9f
	orl	$APIC_BASE_ENABLE, %eax
9:	wrmsr
	movl	$APIC_SPURIOUS, %edi
	movl	(%rdi), %eax
	andl	$~SPURIOUS_ENABLE, %eax
	cmpl	$COMMAND_APIC_OFF, %ebx
	je	9f
	orl	$SPURIOUS_ENABLE, %eax
9:	movl	%eax, (%rdi)
	movl	%ebx, ABS(SEEN_OBEYED)
	jmp	8b

	.balign	8
gdt:
	.word	gdt_end - gdt - 1
	.long	AT(gdt)
	.word	0
	.quad	0x00cf9b000000ffff /* CODE32 */
	.quad	0x00cf93000000ffff /* DATA32 */
	.quad	0x00af9b000000ffff /* CODE64 */
gdt_end:
real_idt:
	.word	7 * 4 - 1
	.long	STUB_IDT_REAL
protected_idt:
	.word	7 * 8 - 1
	.long	STUB_IDT_PROTECTED
long_idt:
	.word	7 * 16 - 1
	.quad	STUB_IDT_LONG
escape_stub_end:
