// SPDX-License-Identifier: MIT
/*
 * What the guests of kvm_probe.c execute. All of it lies at CODE in the guest, so that jumps must be relative, or be counted from
 * there. On entry EDI is RESULT; EBX, ECX, ESI are the caller's.
 */
#include "kvm_guest.h"

/* Executes what should fault; stores vector and error code. */
#define FAULTS_AT(...)                   \
	movq	$-1, FAULT;              \
	lea	1f(%rip), %rax;          \
	mov	%rax, FAULT + 24;        \
	__VA_ARGS__;                     \
1:	mov	FAULT, %rax;             \
	stosq;                           \
	mov	FAULT + 8, %rax;         \
	stosq

.section .note.GNU-stack, "", @progbits
.section .rodata
.globl guest_begin, guest_end, guest_real, guest_string, guest_real_device, guest_device, guest_touch, guest_sum
.globl guest_copy, guest_wait, guest_window, guest_exceptions, guest_msr, guest_spin, guest_modes, guest_long
.globl guest_xcr0, guest_faults, guest_cr3, guest_invlpg, guest_count, guest_reader, guest_exits, guest_steps
.globl guest_pit, guest_ticking, guest_triple, guest_real_triple, guest_apic, guest_other_cpu, guest_ipi
.globl guest_timer, guest_pae, guest_task, other_task
.globl on_interrupt, on_nmi, on_divide, on_opcode, on_protection, on_tick, on_vector
.balign 4096
guest_begin:

/* Real mode. */
.code16
guest_real:
	mov	$0x4000ffff, %eax
	cpuid
	mov	%ebx, %eax
	out	%eax, $OUT_PORT
	in	$OUT_PORT, %eax
	inc	%eax
	out	%eax, $OUT_PORT
	hlt
	mov	$7, %al
	out	%al, $OUT_PORT
	hlt
guest_string: /* 16 bytes from RESULT to the port, 16 from there to 100h bytes behind */
	mov	%di, %si
	mov	$OUT_PORT, %dx
	mov	$16, %cx
	cld
	rep outsb
	add	$0x100, %di
	mov	$16, %cx
	rep insb
	hlt
guest_real_device:
	mov	$0xd000, %ax
	mov	%ax, %ds
	movl	$0x11223344, 0x10
	movw	0x10, %ax
	out	%ax, $OUT_PORT
	movb	$5, 0x20
	addb	$2, 0x20
	hlt
guest_wait: /* what comes, comes */
	sti
1:	hlt
	jmp	1b
guest_window:
	cli
	mov	$1, %al
	out	%al, $OUT_PORT
	nop
	sti
	nop
	nop
	cli
	mov	$2, %al
	out	%al, $OUT_PORT
	hlt
guest_exceptions:
	xor	%bx, %bx
	div	%bl
	ud2
	int	$0x20
	mov	$0x12345, %ecx
	rdmsr
	hlt
guest_msr:
	mov	$0x174, %ecx /* IA32_SYSENTER_CS */
	xor	%edx, %edx
	mov	$0x1234, %eax
	wrmsr
	xor	%eax, %eax
	rdmsr
	out	%eax, $OUT_PORT
	mov	$0x277, %ecx /* IA32_PAT */
	mov	$0x00000406, %eax
	mov	$0x00070106, %edx
	wrmsr
	xor	%eax, %eax
	xor	%edx, %edx
	rdmsr
	out	%eax, $OUT_PORT
	mov	%edx, %eax
	out	%eax, $OUT_PORT
	mov	$2, %eax /* no memory type */
	wrmsr /* #GP */
	mov	$0x12345, %ecx
	wrmsr /* #GP */
	mov	$0x10, %ecx /* IA32_TIME_STAMP_COUNTER */
	rdmsr
	mov	%eax, %ebx
	mov	%edx, %esi
	rdtsc
	sub	%ebx, %eax
	sbb	%esi, %edx
	mov	$1, %eax
	jnc	1f
	xor	%eax, %eax
1:
	out	%eax, $OUT_PORT
	hlt
guest_modes: /* real, protected, long mode, and back: 1, 2, 3, 4 to the port */
	cli
	mov	$1, %al
	out	%al, $OUT_PORT
	lgdtl	GDT_POINTER
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$0x08, $(CODE + protected - guest_begin)
.code32
protected:
	mov	$0x10, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$2, %al
	out	%al, $OUT_PORT
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$TABLES, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	ljmp	$0x18, $(CODE + long - guest_begin)
.code64
long:
	mov	$3, %al
	out	%al, $OUT_PORT
	mov	$STACK, %esp
	pushq	$8
	pushq	$(CODE + compatible - guest_begin)
	lretq
.code32
compatible:
	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0
	mov	$0xc0000080, %ecx
	rdmsr
	and	$~0x100, %eax
	wrmsr
	mov	%cr4, %eax
	and	$~0x20, %eax
	mov	%eax, %cr4
	ljmp	$0x20, $(CODE + small - guest_begin)
.code16
small:
	mov	$0x28, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%cr0, %eax
	and	$0xfe, %al
	mov	%eax, %cr0
	ljmp	$0, $(CODE + real - guest_begin)
real:
	mov	$4, %al
	out	%al, $OUT_PORT
	hlt
guest_real_triple: /* IDTR's limit is 0 */
	int3
	hlt
guest_pit: /* ECX ticks of the PIT; waits by HLT if ESI is 0. IRQ 5 counts, too */
	cli
	mov	$0x11, %al
	out	%al, $0x20
	out	%al, $0xa0
	mov	$0x20, %al
	out	%al, $0x21
	mov	$0x28, %al
	out	%al, $0xa1
	mov	$4, %al
	out	%al, $0x21
	mov	$2, %al
	out	%al, $0xa1
	mov	$1, %al
	out	%al, $0x21
	out	%al, $0xa1
	mov	$0xde, %al
	out	%al, $0x21
	mov	$0xff, %al
	out	%al, $0xa1
	mov	$0x34, %al /* counter 0, both bytes, rate generator */
	out	%al, $0x43
	mov	$0x00, %al
	out	%al, $0x40
	mov	$0x10, %al
	out	%al, $0x40
guest_ticking:
	sti
1:	test	%si, %si
	jnz	2f
	hlt
2:	cmp	%cx, (%di)
	jb	1b
	out	%al, $OUT_PORT
3:	hlt
	jmp	3b
on_tick: /* IRQ 0 and 5 */
	push	%ax
	incw	(%di)
	mov	$0x20, %al
	out	%al, $0x20
	pop	%ax
	iret
on_interrupt:
	mov	$0x20, %al
	out	%al, $OUT_PORT
	iret
on_nmi:
	mov	$0xa0, %al
	out	%al, $OUT_PORT
	mov	$0xa1, %al
	out	%al, $OUT_PORT
	iret

/* After an instruction of two bytes. */
on_divide:
	mov	$0, %al
	jmp	1f
on_opcode:
	mov	$6, %al
	jmp	1f
on_protection:
	mov	$13, %al
1:
	out	%al, $OUT_PORT
	mov	%sp, %bp
	addw	$2, (%bp)
	iret

/* A second CPU: counts at RESULT + 8 when it is started, and for each interrupt. */
.balign 4096
guest_other_cpu:
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$STACK - 0x800, %sp
	call	x2apic_on
	lock incl RESULT + 8
	sti
1:	hlt
	jmp	1b
x2apic_on:
	mov	$0x1b, %ecx /* IA32_APIC_BASE */
	rdmsr
	or	$0xc00, %eax
	wrmsr
	mov	$0x80f, %ecx /* spurious-interrupt vector: on */
	mov	$0x1ff, %eax
	xor	%edx, %edx
	wrmsr
	ret
guest_ipi: /* its handler */
	push	%eax
	push	%ds
	xor	%ax, %ax
	mov	%ax, %ds
	lock incl RESULT + 8
	mov	$0x80b, %ecx /* x2APIC: EOI */
	xor	%eax, %eax
	xor	%edx, %edx
	wrmsr
	pop	%ds
	pop	%eax
	iret
guest_apic: /* starts the other CPU, which guest_other_cpu is the page of, and sends it ECX interrupts */
	mov	%ecx, %esi
	call	x2apic_on
	mov	$0x830, %ecx /* ICR */
	mov	$1, %edx
	mov	$0x4500, %eax /* INIT */
	wrmsr
	mov	%ebx, %eax /* SIPI */
	wrmsr
1:	pause
	cmpl	$1, 8(%di)
	jb	1b
	mov	$1, %ebp
2:	mov	$0x4030, %eax /* fixed, vector 30h */
	wrmsr
	inc	%ebp
3:	pause
	cmp	%ebp, 8(%di)
	jb	3b
	dec	%esi
	jnz	2b
	out	%al, $OUT_PORT
	hlt
guest_timer: /* ECX interrupts of the APIC's timer, after EBX ticks of the TSC each */
	mov	%ecx, %esi
	mov	%ebx, %ebp
	call	x2apic_on
	mov	$0x832, %ecx /* LVT timer: deadline */
	mov	$0x40030, %eax
	wrmsr
1:	mov	8(%di), %ebx
	rdtsc
	add	%ebp, %eax
	adc	$0, %edx
	mov	$0x6e0, %ecx /* IA32_TSC_DEADLINE */
	wrmsr
	sti
2:	test	$1, %si /* every second time by HLT */
	jnz	3f
	hlt
3:	cmp	%ebx, 8(%di)
	je	2b
	dec	%si
	jnz	1b
	out	%al, $OUT_PORT
	hlt

/* Protected mode. */
.code32
guest_pae: /* as guest_cr3, with PAE tables */
	xor	%edx, %edx
1:	mov	$PAE_TABLES + 0x20, %eax
	mov	%eax, %cr3
	cmpl	$2, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	mov	$PAE_TABLES, %eax
	mov	%eax, %cr3
	cmpl	$1, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	mov	%cr4, %eax
	mov	%eax, %cr4
	dec	%ecx
	jnz	1b
	mov	%edx, (%edi)
	hlt
guest_task: /* goes to another task by a jump, and back */
	mov	$0x30, %ax
	ltr	%ax
	ljmp	$0x38, $0
	mov	$3, %al
	out	%al, $OUT_PORT
	hlt
other_task:
	mov	$2, %al
	out	%al, $OUT_PORT
	ljmp	$0x30, $0
	jmp	other_task
guest_device: /* EBX: a device */
	movl	$0x55667788, 4(%ebx)
	mov	4(%ebx), %eax
	mov	%eax, (%edi)
	lea	4(%ebx), %esi
	add	$8, %edi
	mov	$4, %ecx
	rep movsb /* from the device */
	lea	-4(%edi), %esi
	lea	0x40(%ebx), %edi
	mov	$2, %ecx
	rep movsw /* to the device */
	mov	$1, %eax
	xchg	%eax, 4(%ebx)
	hlt
guest_touch: /* ECX writes of its own address, the first at EBX, ESI bytes apart */
1:	mov	%ebx, (%ebx)
	add	%esi, %ebx
	dec	%ecx
	jnz	1b
	hlt
guest_sum: /* of as many dwords */
	xor	%eax, %eax
1:	add	(%ebx), %eax
	add	%esi, %ebx
	dec	%ecx
	jnz	1b
	mov	%eax, (%edi)
	hlt
guest_copy: /* ECX bytes from EBX to ESI */
	mov	%esi, %edi
	mov	%ebx, %esi
	rep movsb
	hlt
guest_spin:
1:	incl	(%edi)
	jmp	1b
guest_count: /* ECX times */
1:	lock incl (%ebx)
	dec	%ecx
	jnz	1b
	hlt
guest_reader: /* what is at EBX goes to RESULT; counts there, and behind EBX */
1:	mov	(%ebx), %eax
	mov	%eax, (%edi)
	incl	4(%ebx)
	incl	4(%edi)
	jmp	1b
guest_steps:
	nop
	nop
	inc	%eax
	nop
	hlt

/* Long mode. */
.code64
guest_exits: /* all XMM registers live over exits */
	movdqu	0x400(%rdi), %xmm0
	movdqu	0x410(%rdi), %xmm7
	movdqu	0x420(%rdi), %xmm15
	out	%al, $OUT_PORT
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	cpuid
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	movdqu	%xmm0, 0x500(%rdi)
	movdqu	%xmm7, 0x510(%rdi)
	movdqu	%xmm15, 0x520(%rdi)
	hlt
guest_long:
	mov	%cr4, %rax
	or	$0x80, %rax /* PGE */
	mov	%rax, %cr4
	mov	%cr4, %rax
	and	$0x80, %eax
	stosq /* 0 */
	mov	%cr0, %rax
	or	$8, %rax /* TS */
	mov	%rax, %cr0
	mov	%cr0, %rax
	and	$8, %eax
	stosq /* 1 */
	clts
	mov	%cr0, %rax
	and	$8, %eax
	stosq /* 2 */
	mov	%cr3, %rax
	mov	%rax, %cr3
	stosq /* 3 */
	mov	$0x1234, %eax
	mov	%rax, %dr0
	xor	%eax, %eax
	mov	%dr0, %rax
	stosq /* 4 */
	mov	$5, %eax
	mov	%rax, %cr8
	mov	%cr8, %rax
	stosq /* 5 */
	mov	$0xc0000103, %ecx /* IA32_TSC_AUX */
	mov	$0x77, %eax
	xor	%edx, %edx
	wrmsr
	rdtscp
	mov	%ecx, %eax
	stosq /* 6 */
	mov	$1, %eax /* a hypercall of KVM's that does nothing */
	vmcall
	stosq /* 7 */
	wbinvd
	mov	$0xc0000100, %ecx /* IA32_FS_BASE */
	mov	$PAGE_TWO, %eax
	xor	%edx, %edx
	wrmsr
	mov	%fs:0, %rax
	stosq /* 8 */
	mov	$0xc0000102, %ecx /* IA32_KERNEL_GS_BASE */
	mov	$PAGE_ONE, %eax
	wrmsr
	swapgs
	mov	%gs:0, %rax
	stosq /* 9 */
	sub	$32, %rsp
	sidt	(%rsp)
	mov	2(%rsp), %rax
	stosq /* 10 */
	sgdt	(%rsp)
	mov	2(%rsp), %rax
	stosq /* 11 */
	str	%eax
	movzwl	%ax, %eax
	stosq /* 12 */
	pause
	mov	%cr2, %rax
	stosq /* 13 */
	hlt
guest_xcr0:
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$3, %eax
	xsetbv
	xor	%eax, %eax
	xgetbv
	stosq
	mov	$7, %eax
	xsetbv
	xor	%eax, %eax
	xgetbv
	stosq
	vpcmpeqb %xmm0, %xmm0, %xmm0
	vinsertf128 $1, %xmm0, %ymm0, %ymm0
	out	%al, $OUT_PORT
	vmovdqu	%ymm0, (%rdi)
	hlt
guest_faults:
	FAULTS_AT(mov	0x90000000, %eax)
	FAULTS_AT(mov	$0x90000000, %eax; mov	%eax, (%rax))
	FAULTS_AT(movb	$1, READ_ONLY)
	FAULTS_AT(mov	RESERVED, %eax)
	FAULTS_AT(ud2)
	FAULTS_AT(xor	%ebx, %ebx; div	%ebx)
	FAULTS_AT(mov	$0x12345, %ecx; rdmsr)
	FAULTS_AT(mov	%cr4, %rax; bts	$31, %rax; mov	%rax, %cr4)
	FAULTS_AT(xor	%ecx, %ecx; xor	%edx, %edx; xor	%eax, %eax; xsetbv)
	FAULTS_AT(mov	%cr0, %rax; btr	$0, %rax; mov	%rax, %cr0)
	FAULTS_AT(mov	$1, %eax; shl	$62, %rax; mov	(%rax), %eax)
	FAULTS_AT(int3)
	FAULTS_AT(vmread	%rax, %rax)
	FAULTS_AT(mov	$0x100, %eax; ltr	%ax)
	FAULTS_AT(mov	$0x90000000, %eax; jmp	*%rax)
	FAULTS_AT(mov	$1, %eax; shl	$62, %rax; mov	$0xc0000100, %ecx; mov	%rax, %rdx; shr	$32, %rdx; wrmsr)
	hlt

/* ECX times: PAGE_ONE's linear address shows PAGE_ONE, then PAGE_TWO. Counts how often it did not. */
guest_cr3:
	xor	%edx, %edx
1:	mov	$OTHER_TABLES, %eax
	mov	%rax, %cr3
	cmpl	$2, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	mov	$TABLES, %eax
	mov	%rax, %cr3
	cmpl	$1, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	dec	%ecx
	jnz	1b
	mov	%rdx, (%rdi)
	hlt
guest_invlpg:
	xor	%edx, %edx
1:	movq	$PAGE_TWO + 3, TABLES + 0x3000 + 8 * (PAGE_ONE >> 12)
	invlpg	PAGE_ONE
	cmpl	$2, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	movq	$PAGE_ONE + 3, TABLES + 0x3000 + 8 * (PAGE_ONE >> 12)
	invlpg	PAGE_ONE
	cmpl	$1, PAGE_ONE
	setne	%al
	movzbl	%al, %eax
	add	%eax, %edx
	dec	%ecx
	jnz	1b
	mov	%rdx, (%rdi)
	hlt
guest_triple:
	pushq	$0
	pushq	$0
	lidt	(%rsp)
	int3
	hlt

/* Exceptions: on_vector + 16 * vector. */
.balign 16
on_vector:
.set vector, 0
.rept 32
	.balign	16
	.if	(vector != 8) && (vector < 10 || vector > 14) && (vector != 17)
	push	$0
	.endif
	push	$vector
	jmp	on_any
	.set	vector, vector + 1
.endr
on_any:
	popq	FAULT
	popq	FAULT + 8
	mov	%cr2, %rax
	mov	%rax, FAULT + 16
	mov	$STACK, %esp
	jmp	*FAULT + 24
guest_end:
