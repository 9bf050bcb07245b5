; SPDX-License-Identifier: MIT
; VM entry and exit of the host. Only saves, calls, restores.
bits 64
default rel

extern exit_dispatch, entry_failed

section .text

; HOST_RIP. HOST_RSP is the top of this CPU's stack, so struct guest_registers always lies right below it. The CPU has loaded
; CR3, GDT, IDT, GS base and the stack; RFLAGS is 2.
global vmx_exit
vmx_exit:
	push	r15
	push	r14
	push	r13
	push	r12
	push	r11
	push	r10
	push	r9
	push	r8
	push	rdi
	push	rsi
	push	rbp
	push	rsp			; place of RSP, which lies in the VMCS
	push	rbx
	push	rdx
	push	rcx
	push	rax
	mov	rdi, rsp
	call	exit_dispatch		; (struct guest_registers *)
	pop	rax
	pop	rcx
	pop	rdx
	pop	rbx
	add	rsp, 8
	pop	rbp
	pop	rsi
	pop	rdi
	pop	r8
	pop	r9
	pop	r10
	pop	r11
	pop	r12
	pop	r13
	pop	r14
	pop	r15
	vmresume
	and	rsp, -16
	call	entry_failed		; VMfail: does not return

global host_launch
host_launch:
	xor	eax, eax
	xor	ecx, ecx
	xor	edx, edx
	xor	ebx, ebx
	xor	ebp, ebp
	xor	esi, esi
	xor	edi, edi
	xor	r8d, r8d
	xor	r9d, r9d
	xor	r10d, r10d
	xor	r11d, r11d
	xor	r12d, r12d
	xor	r13d, r13d
	xor	r14d, r14d
	xor	r15d, r15d
	vmlaunch
	and	rsp, -16
	call	entry_failed
