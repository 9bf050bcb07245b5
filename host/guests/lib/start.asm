; SPDX-License-Identifier: MIT
; The entry of a 64-bit guest: RDI = command line, ESI = vCPU index. Its page tables are its own, so that it knows where
; they lie: 4 GiB, supervisor from 0 on, and the same once more at USER_ALIAS for ring 3.
bits 64
default rel
extern start_c, on_exception, cpus
global start, exception_stubs, caught, enter_user, user_return, resume_caught, page_tables

PRESENT equ 1 << 0
WRITABLE equ 1 << 1
USER equ 1 << 2
LARGE equ 1 << 7
CPU_BYTES equ 1 << 15		; of struct cpu, with its stacks
CPU_RECOVER equ 0		; offset of recover_rsp
VECTOR_NONE equ -1
USER_RETURN equ 0x80
exception_stub_bytes equ 16	; lib.c knows it

section .text
start:
	cli
	cld
	mov eax, esi
	inc rax
	shl rax, 15
	lea rsp, [cpus]
	add rsp, rax
	lea rax, [page_tables]
	mov cr3, rax
	call start_c
.stop:	cli
	hlt
	jmp .stop

; One stub for each vector, of the same size: its number, and a zero where the CPU pushes no error code.
align exception_stub_bytes
exception_stubs:
%assign vector 0
%rep 256
%if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
	push qword 0
%endif
	push qword strict dword vector
	jmp strict near save_all
	align exception_stub_bytes, int3
%assign vector vector + 1
%endrep

save_all:
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
	mov rdi, rsp
	cld
	call on_exception
	pop r15
	pop r14
	pop r13
	pop r12
	pop r11
	pop r10
	pop r9
	pop r8
	pop rdi
	pop rsi
	pop rbp
	pop rbx
	pop rdx
	pop rcx
	pop rax
	add rsp, 16
	iretq

; int caught(void (*function)(u64), u64 argument): the vector that it raises, or VECTOR_NONE.
caught:
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	mov rbx, rsp
	and rbx, -CPU_BYTES
	push qword [rbx + CPU_RECOVER]	; they nest
	mov [rbx + CPU_RECOVER], rsp
	mov rax, rdi
	mov rdi, rsi
	call rax
	mov eax, VECTOR_NONE
; The exception handler comes back here, with RSP as recover_rsp says and the vector in EAX.
resume_caught:
	mov rbx, rsp
	and rbx, -CPU_BYTES
	pop qword [rbx + CPU_RECOVER]
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	ret

; void enter_user(function, argument, stack, flags): goes to ring 3 by IRET; for use under caught().
enter_user:
	push 0x23			; SS
	push rdx
	push rcx
	push 0x2b			; CS
	push rdi
	mov rdi, rsi
	iretq

user_return:
	int USER_RETURN
	ud2

section .data align=4096
align 4096
page_tables:
	dq pdpt + (PRESENT | WRITABLE)
	dq pdpt + (PRESENT | WRITABLE | USER)
	times 510 dq 0
pdpt:
%assign i 0
%rep 4
	dq pd + i * 4096 + (PRESENT | WRITABLE | USER)
%assign i i + 1
%endrep
	times 508 dq 0
pd:
%assign i 0
%rep 2048
	dq (i << 21) + (PRESENT | WRITABLE | USER | LARGE)
%assign i i + 1
%endrep

section .note.GNU-stack noalloc noexec nowrite progbits
