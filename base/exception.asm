; SPDX-License-Identifier: MIT
; Exceptions, NMI and machine check in VMX root, and loading the descriptor tables.
bits 64
default rel
%include "asm_offsets.inc"
%include "registers.inc"

extern exception_handler, latch_event, latch_machine_check

section .text

; void load_descriptor_tables(const void *gdt_descriptor, const void *idt_descriptor, struct cpu *cpu)
; FS and GS selectors are null afterwards; GS base is cpu before the IDT is loaded, since handlers use it.
global load_descriptor_tables
load_descriptor_tables:
	lgdt	[rdi]
	push	SELECTOR_CODE_VALUE
	lea	rax, [.code_loaded]
	push	rax
	retfq
.code_loaded:
	mov	eax, SELECTOR_DATA_VALUE
	mov	ss, eax
	mov	ds, eax
	mov	es, eax
	xor	eax, eax
	mov	fs, eax
	mov	gs, eax
	lldt	ax
	mov	eax, SELECTOR_TSS_VALUE
	ltr	ax
	mov	ecx, 0xc0000101		; IA32_GS_BASE
	mov	eax, edx
	shr	rdx, 32
	wrmsr
	lidt	[rsi]
	ret

; Back to the interrupted code, from RIP, CS, RFLAGS, RSP and SS on the stack, but not by IRET: that would end the blocking of
; NMIs, and an exception can come in the middle of the NMI handler.
%macro RETURN_WITHOUT_IRET 0
	push	rax
	push	rbx
	mov	rax, [rsp + 16 + 24]	; the interrupted RSP
	mov	rbx, [rsp + 16]		; RIP
	mov	[rax - 8], rbx
	mov	rbx, [rsp + 16 + 16]	; RFLAGS
	mov	[rax - 16], rbx
	sub	rax, 16
	mov	[rsp + 16], rax
	pop	rbx
	pop	rax
	pop	rsp			; takes the value stored above
	popfq
	ret
%endmacro

; Exceptions, except NMI and machine check: the C handler returns only after it has changed RIP to a fixup address.
%macro EXCEPTION 2			; vector, 1 if the CPU pushes an error code
exception_%1:
%if %2 == 0
	push	0
%endif
	push	%1
	jmp	exception_common
%endmacro

exception_common:
	PUSH_EACH	rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	cld
	mov	rdi, rsp
	mov	rbx, rsp
	and	rsp, -16
	call	exception_handler
	mov	rsp, rbx
	POP_EACH	r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
	add	rsp, 16			; vector, error code
	RETURN_WITHOUT_IRET

; NMI and machine check in VMX root: latched for the host; the second may change RIP to a fixup address. After an NMI, IRET is right: it ends the blocking that began with it.
%macro LATCH 1
exception_%1:
	PUSH_EACH	rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11
	cld
%if %1 == 2
	mov	edi, %1
	call	latch_event
%else
	lea	rdi, [rsp + 9 * 8]	; RIP, behind the registers
	call	latch_machine_check
%endif
	POP_EACH	r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax
%if %1 == 2
	iretq
%else
	RETURN_WITHOUT_IRET
%endif
%endmacro

%assign vector 0
%rep 32
%if vector == 2 || vector == 18
LATCH vector
%elif vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
EXCEPTION vector, 1
%else
EXCEPTION vector, 0
%endif
%assign vector vector + 1
%endrep

section .rodata
global exception_entries
align 8
exception_entries:
%assign vector 0
%rep 32
	dq	exception_ %+ vector
%assign vector vector + 1
%endrep
