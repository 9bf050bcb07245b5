; SPDX-License-Identifier: MIT
; One exit to the host with a pattern in every register.
bits 64
default rel
global round_trip, exit_out, exit_in, exit_call, exit_touch, exit_cpuid, touch_page

struc trip			; struct trip of registers.c
.want:		resq 16		; RFLAGS, then R15 to RAX as they are pushed below
.got:		resq 16
.exit:		resq 1
.has_xsave:	resq 1
.want_state:	resq 1
.before:	resq 1
.after:		resq 1
endstruc

PORT equ 0x5a			; PATTERN_PORT

%macro save_state 1
	mov rsi, [rdi + trip.%1]
	mov eax, -1
	mov edx, eax
	cmp qword [rdi + trip.has_xsave], 0
	je %%legacy
	xsave64 [rsi]
	jmp %%done
%%legacy:
	fxsave64 [rsi]
%%done:
%endmacro

section .text
; void round_trip(struct trip *)
round_trip:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	push rdi
	push qword [rdi + trip.exit]
	mov rsi, [rdi + trip.want_state]
	mov eax, -1
	mov edx, eax
	cmp qword [rdi + trip.has_xsave], 0
	je .legacy
	xrstor64 [rsi]
	jmp .loaded
.legacy:
	fxrstor64 [rsi]
.loaded:
	save_state before
	mov rax, [rdi + trip.want + 15 * 8]
	mov rcx, [rdi + trip.want + 14 * 8]
	mov rdx, [rdi + trip.want + 13 * 8]
	mov rbx, [rdi + trip.want + 12 * 8]
	mov rbp, [rdi + trip.want + 11 * 8]
	mov rsi, [rdi + trip.want + 10 * 8]
	mov r8, [rdi + trip.want + 8 * 8]
	mov r9, [rdi + trip.want + 7 * 8]
	mov r10, [rdi + trip.want + 6 * 8]
	mov r11, [rdi + trip.want + 5 * 8]
	mov r12, [rdi + trip.want + 4 * 8]
	mov r13, [rdi + trip.want + 3 * 8]
	mov r14, [rdi + trip.want + 2 * 8]
	mov r15, [rdi + trip.want + 1 * 8]
	push qword [rdi + trip.want]
	mov rdi, [rdi + trip.want + 9 * 8]
	popfq
	call [rsp]
	push rax
	push rcx
	push rdx
	push rbx
	push rbp
	push rsi
	push rdi
	push r8
	push r9
	push r10
	push r11
	push r12
	push r13
	push r14
	push r15
	pushfq
	push qword 2
	popfq			; direction flag and alignment check off
	mov rdi, [rsp + 17 * 8]
	mov rbx, rdi
	mov rsi, rsp
	add rdi, trip.got
	mov ecx, 16
	rep movsq
	mov rdi, rbx
	save_state after
	fninit			; no pending exception stays behind
	add rsp, 18 * 8
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret

exit_out:
	out PORT, eax
	ret
exit_in:
	in al, PORT
	ret
exit_call:
	vmcall			; RAX, the pattern, is no call
	ret
exit_touch:
	mov [touch_page], rax
	ret
exit_cpuid:
	cpuid
	ret

section .bss align=4096
align 4096
touch_page:
	resb 4096

section .note.GNU-stack noalloc noexec nowrite progbits
