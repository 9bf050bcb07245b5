; SPDX-License-Identifier: MIT
; VM entry and exit of guests: a function that comes back when there is something for the host. Only saves, calls, restores.
bits 64
default rel

%include "asm_offsets.inc"

RETURN_STACK_ENTRIES equ 32

extern guest_exit_dispatch

section .text

; u64 guest_run(struct vcpu *vcpu, struct cpu *cpu, u64 words[8]): 0; or 1 if a VM entry failed with VMfail. struct vcpu begins
; with the guest's registers. HOST_RSP is the stack of this call.
global guest_run, guest_exit
guest_run:
	push	rbx
	push	rbp
	push	r12
	push	r13
	push	r14
	push	r15
	push	rdx
	push	rsi
	push	rdi
	mov	eax, FIELD_HOST_RSP
	vmwrite	rax, rsp
	jbe	guest_exit.failed
	mov	sil, 1			; the first entry is a launch
.enter:
	test	sil, sil		; no load below changes the flags
	mov	rax, [rdi]
	mov	rcx, [rdi + 8]
	mov	rdx, [rdi + 16]
	mov	rbx, [rdi + 24]
	mov	rbp, [rdi + 40]
	mov	rsi, [rdi + 48]
	mov	r8, [rdi + 64]
	mov	r9, [rdi + 72]
	mov	r10, [rdi + 80]
	mov	r11, [rdi + 88]
	mov	r12, [rdi + 96]
	mov	r13, [rdi + 104]
	mov	r14, [rdi + 112]
	mov	r15, [rdi + 120]
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
	mov	[rdi], rax
	mov	[rdi + 8], rcx
	mov	[rdi + 16], rdx
	mov	[rdi + 24], rbx
	mov	[rdi + 40], rbp
	mov	[rdi + 48], rsi
	mov	[rdi + 64], r8
	mov	[rdi + 72], r9
	mov	[rdi + 80], r10
	mov	[rdi + 88], r11
	mov	[rdi + 96], r12
	mov	[rdi + 104], r13
	mov	[rdi + 112], r14
	mov	[rdi + 120], r15
	pop	rax
	mov	[rdi + 56], rax
	xor	eax, eax
	xor	ecx, ecx
	xor	ebx, ebx
	xor	ebp, ebp
	xor	r8d, r8d
	xor	r9d, r9d
	xor	r10d, r10d
	xor	r11d, r11d
	xor	r12d, r12d
	xor	r13d, r13d
	xor	r14d, r14d
	xor	r15d, r15d
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
	pop	r15
	pop	r14
	pop	r13
	pop	r12
	pop	rbp
	pop	rbx
	ret
.failed:
	mov	eax, 1
	jmp	.return
