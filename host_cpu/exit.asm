; SPDX-License-Identifier: MIT
; VM entry and exit of the host. Only saves, calls, restores.
bits 64
default rel

%include "asm_offsets.inc"
%include "registers.inc"

extern exit_dispatch, entry_failed

; The leaf of which only subleaf 1 is filtered.
XSAVE_LEAF equ 0xd

section .text

; HOST_RIP. HOST_RSP is the top of this CPU's stack, so struct registers always lies right below it. The CPU has loaded
; CR3, GDT, IDT, GS base and the stack; RFLAGS is 2.
;
; CPUID is the only exit of a host in its steady state, some 70 times for each program that it starts. So a leaf that is handed
; on as it is gets its answer right here, unless the CPU would do more than move on (single step, interrupt shadow, or a RIP
; that wraps at 4 GiB).
; CPUID overwrites RBX and RDX: this may, too, once the exit is one, and need not give them back.
global vmx_exit
vmx_exit:
	push	rdx
	mov	edx, FIELD_EXIT_REASON
	vmread	rdx, rdx
	cmp	edx, REASON_CPUID
	jne	.dispatch
	cmp	eax, 31
	ja	.high_leaf
	mov	edx, FILTERED_LEAVES
	bt	edx, eax
	jc	.filtered
.unfiltered:
	mov	edx, FIELD_GUEST_RFLAGS
	vmread	rdx, rdx
	test	edx, RFLAGS_TF_BIT
	jnz	.dispatch
	mov	edx, FIELD_GUEST_INTERRUPTIBILITY
	vmread	rdx, rdx
	test	edx, 3			; blocking by STI or MOV SS
	jnz	.dispatch
	mov	edx, FIELD_EXIT_INSTRUCTION_LENGTH
	vmread	rbx, rdx
	mov	edx, FIELD_GUEST_RIP
	vmread	[rsp], rdx
	add	rbx, [rsp]
	xor	[rsp], rbx
	cmp	dword [rsp + 4], 0
	jne	.dispatch
	vmwrite	rdx, rbx
	jbe	.failed
	inc	qword [gs:CPU_EXITS_CPUID]
	cpuid
	vmresume
.failed:
	add	rsp, 8			; VMfail
	jmp	vm_entry_failed

.high_leaf:
	test	eax, eax		; extended leaves
	js	.unfiltered
	jmp	.dispatch
.filtered:
	cmp	eax, XSAVE_LEAF
	jne	.dispatch
	cmp	ecx, 1
	jne	.unfiltered
.dispatch:
	pop	rdx
; HOST_RIP of an L2 (nested/): it has no exit that is answered above.
global nested_exit_entry
nested_exit_entry:
	; struct registers; RSP only has its place there: it lies in the VMCS.
	PUSH_EACH	r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rsp, rbx, rdx, rcx, rax
	mov	rdi, rsp
	call	exit_dispatch		; bool (struct registers *)
.enter:
	test	al, al			; what follows leaves ZF as it is
	POP_EACH	rax, rcx, rdx, rbx
	lea	rsp, [rsp + 8]
	POP_EACH	rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	jnz	.launch
	vmresume
	jmp	vm_entry_failed
.launch:
	vmlaunch

; VMfail. The registers are still the ones that were to be entered with. entry_failed() returns if it was VMCS02's.
vm_entry_failed:
	PUSH_EACH	r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rsp, rbx, rdx, rcx, rax
	call	entry_failed
	xor	eax, eax
	jmp	nested_exit_entry.enter

global host_launch
host_launch:
	CLEAR_EACH	eax, ecx, edx, ebx, ebp, esi, edi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d
	vmlaunch
	and	rsp, -16
	call	entry_failed		; does not return
