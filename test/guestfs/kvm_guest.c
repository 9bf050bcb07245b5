// SPDX-License-Identifier: MIT
/*
 * What the guests of kvm_probe.c execute. All of it lies at CODE in the guest, so that jumps must be relative, or be counted from
 * there. On entry EDI is RESULT; EBX, ECX, ESI are the caller's.
 */
#include "kvm_guest.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define OUT(register) "	out " register ", $" TEXT(OUT_PORT) "\n"
#define AT(label) "(" TEXT(CODE) " + " label " - guest_begin)"

/* Executes what should fault; stores vector and error code. */
#define FAULTS_AT(instruction)                                                                                         \
	"	movq	$-1, " TEXT(FAULT) "\n"                                                                        \
					   "	lea	1f(%rip), %rax\n"                                                     \
					   "	mov	%rax, " TEXT(                                                  \
						   FAULT) " + 24\n" instruction "\n"                                   \
							  "1:	mov	" TEXT(FAULT) ", %rax\n"                       \
										      "	stosq\n"                       \
										      "	mov	" TEXT(                \
											      FAULT) " + 8, %rax\n"    \
												     "	stosq\n"

asm(".pushsection .rodata\n"
    ".globl guest_begin, guest_end, guest_real, guest_string, guest_real_device, guest_device, guest_touch, "
    "guest_sum\n"
    ".globl guest_copy, guest_wait, guest_window, guest_exceptions, guest_msr, guest_spin, guest_modes, "
    "guest_long\n"
    ".globl guest_xcr0, guest_faults, guest_cr3, guest_invlpg, guest_count, guest_reader, guest_exits, "
    "guest_steps\n"
    ".globl guest_pit, guest_ticking, guest_triple, guest_real_triple, guest_apic, guest_other_cpu, guest_ipi\n"
    ".globl on_interrupt, on_nmi, on_divide, on_opcode, on_protection, on_tick, on_vector\n"
    ".balign 4096\n"
    "guest_begin:\n"

    /* Real mode. */
    ".code16\n"
    "guest_real:\n"
    "	mov	$0x4000ffff, %eax\n"
    "	cpuid\n"
    "	mov	%ebx, %eax\n" OUT("%eax") "	in	$" TEXT(
	    OUT_PORT) ", %eax\n"
		      "	inc	%eax\n" OUT(
			      "%eax") "	hlt\n"
				      "	mov	$7, %al\n" OUT(
					      "%al") "	hlt\n"
						     "guest_string:\n" /* 16 bytes from RESULT to the port, 16 from there to 100h bytes behind */
						     "	mov	%di, %si\n"
						     "	mov	$" TEXT(OUT_PORT) ", %dx\n"
										  "	mov	$16, %cx\n"
										  "	cld\n"
										  "	rep outsb\n"
										  "	add	$0x100, %di\n"
										  "	mov	$16, %cx\n"
										  "	rep insb\n"
										  "	hlt\n"
										  "guest_real_device:\n"
										  "	mov	$0xd000, %ax\n"
										  "	mov	%ax, %ds\n"
										  "	movl	$0x11223344, 0x10\n"
										  "	movw	0x10, %ax\n" OUT("%ax") "	movb	$5, 0x20\n"
															"	addb	$2, 0x20\n"
															"	hlt\n"
															"guest_wait:\n" /* what comes, comes */
															"	sti\n"
															"1:	hlt\n"
															"	jmp	1b\n"
															"guest_window:\n"
															"	cli\n"
															"	mov	$1, %al\n" OUT("%al") "	nop\n"
																			      "	sti\n"
																			      "	nop\n"
																			      "	nop\n"
																			      "	cli\n"
																			      "	mov"
																			      "	$2, "
																			      "%al\n" OUT("%al") "	hlt\n"
																						 "guest_exceptions:\n"
																						 "	xor	%bx, %bx\n"
																						 "	div	%bl\n"
																						 "	ud2\n"
																						 "	int	$0x20\n"
																						 "	mov	$0x12345, %ecx\n"
																						 "	rdmsr\n"
																						 "	hlt\n"
																						 "guest_msr:\n"
																						 "	mov	$0x174, %ecx\n" /* IA32_SYSENTER_CS */
																						 "	xor	%edx, %edx\n"
																						 "	mov	$0x1234, %eax\n"
																						 "	wrmsr\n"
																						 "	xor	%eax, %eax\n"
																						 "	rdmsr\n" OUT("%eax") "	mov	$0x277, %ecx\n" /* IA32_PAT */
																									     "	mov	$0x00000406, %eax\n"
																									     "	mov	$0x00070106, %edx\n"
																									     "	wrmsr\n"
																									     "	xor	%eax, %eax\n"
																									     "	xor	%edx, %edx\n"
																									     "	rdmsr\n" OUT(
																										     "%eax") "	mov	%edx, %eax\n" OUT("%eax") "	mov	$2, %eax\n" /* no memory type */
																																  "	wrmsr\n" /* #GP */
																																  "	mov	$0x12345, %ecx\n"
																																  "	wrmsr\n" /* #GP */
																																  "	mov	$0x10, %ecx\n" /* IA32_TIME_STAMP_COUNTER */
																																  "	rdmsr\n"
																																  "	mov	%eax, %ebx\n"
																																  "	mov	%edx, %esi\n"
																																  "	rdtsc\n"
																																  "	sub	%ebx, %eax\n"
																																  "	sbb	%esi, %edx\n"
																																  "	mov	$1, %eax\n"
																																  "	jnc	1f\n"
																																  "	xor	%eax, %eax\n"
																																  "1:\n" OUT(
																																	  "%eax") "	hlt\n"
																																		  "guest_modes:\n" /* real, protected, long mode, and back: 1, 2, 3, 4 to the port */
																																		  "	cli\n"
																																		  "	mov	$1, %al\n" OUT("%al") "	lgdtl	" TEXT(
																																			  GDT_POINTER) "\n"
																																				       "	mov	%cr0, %eax\n"
																																				       "	or	$1, %al\n"
																																				       "	mov	%eax, %cr0\n"
																																				       "	ljmpl	$0x08, $" AT("protected") "\n"
																																										  ".code32\n"
																																										  "protected:\n"
																																										  "	mov	$0x10, %ax\n"
																																										  "	mov	%ax, %ds\n"
																																										  "	mov	%ax, %es\n"
																																										  "	mov	%ax, %ss\n"
																																										  "	mov	$2, %al\n" OUT("%al") "	mov	%cr4, %eax\n"
																																														      "	or	$0x20, %eax\n"
																																														      "	mov	%eax, %cr4\n"
																																														      "	mov	$" TEXT(TABLES) ", %eax\n"
																																																		"	mov	%eax, %cr3\n"
																																																		"	mov	$0xc0000080, %ecx\n"
																																																		"	rdmsr\n"
																																																		"	or	$0x100, %eax\n"
																																																		"	wrmsr\n"
																																																		"	mov	%cr0, %eax\n"
																																																		"	or	$0x80000000, %eax\n"
																																																		"	mov	%eax, %cr0\n"
																																																		"	ljmp	$0x18, $" AT("long") "\n"
																																																						     ".code64\n"
																																																						     "long:\n"
																																																						     "	mov	$3, %al\n" OUT("%al") "	mov	$" TEXT(
																																																							     STACK) ", %esp\n"
																																																								    "	pushq	$8\n"
																																																								    "	pushq	$" AT("compatible") "\n"
																																																												    "	lretq\n"
																																																												    ".code32\n"
																																																												    "compatible:\n"
																																																												    "	mov	%cr0, %eax\n"
																																																												    "	and	$0x7fffffff, %eax\n"
																																																												    "	mov	%eax, %cr0\n"
																																																												    "	mov	$0xc0000080, %ecx\n"
																																																												    "	rdmsr\n"
																																																												    "	and	$~0x100, %eax\n"
																																																												    "	wrmsr\n"
																																																												    "	mov	%cr4, %eax\n"
																																																												    "	and	$~0x20, %eax\n"
																																																												    "	mov	%eax, %cr4\n"
																																																												    "	ljmp	$0x20, $" AT("small") "\n"
																																																																      ".code16\n"
																																																																      "small:\n"
																																																																      "	mov	$0x28, %ax\n"
																																																																      "	mov	%ax, %ds\n"
																																																																      "	mov	%ax, %es\n"
																																																																      "	mov	%ax, %ss\n"
																																																																      "	mov	%cr0, %eax\n"
																																																																      "	and	$0xfe, %al\n"
																																																																      "	mov	%eax, %cr0\n"
																																																																      "	ljmp	$0, $" AT("real") "\n"
																																																																				  "real:\n"
																																																																				  "	mov	$4, %al\n" OUT("%al") "	hlt\n"
																																																																								      "guest_real_triple:\n" /* IDTR's limit is 0 */
																																																																								      "	int3\n"
																																																																								      "	hlt\n"
																																																																								      "guest_pit:\n" /* ECX ticks of the PIT; waits by HLT if ESI is 0. IRQ 5 counts, too */
																																																																								      "	cli\n"
																																																																								      "	mov	$0x11, %al\n"
																																																																								      "	out	%al, $0x20\n"
																																																																								      "	out	%al, $0xa0\n"
																																																																								      "	mov	$0x20, %al\n"
																																																																								      "	out	%al, $0x21\n"
																																																																								      "	mov	$0x28, %al\n"
																																																																								      "	out	%al, $0xa1\n"
																																																																								      "	mov	$4, %al\n"
																																																																								      "	out	%al, $0x21\n"
																																																																								      "	mov	$2, %al\n"
																																																																								      "	out	%al, $0xa1\n"
																																																																								      "	mov	$1, %al\n"
																																																																								      "	out	%al, $0x21\n"
																																																																								      "	out	%al, $0xa1\n"
																																																																								      "	mov	$0xde, %al\n"
																																																																								      "	out	%al, $0x21\n"
																																																																								      "	mov	$0xff, %al\n"
																																																																								      "	out	%al, $0xa1\n"
																																																																								      "	mov	$0x34, %al\n" /* counter 0, both bytes, rate generator */
																																																																								      "	out	%al, $0x43\n"
																																																																								      "	mov	$0x00, %al\n"
																																																																								      "	out	%al, $0x40\n"
																																																																								      "	mov	$0x10, %al\n"
																																																																								      "	out	%al, $0x40\n"
																																																																								      "guest_ticking:\n"
																																																																								      "	sti\n"
																																																																								      "1:	test	%si, %si\n"
																																																																								      "	jnz	2f\n"
																																																																								      "	hlt\n"
																																																																								      "2:	cmp	%cx, (%di)\n"
																																																																								      "	jb	1b\n" OUT(
																																																																									      "%al") "3:	hlt\n"
																																																																										     "	jmp	3b\n"
																																																																										     "on_tick:\n" /* IRQ 0 and 5 */
																																																																										     "	push	%ax\n"
																																																																										     "	incw	(%di)\n"
																																																																										     "	mov	$0x20, %al\n"
																																																																										     "	out	%al, $0x20\n"
																																																																										     "	pop	%ax\n"
																																																																										     "	iret\n"
																																																																										     "on_interrupt:\n"
																																																																										     "	mov	$0x20, %al\n" OUT(
																																																																											     "%al") "	iret\n"
																																																																												    "on_nmi:\n"
																																																																												    "	mov	$0xa0, %al\n" OUT("%al") "	mov	$0xa1, %al\n" OUT(
																																																																													    "%al") "	iret\n"
																																																																														   /* After an instruction of two bytes. */
																																																																														   "on_divide:\n"
																																																																														   "	mov	$0, %al\n"
																																																																														   "	jmp	1f\n"
																																																																														   "on_opcode:\n"
																																																																														   "	mov	$6, %al\n"
																																																																														   "	jmp	1f\n"
																																																																														   "on_protection:\n"
																																																																														   "	mov	$13, %al\n"
																																																																														   "1:\n" OUT("%al") "	mov	%sp, %bp\n"
																																																																																     "	addw	$2, (%bp)\n"
																																																																																     "	iret\n"
																																																																																     /* A second CPU: counts at RESULT + 8 when it is started, and for each interrupt. */
																																																																																     ".balign 4096\n"
																																																																																     "guest_other_cpu:\n"
																																																																																     "	xor	%ax, %ax\n"
																																																																																     "	mov	%ax, %ds\n"
																																																																																     "	mov	%ax, %ss\n"
																																																																																     "	mov	$" TEXT(
																																																																																	     STACK) " - 0x800, %sp\n"
																																																																																		    "	call	x2apic_on\n"
																																																																																		    "	lock incl " TEXT(
																																																																																			    RESULT) " + 8\n"
																																																																																				    "	sti\n"
																																																																																				    "1:	hlt\n"
																																																																																				    "	jmp	1b\n"
																																																																																				    "x2apic_on:\n"
																																																																																				    "	mov	$0x1b, %ecx\n" /* IA32_APIC_BASE */
																																																																																				    "	rdmsr\n"
																																																																																				    "	or	$0xc00, %eax\n"
																																																																																				    "	wrmsr\n"
																																																																																				    "	mov	$0x80f, %ecx\n" /* spurious-interrupt vector: on */
																																																																																				    "	mov	$0x1ff, %eax\n"
																																																																																				    "	xor	%edx, %edx\n"
																																																																																				    "	wrmsr\n"
																																																																																				    "	ret\n"
																																																																																				    "guest_ipi:\n" /* its handler */
																																																																																				    "	push	%eax\n"
																																																																																				    "	push	%ds\n"
																																																																																				    "	xor	%ax, %ax\n"
																																																																																				    "	mov	%ax, %ds\n"
																																																																																				    "	lock incl " TEXT(
																																																																																					    RESULT) " + 8\n"
																																																																																						    "	mov	$0x80b, %ecx\n" /* x2APIC: EOI */
																																																																																						    "	xor	%eax, %eax\n"
																																																																																						    "	xor	%edx, %edx\n"
																																																																																						    "	wrmsr\n"
																																																																																						    "	pop	%ds\n"
																																																																																						    "	pop	%eax\n"
																																																																																						    "	iret\n"
																																																																																						    "guest_apic:\n" /* starts the other CPU, which guest_other_cpu is the page of, and sends it ECX interrupts */
																																																																																						    "	mov	%ecx, %esi\n"
																																																																																						    "	call	x2apic_on\n"
																																																																																						    "	mov	$0x830, %ecx\n" /* ICR */
																																																																																						    "	mov	$1, %edx\n"
																																																																																						    "	mov	$0x4500, %eax\n" /* INIT */
																																																																																						    "	wrmsr\n"
																																																																																						    "	mov	%ebx, %eax\n" /* SIPI */
																																																																																						    "	wrmsr\n"
																																																																																						    "1:	pause\n"
																																																																																						    "	cmpl	$1, 8(%di)\n"
																																																																																						    "	jb	1b\n"
																																																																																						    "	mov	$1, %ebp\n"
																																																																																						    "2:	mov	$0x4030, %eax\n" /* fixed, vector 30h */
																																																																																						    "	wrmsr\n"
																																																																																						    "	inc	%ebp\n"
																																																																																						    "3:	pause\n"
																																																																																						    "	cmp	%ebp, 8(%di)\n"
																																																																																						    "	jb	3b\n"
																																																																																						    "	dec	%esi\n"
																																																																																						    "	jnz	2b\n" OUT(
																																																																																							    "%al") "	hlt\n"

																																																																																								   /* Protected mode without paging. */
																																																																																								   ".code32\n"
																																																																																								   "guest_device:\n" /* EBX: a device */
																																																																																								   "	movl	$0x55667788, 4(%ebx)\n"
																																																																																								   "	mov	4(%ebx), %eax\n"
																																																																																								   "	mov	%eax, (%edi)\n"
																																																																																								   "	lea	4(%ebx), %esi\n"
																																																																																								   "	add	$8, %edi\n"
																																																																																								   "	mov	$4, %ecx\n"
																																																																																								   "	rep movsb\n" /* from the device */
																																																																																								   "	lea	-4(%edi), %esi\n"
																																																																																								   "	lea	0x40(%ebx), %edi\n"
																																																																																								   "	mov	$2, %ecx\n"
																																																																																								   "	rep movsw\n" /* to the device */
																																																																																								   "	mov	$1, %eax\n"
																																																																																								   "	xchg	%eax, 4(%ebx)\n"
																																																																																								   "	hlt\n"
																																																																																								   "guest_touch:\n" /* ECX writes of its own address, the first at EBX, ESI bytes apart */
																																																																																								   "1:	mov	%ebx, (%ebx)\n"
																																																																																								   "	add	%esi, %ebx\n"
																																																																																								   "	dec	%ecx\n"
																																																																																								   "	jnz	1b\n"
																																																																																								   "	hlt\n"
																																																																																								   "guest_sum:\n" /* of as many dwords */
																																																																																								   "	xor	%eax, %eax\n"
																																																																																								   "1:	add	(%ebx), %eax\n"
																																																																																								   "	add	%esi, %ebx\n"
																																																																																								   "	dec	%ecx\n"
																																																																																								   "	jnz	1b\n"
																																																																																								   "	mov	%eax, (%edi)\n"
																																																																																								   "	hlt\n"
																																																																																								   "guest_copy:\n" /* ECX bytes from EBX to ESI */
																																																																																								   "	mov	%esi, %edi\n"
																																																																																								   "	mov	%ebx, %esi\n"
																																																																																								   "	rep movsb\n"
																																																																																								   "	hlt\n"
																																																																																								   "guest_spin:\n"
																																																																																								   "1:	incl	(%edi)\n"
																																																																																								   "	jmp	1b\n"
																																																																																								   "guest_count:\n" /* ECX times */
																																																																																								   "1:	lock incl (%ebx)\n"
																																																																																								   "	dec	%ecx\n"
																																																																																								   "	jnz	1b\n"
																																																																																								   "	hlt\n"
																																																																																								   "guest_reader:\n" /* what is at EBX goes to RESULT; counts there, and behind EBX */
																																																																																								   "1:	mov	(%ebx), %eax\n"
																																																																																								   "	mov	%eax, (%edi)\n"
																																																																																								   "	incl	4(%ebx)\n"
																																																																																								   "	incl	4(%edi)\n"
																																																																																								   "	jmp	1b\n"
																																																																																								   "guest_steps:\n"
																																																																																								   "	nop\n"
																																																																																								   "	nop\n"
																																																																																								   "	inc	%eax\n"
																																																																																								   "	nop\n"
																																																																																								   "	hlt\n"

																																																																																								   /* Long mode. */
																																																																																								   ".code64\n"
																																																																																								   "guest_exits:\n" /* all XMM registers live over exits */
																																																																																								   "	movdqu	0x400(%rdi), %xmm0\n"
																																																																																								   "	movdqu	0x410(%rdi), %xmm7\n"
																																																																																								   "	movdqu	0x420(%rdi), %xmm15\n" OUT("%al") "	push	%rax\n"
																																																																																														  "	push	%rbx\n"
																																																																																														  "	push	%rcx\n"
																																																																																														  "	push	%rdx\n"
																																																																																														  "	cpuid\n"
																																																																																														  "	pop	%rdx\n"
																																																																																														  "	pop	%rcx\n"
																																																																																														  "	pop	%rbx\n"
																																																																																														  "	pop	%rax\n"
																																																																																														  "	movdqu	%xmm0, 0x500(%rdi)\n"
																																																																																														  "	movdqu	%xmm7, 0x510(%rdi)\n"
																																																																																														  "	movdqu	%xmm15, 0x520(%rdi)\n"
																																																																																														  "	hlt\n"
																																																																																														  "guest_long:\n"
																																																																																														  "	mov	%cr4, %rax\n"
																																																																																														  "	or	$0x80, %rax\n" /* PGE */
																																																																																														  "	mov	%rax, %cr4\n"
																																																																																														  "	mov	%cr4, %rax\n"
																																																																																														  "	and	$0x80, %eax\n"
																																																																																														  "	stosq\n" /* 0 */
																																																																																														  "	mov	%cr0, %rax\n"
																																																																																														  "	or	$8, %rax\n" /* TS */
																																																																																														  "	mov	%rax, %cr0\n"
																																																																																														  "	mov	%cr0, %rax\n"
																																																																																														  "	and	$8, %eax\n"
																																																																																														  "	stosq\n" /* 1 */
																																																																																														  "	clts\n"
																																																																																														  "	mov	%cr0, %rax\n"
																																																																																														  "	and	$8, %eax\n"
																																																																																														  "	stosq\n" /* 2 */
																																																																																														  "	mov	%cr3, %rax\n"
																																																																																														  "	mov	%rax, %cr3\n"
																																																																																														  "	stosq\n" /* 3 */
																																																																																														  "	mov	$0x1234, %eax\n"
																																																																																														  "	mov	%rax, %dr0\n"
																																																																																														  "	xor	%eax, %eax\n"
																																																																																														  "	mov	%dr0, %rax\n"
																																																																																														  "	stosq\n" /* 4 */
																																																																																														  "	mov	$5, %eax\n"
																																																																																														  "	mov	%rax, %cr8\n"
																																																																																														  "	mov	%cr8, %rax\n"
																																																																																														  "	stosq\n" /* 5 */
																																																																																														  "	mov	$0xc0000103, %ecx\n" /* IA32_TSC_AUX */
																																																																																														  "	mov	$0x77, %eax\n"
																																																																																														  "	xor	%edx, %edx\n"
																																																																																														  "	wrmsr\n"
																																																																																														  "	rdtscp\n"
																																																																																														  "	mov	%ecx, %eax\n"
																																																																																														  "	stosq\n" /* 6 */
																																																																																														  "	mov	$1, %eax\n" /* a hypercall of KVM's that does nothing */
																																																																																														  "	vmcall\n"
																																																																																														  "	stosq\n" /* 7 */
																																																																																														  "	wbinvd\n"
																																																																																														  "	mov	$0xc0000100, %ecx\n" /* IA32_FS_BASE */
																																																																																														  "	mov	$" TEXT(PAGE_TWO) ", %eax\n"
																																																																																																		  "	xor	%edx, %edx\n"
																																																																																																		  "	wrmsr\n"
																																																																																																		  "	mov	%fs:0, %rax\n"
																																																																																																		  "	stosq\n" /* 8 */
																																																																																																		  "	mov	$0xc0000102, %ecx\n" /* IA32_KERNEL_GS_BASE */
																																																																																																		  "	mov	$" TEXT(
																																																																																																			  PAGE_ONE) ", %eax\n"
																																																																																																				    "	wrmsr\n"
																																																																																																				    "	swapgs\n"
																																																																																																				    "	mov	%gs:0, %rax\n"
																																																																																																				    "	stosq\n" /* 9 */
																																																																																																				    "	sub	$32, %rsp\n"
																																																																																																				    "	sidt	(%rsp)\n"
																																																																																																				    "	mov	2(%rsp), %rax\n"
																																																																																																				    "	stosq\n" /* 10 */
																																																																																																				    "	sgdt	(%rsp)\n"
																																																																																																				    "	mov	2(%rsp), %rax\n"
																																																																																																				    "	stosq\n" /* 11 */
																																																																																																				    "	str	%eax\n"
																																																																																																				    "	movzwl	%ax, %eax\n"
																																																																																																				    "	stosq\n" /* 12 */
																																																																																																				    "	pause\n"
																																																																																																				    "	mov	%cr2, %rax\n"
																																																																																																				    "	stosq\n" /* 13 */
																																																																																																				    "	hlt\n"
																																																																																																				    "guest_xcr0:\n"
																																																																																																				    "	xor	%ecx, %ecx\n"
																																																																																																				    "	xor	%edx, %edx\n"
																																																																																																				    "	mov	$3, %eax\n"
																																																																																																				    "	xsetbv\n"
																																																																																																				    "	xor	%eax, %eax\n"
																																																																																																				    "	xgetbv\n"
																																																																																																				    "	stosq\n"
																																																																																																				    "	mov	$7, %eax\n"
																																																																																																				    "	xsetbv\n"
																																																																																																				    "	xor	%eax, %eax\n"
																																																																																																				    "	xgetbv\n"
																																																																																																				    "	stosq\n"
																																																																																																				    "	vpcmpeqb %xmm0, %xmm0, %xmm0\n"
																																																																																																				    "	vinsertf128 $1, %xmm0, %ymm0, %ymm0\n" OUT(
																																																																																																					    "%al") "	vmovdqu	%ymm0, (%rdi)\n"
																																																																																																						   "	hlt\n"
																																																																																																						   "guest_faults:\n" FAULTS_AT(
																																																																																																							   "	mov	0x90000000, %eax") FAULTS_AT("	mov	$0x90000000, %eax\n	mov	%eax, (%rax)") FAULTS_AT("	movb	$1, " TEXT(READ_ONLY)) FAULTS_AT("	mov	" TEXT(RESERVED) ", %eax")
																																																																																																							   FAULTS_AT("	ud2") FAULTS_AT("	xor	%ebx, %ebx\n	div	%ebx") FAULTS_AT("	mov	$0x12345, %ecx\n	rdmsr")
																																																																																																								   FAULTS_AT("	mov	%cr4, %rax\n	bts	$31, %rax\n	mov	%rax, %cr4")
																																																																																																									   FAULTS_AT("	xor	%ecx, %ecx\n	xor	%edx, %edx\n	xor	%eax, %eax\n	xsetbv") FAULTS_AT("	mov	%cr0, %rax\n	btr	$0, %rax\n	mov	%rax, %cr0") FAULTS_AT("	mov	$1, %eax\n	shl	$62, %rax\n	mov	(%rax), %eax") FAULTS_AT("	int3") FAULTS_AT(
																																																																																																										   "	vmread	%rax, %rax") FAULTS_AT("	mov	$0x100, %eax\n	ltr	%ax") FAULTS_AT("	mov	$0x90000000, %eax\n	jmp	*%rax") FAULTS_AT("	mov	$1, %eax\n	shl	$62, %rax\n	mov	$0xc0000100, %ecx\n	mov	%rax, %rdx\n	shr	$32, %rdx\n	wrmsr") "	hlt\n"
																																																																																																																																																/* ECX times: PAGE_ONE's linear address shows PAGE_ONE, then PAGE_TWO. Counts how often it did not. */
																																																																																																																																																"guest_cr3:\n"
																																																																																																																																																"	xor	%edx, %edx\n"
																																																																																																																																																"1:	mov	$" TEXT(
																																																																																																																																																	OTHER_TABLES) ", %eax\n"
																																																																																																																																																		      "	mov	%rax, %cr3\n"
																																																																																																																																																		      "	cmpl	$2, " TEXT(
																																																																																																																																																			      PAGE_ONE) "\n"
																																																																																																																																																					"	setne	%al\n"
																																																																																																																																																					"	movzbl	%al, %eax\n"
																																																																																																																																																					"	add	%eax, %edx\n"
																																																																																																																																																					"	mov	$" TEXT(TABLES) ", %eax\n"
																																																																																																																																																									"	mov	%rax, %cr3\n"
																																																																																																																																																									"	cmpl	$1, " TEXT(PAGE_ONE) "\n"
																																																																																																																																																													     "	setne	%al\n"
																																																																																																																																																													     "	movzbl	%al, %eax\n"
																																																																																																																																																													     "	add	%eax, %edx\n"
																																																																																																																																																													     "	dec	%ecx\n"
																																																																																																																																																													     "	jnz	1b\n"
																																																																																																																																																													     "	mov	%rdx, (%rdi)\n"
																																																																																																																																																													     "	hlt\n"
																																																																																																																																																													     "guest_invlpg:\n"
																																																																																																																																																													     "	xor	%edx, %edx\n"
																																																																																																																																																													     "1:	movq	$" TEXT(PAGE_TWO) " + 3, " TEXT(TABLES) " + 0x3000 + 8 * (" TEXT(PAGE_ONE) " >> 12)\n"
																																																																																																																																																																									   "	invlpg	" TEXT(
																																																																																																																																																																										   PAGE_ONE) "\n"
																																																																																																																																																																											     "	cmpl	$2, " TEXT(PAGE_ONE) "\n"
																																																																																																																																																																															     "	setne	%al\n"
																																																																																																																																																																															     "	movzbl	%al, %eax\n"
																																																																																																																																																																															     "	add	%eax, %edx\n"
																																																																																																																																																																															     "	movq	$" TEXT(PAGE_ONE) " + 3, " TEXT(
																																																																																																																																																																																     TABLES) " + 0x3000 + 8 * (" TEXT(PAGE_ONE) " >> 12)\n"
																																																																																																																																																																																						"	invlpg	" TEXT(PAGE_ONE) "\n"
																																																																																																																																																																																										 "	cmpl	$1, " TEXT(PAGE_ONE) "\n"
																																																																																																																																																																																														     "	setne	%al\n"
																																																																																																																																																																																														     "	movzbl	%al, %eax\n"
																																																																																																																																																																																														     "	add	%eax, %edx\n"
																																																																																																																																																																																														     "	dec	%ecx\n"
																																																																																																																																																																																														     "	jnz	1b\n"
																																																																																																																																																																																														     "	mov	%rdx, (%rdi)\n"
																																																																																																																																																																																														     "	hlt\n"
																																																																																																																																																																																														     "guest_triple:\n"
																																																																																																																																																																																														     "	pushq	$0\n"
																																																																																																																																																																																														     "	pushq	$0\n"
																																																																																																																																																																																														     "	lidt	(%rsp)\n"
																																																																																																																																																																																														     "	int3\n"
																																																																																																																																																																																														     "	hlt\n"
																																																																																																																																																																																														     /* Exceptions: on_vector + 16 * vector. */
																																																																																																																																																																																														     ".balign 16\n"
																																																																																																																																																																																														     "on_vector:\n"
																																																																																																																																																																																														     ".set vector, 0\n"
																																																																																																																																																																																														     ".rept 32\n"
																																																																																																																																																																																														     "	.balign	16\n"
																																																																																																																																																																																														     "	.if	(vector != 8) && (vector < 10 || vector > 14) && (vector != 17)\n"
																																																																																																																																																																																														     "	push	$0\n"
																																																																																																																																																																																														     "	.endif\n"
																																																																																																																																																																																														     "	push	$vector\n"
																																																																																																																																																																																														     "	jmp	on_any\n"
																																																																																																																																																																																														     "	.set	vector, vector + 1\n"
																																																																																																																																																																																														     ".endr\n"
																																																																																																																																																																																														     "on_any:\n"
																																																																																																																																																																																														     "	popq	" TEXT(FAULT) "\n"
																																																																																																																																																																																																	      "	popq	" TEXT(FAULT) " + 8\n"
																																																																																																																																																																																																				      "	mov	%cr2, %rax\n"
																																																																																																																																																																																																				      "	mov	%rax, " TEXT(FAULT) " + 16\n"
																																																																																																																																																																																																								    "	mov	$" TEXT(STACK) ", %esp\n"
																																																																																																																																																																																																											       "	jmp	*" TEXT(
																																																																																																																																																																																																												       FAULT) " + 24\n"
																																																																																																																																																																																																													      "guest_end:\n"
																																																																																																																																																																																																													      ".popsection\n");
