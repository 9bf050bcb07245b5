; SPDX-License-Identifier: MIT
; The multiboot guest's entry, exceptions, and what C can't do in 32-bit protected mode.
bits 32
extern protected_main, seen_vector, recover_esp
global start, caught, exception_stubs, ac_loop, switch_task, task_entry, call_32

STACK equ 16384
MAGIC equ 0x1badb002
FLAGS equ 3			; modules aligned, memory information
CODE equ 0x08
DATA equ 0x10
USER_CODE equ 0x1b
USER_DATA equ 0x23
OTHER_TASK equ 0x30
stub_bytes equ 16		; protected.c knows it

section .multiboot
	dd MAGIC, FLAGS, -(MAGIC + FLAGS)

section .text
start:
	cli
	cld
	test esi, esi
	jnz .stop			; another vCPU: this guest uses one
	mov esp, stack_end
	push ebx
	push eax
	call protected_main
.stop:	hlt
	jmp .stop

align stub_bytes
exception_stubs:
%assign vector 0
%rep 32
	mov byte [seen_vector], vector
	jmp strict near recover
	align stub_bytes, int3
%assign vector vector + 1
%endrep

; int caught(void (*function)(void)): the vector that it raises, or 255.
caught:
	push ebx
	push esi
	push edi
	push ebp
	mov [recover_esp], esp
	mov byte [seen_vector], 255
	call [esp + 20]
recover:
	mov esp, [recover_esp]
	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	pop ebp
	pop edi
	pop esi
	pop ebx
	movzx eax, byte [seen_vector]
	ret

; int call_32(number, argument, low, high): a hypercall.
call_32:
	push edi
	push esi
	mov eax, [esp + 12]
	mov edi, [esp + 16]
	mov esi, [esp + 20]
	mov edx, [esp + 24]
	vmcall
	pop esi
	pop edi
	ret

; CVE-2015-5307: in ring 3 with AC set and a misaligned stack, with a handler of #AC in ring 3: its delivery raises #AC,
; and so on without end. The caller has set the gate up.
ac_loop:
	push USER_DATA
	push user_stack_end + 1
	push 0x40002
	push USER_CODE
	push .ring3
	iretd
.ring3:	push eax
	jmp $

switch_task:
	jmp OTHER_TASK:0
task_entry:
	mov byte [seen_vector], 254	; it works
	jmp recover

section .bss
align 16
	resb STACK
stack_end:
	resb 4096
user_stack_end:
	resb 16

section .note.GNU-stack noalloc noexec nowrite progbits
