/* SPDX-License-Identifier: GPL-2.0 */
/* The two sides of vcpu_registers.c: the host's crossing with all general registers filled, and the guest. */
#include "compat.h"

#define IN(n) 8 * (n)(%rdi) /* struct trip: RAX, RCX, RDX, RBX, flags, RBP, RSI, RDI, R8 to R15 */

	.text
/* void trip_cross(struct trip *): the function that `crossing` names keeps the stack; all else it may change. */
SYM_START(trip_cross, SYM_L_GLOBAL, SYM_A_NONE)
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rdi
	pushq	8 * 32(%rdi)
	pushq	IN(4)
	movq	IN(0), %rax
	movq	IN(1), %rcx
	movq	IN(2), %rdx
	movq	IN(3), %rbx
	movq	IN(5), %rbp
	movq	IN(6), %rsi
	movq	IN(8), %r8
	movq	IN(9), %r9
	movq	IN(10), %r10
	movq	IN(11), %r11
	movq	IN(12), %r12
	movq	IN(13), %r13
	movq	IN(14), %r14
	movq	IN(15), %r15
	movq	IN(7), %rdi
	popfq
	ANNOTATE_RETPOLINE_SAFE
	call	*(%rsp)
	pushq	%r15
	pushq	%r14
	pushq	%r13
	pushq	%r12
	pushq	%r11
	pushq	%r10
	pushq	%r9
	pushq	%r8
	pushq	%rdi
	pushq	%rsi
	pushq	%rbp
	pushfq
	pushq	%rbx
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	$2
	popfq
	movq	8 * 17(%rsp), %rdi
	addq	$8 * 16, %rdi
	movq	%rsp, %rsi
	movl	$16, %ecx
	rep movsq
	addq	$8 * 18, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ANNOTATE_UNRET_SAFE
	ret
SYM_FUNC_END(trip_cross)
	STACK_FRAME_NON_STANDARD trip_cross

SYM_START(trip_monitor, SYM_L_GLOBAL, SYM_A_NONE)
	ENDBR
	vmcall
	ANNOTATE_UNRET_SAFE
	ret
SYM_FUNC_END(trip_monitor)
	STACK_FRAME_NON_STANDARD trip_monitor

/* What a monitor would leave behind that switches nothing: RDI = the guest's data page, RSI = its vector state. */
SYM_START(trip_spoil, SYM_L_GLOBAL, SYM_A_NONE)
	ENDBR
	movl	$-1, %eax
	movl	$-1, %edx
	xrstor64 (%rsi)
	movq	0x100(%rdi), %rax
	movq	%rax, %db0
	movq	0x120(%rdi), %rax
	movq	%rax, %cr2
	movl	$0xc0000083, %ecx
	movl	0x150(%rdi), %eax
	movl	0x154(%rdi), %edx
	wrmsr
	movq	8(%rdi), %rcx
	movq	8 * 12(%rdi), %r12
	movq	8 * 5(%rdi), %rbp
	xorl	%eax, %eax
	ANNOTATE_UNRET_SAFE
	ret
SYM_FUNC_END(trip_spoil)
	STACK_FRAME_NON_STANDARD trip_spoil

/*
 * The guest: 64-bit code at 0x1000. Page 0x5000 has its vector state, 0x6000 gets it back, 0x7000 is DATA: from 0 on
 * general registers by number, at 0x100 DR0 to DR3 and CR2, at 0x140 the MSRs from 0xc0000081 on, then KERNEL_GS_BASE
 * and TSC_AUX (if it has that); at 0x180 XCR0, at 0x188 more bits for CR4, at 0x190 the size of its vector state, at
 * 0x198 whether it has TSC_AUX. One exit for each vCPU, by its index; port 0x5b gets how much differs after it.
 */
#define DATA 0x7000
#define SAVED 0x7800
#define EXIT 0x7f00

	.section .rodata
	.balign	16
SYM_START(trip_guest, SYM_L_GLOBAL, SYM_A_NONE)
	movq	%cr4, %rax
	orq	$0x40600, %rax
	orq	DATA + 0x188, %rax
	movq	%rax, %cr4
	xorl	%ecx, %ecx
	movl	DATA + 0x180, %eax
	movl	DATA + 0x184, %edx
	xsetbv
fill:
	movl	$1, %eax
	cpuid
	shrl	$24, %ebx /* the vCPU's index */
	leaq	exits(%rip), %rax
	movslq	(%rax, %rbx, 4), %rcx
	addq	%rcx, %rax
	movq	%rax, EXIT
	movl	$-1, %eax
	movl	$-1, %edx
	movl	$0x5000, %ebx
	xrstor64 (%rbx)
	movl	$DATA, %ebx
	movq	0x100(%rbx), %rax
	movq	%rax, %db0
	movq	0x108(%rbx), %rax
	movq	%rax, %db1
	movq	0x110(%rbx), %rax
	movq	%rax, %db2
	movq	0x118(%rbx), %rax
	movq	%rax, %db3
	movl	$0xffff0ff5, %eax
	movq	%rax, %db6
	movl	$0xd7d70400, %eax
	movq	%rax, %db7
	movq	0x120(%rbx), %rax
	movq	%rax, %cr2
	movl	$5, %eax
	movq	%rax, %cr8
	movl	$0xc0000081, %ecx
	leaq	0x140(%rbx), %rsi
1:	movl	(%rsi), %eax
	movl	4(%rsi), %edx
	wrmsr
	addq	$8, %rsi
	incl	%ecx
	cmpl	$0xc0000085, %ecx
	jne	1b
	movl	$0xc0000102, %ecx
	movl	(%rsi), %eax
	movl	4(%rsi), %edx
	wrmsr
	cmpl	$0, 0x198(%rbx)
	je	1f
	incl	%ecx
	movl	8(%rsi), %eax
	movl	12(%rsi), %edx
	wrmsr
1:	movq	DATA, %rax
	movq	DATA + 8 * 1, %rcx
	movq	DATA + 8 * 2, %rdx
	movq	DATA + 8 * 3, %rbx
	movq	DATA + 8 * 4, %rsp
	movq	DATA + 8 * 5, %rbp
	movq	DATA + 8 * 6, %rsi
	movq	DATA + 8 * 7, %rdi
	movq	DATA + 8 * 8, %r8
	movq	DATA + 8 * 9, %r9
	movq	DATA + 8 * 10, %r10
	movq	DATA + 8 * 11, %r11
	movq	DATA + 8 * 12, %r12
	movq	DATA + 8 * 13, %r13
	movq	DATA + 8 * 14, %r14
	movq	DATA + 8 * 15, %r15
	jmp	*EXIT

	.balign	4
exits:
	.long	exit_out - exits, exit_in - exits, exit_hlt - exits, exit_write - exits, exit_read - exits
	.long	exit_console - exits, exit_memory - exits, exit_spin - exits, exit_shutdown - exits, exit_none - exits
	.long	exit_fault - exits

exit_out:
	out	%eax, $0x5a
	jmp	verify
exit_in:
	in	$0x5a, %al
	jmp	verify
exit_hlt:
	hlt
	jmp	verify
exit_write:
	movq	%r9, 0x10000000
	jmp	verify
exit_read:
	movl	0x10000004, %eax
	jmp	verify
exit_console:
	movl	$0x48505380, %eax
	movl	$3, %edi
	vmcall
	jmp	verify
exit_memory:
	movq	%rbx, 0x100000
	jmp	verify
exit_spin:
	jmp	exit_spin
exit_shutdown:
	movl	$0x48505386, %eax
	vmcall
	jmp	verify
exit_none: /* no exit: it spoils its registers itself, which it must notice */
	xorl	%ebx, %ebx
	pxor	%xmm7, %xmm7
	movq	%rbx, %db2
	movq	%rbx, %cr2
	jmp	verify
exit_fault:
	ud2

verify:
	movq	%rax, SAVED
	movq	%rcx, SAVED + 8 * 1
	movq	%rdx, SAVED + 8 * 2
	movq	%rbx, SAVED + 8 * 3
	movq	%rsp, SAVED + 8 * 4
	movq	%rbp, SAVED + 8 * 5
	movq	%rsi, SAVED + 8 * 6
	movq	%rdi, SAVED + 8 * 7
	movq	%r8, SAVED + 8 * 8
	movq	%r9, SAVED + 8 * 9
	movq	%r10, SAVED + 8 * 10
	movq	%r11, SAVED + 8 * 11
	movq	%r12, SAVED + 8 * 12
	movq	%r13, SAVED + 8 * 13
	movq	%r14, SAVED + 8 * 14
	movq	%r15, SAVED + 8 * 15
	movl	$-1, %eax
	movl	$-1, %edx
	movl	$0x6000, %edi
	xsave64	(%rdi)
	xorl	%ebx, %ebx
	movl	$1, %ecx
1:	cmpl	$7, %ecx /* RAX and RDI may be an exit's */
	je	2f
	movq	DATA(, %rcx, 8), %rax
	cmpq	SAVED(, %rcx, 8), %rax
	je	2f
	incl	%ebx
2:	incl	%ecx
	cmpl	$16, %ecx
	jne	1b
	movl	0x5018, %eax /* MXCSR */
	cmpl	0x6018, %eax
	je	1f
	incl	%ebx
1:	movl	$32, %ecx
1:	movb	0x5000(%rcx), %al
	cmpb	0x6000(%rcx), %al
	je	2f
	incl	%ebx
2:	incl	%ecx
	cmpl	$416, %ecx
	jne	3f
	movl	$576, %ecx
3:	cmpl	DATA + 0x190, %ecx
	jb	1b
	movq	%db0, %rax
	cmpq	DATA + 0x100, %rax
	je	1f
	incl	%ebx
1:	movq	%db1, %rax
	cmpq	DATA + 0x108, %rax
	je	1f
	incl	%ebx
1:	movq	%db2, %rax
	cmpq	DATA + 0x110, %rax
	je	1f
	incl	%ebx
1:	movq	%db3, %rax
	cmpq	DATA + 0x118, %rax
	je	1f
	incl	%ebx
1:	movq	%db6, %rax
	cmpl	$0xffff0ff5, %eax
	je	1f
	incl	%ebx
1:	movq	%db7, %rax
	cmpl	$0xd7d70400, %eax
	je	1f
	incl	%ebx
1:	movq	%cr2, %rax
	cmpq	DATA + 0x120, %rax
	je	1f
	incl	%ebx
1:	movl	$0xc0000081, %ecx
	movl	$DATA + 0x140, %esi
1:	rdmsr
	shlq	$32, %rdx
	orq	%rdx, %rax
	cmpq	(%rsi), %rax
	je	2f
	incl	%ebx
2:	addq	$8, %rsi
	incl	%ecx
	cmpl	$0xc0000085, %ecx
	jne	3f
	movl	$0xc0000102, %ecx
3:	cmpl	$0xc0000103, %ecx
	jb	1b
	ja	1f
	cmpl	$0, DATA + 0x198
	jne	1b
1:	xorl	%ecx, %ecx
	xgetbv
	cmpl	DATA + 0x180, %eax
	je	1f
	incl	%ebx
1:	movl	%ebx, %eax
	out	%eax, $0x5b
	jmp	fill
SYM_FUNC_END(trip_guest)
	STACK_FRAME_NON_STANDARD trip_guest
SYM_DATA(trip_guest_end, .byte 0)
