; SPDX-License-Identifier: MIT
; VM entry and exit of guests: a function that comes back when there is something for the host. Only saves, calls, restores.
bits 64
default rel

%include "asm_offsets.inc"
%include "registers.inc"

RETURN_STACK_ENTRIES equ 32

extern guest_exit_dispatch

; Registers from, or to, struct registers at RDI, from an index on: RSP is not there, RDI comes last.
%macro LOAD_EACH 2-*
%assign index %1
%rep %0 - 1
%rotate 1
	mov	%1, [rdi + 8 * index]
%assign index index + 1
%endrep
%endmacro

%macro STORE_EACH 2-*
%assign index %1
%rep %0 - 1
%rotate 1
	mov	[rdi + 8 * index], %1
%assign index index + 1
%endrep
%endmacro

section .text

; u64 guest_run(struct vcpu *vcpu, struct cpu *cpu, u64 words[8]): 0; or 1 if a VM entry failed with VMfail. struct vcpu begins
; with the guest's registers. HOST_RSP is the stack of this call.
global guest_run, guest_exit
guest_run:
	PUSH_EACH	rbx, rbp, r12, r13, r14, r15, rdx, rsi, rdi
	mov	eax, FIELD_HOST_RSP
	vmwrite	rax, rsp
	jbe	guest_exit.failed
	mov	sil, 1			; the first entry is a launch
.enter:
	test	sil, sil		; no load below changes the flags
	LOAD_EACH	0, rax, rcx, rdx, rbx
	LOAD_EACH	5, rbp, rsi
	LOAD_EACH	8, r8, r9, r10, r11, r12, r13, r14, r15
	mov	rdi, [rdi + 56]
	jnz	.launch
	vmresume
	jmp	guest_exit.failed
.launch:
	vmlaunch
	jmp	guest_exit.failed

; HOST_RIP. The guest's registers are saved and then cleared, so that nothing that runs speculatively finds its values.
guest_exit:
	push	rdi
	mov	rdi, [rsp + 8]
	STORE_EACH	0, rax, rcx, rdx, rbx
	STORE_EACH	5, rbp, rsi
	STORE_EACH	8, r8, r9, r10, r11, r12, r13, r14, r15
	pop	rax
	mov	[rdi + 56], rax
	CLEAR_EACH	eax, ecx, ebx, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d
	mov	rsi, [rsp + 8]
	mov	rdx, [rsp + 16]
	call	guest_exit_dispatch
	mov	rdi, [rsp]
	xor	esi, esi
	test	eax, eax
	jz	guest_run.enter
	; The returns that follow must not be predicted from what the guest left in the return stack buffer.
%rep RETURN_STACK_ENTRIES
	call	$ + 6			; over the INT3
	int3
%endrep
	add	rsp, 8 * RETURN_STACK_ENTRIES
	lfence
	xor	eax, eax
.return:
	add	rsp, 24
	POP_EACH	r15, r14, r13, r12, rbp, rbx
	ret
.failed:
	mov	eax, 1
	jmp	.return
