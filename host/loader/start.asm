; SPDX-License-Identifier: MIT
; Where the loader is entered, its way down to real mode, and up again. It is linked where it runs once it is protected, and runs
; elsewhere before: all addresses are relative but those behind `descend', which are of the copy there.
%include "asm_offsets.inc"

extern measured_end, boot_start, efi_start, protected_start, refused, page_tables
global entry_32, efi_entry, descend, enter_kernel, run_on, load_segments, entry_protected

CODE64 equ 0x10 ; Linux wants these two
DATA equ 0x18
CODE16 equ 0x20
DATA16 equ 0x28
LOW_SEGMENT equ LOADER_ADDRESS >> 4
EFER equ 0xc0000080

section .start
bits 32
; 32-bit entry of the boot protocol: ESI = boot_params.
entry_32:
	cli
	cld
	lea esp, [esi + 0x1e8] ; the protocol's four bytes to scratch
	call .here
.here:	pop ebp
	sub ebp, .here - entry_32
	lea esp, [ebp + stack_top - entry_32]
	lea edi, [ebp + page_tables - entry_32]
	; 4 GiB in pages of 2 MiB: a table, a table of four, four tables.
	mov edx, edi
	lea eax, [edi + 0x1003]
	mov [edi], eax
	lea edi, [edi + 0x1000]
	mov ecx, 4
.gib:	add eax, 0x1000
	mov [edi], eax
	add edi, 8
	loop .gib
	lea edi, [edx + 0x2000]
	mov eax, 0x83
	mov ecx, 2048
.page:	mov [edi], eax
	add eax, 0x200000
	add edi, 8
	loop .page
	lea eax, [ebp + gdt - entry_32]
	push eax
	push word gdt_end - gdt - 1
	lgdt [esp]
	mov cr3, edx
	mov eax, cr4
	or eax, 0x20 ; PAE
	mov cr4, eax
	mov ecx, EFER
	rdmsr
	or eax, 0x100 ; LME
	wrmsr
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	push dword CODE64
	lea eax, [ebp + go - entry_32]
	push eax
	retf

	times LOADER_TABLE_OFFSET - ($ - entry_32) db 0xcc
	dq entry_protected, pml4, measured_end
	times 0x200 - ($ - entry_32) db 0xcc
bits 64
; 64-bit entry of the boot protocol, at this offset: RSI = boot_params.
entry_64:
	cli
	cld
go:	lea rsp, [rel stack_top]
	mov rdi, rsi
	xor ebp, ebp
	call boot_start

efi_entry:
	jmp efi_start

; run_on(function, argument): with the loader's own stack.
run_on:
	lea rsp, [rel stack_top]
	mov rax, rdi
	mov rdi, rsi
	xor ebp, ebp
	call rax

; The loader's own GDT.
load_segments:
	lea rax, [rel gdt]
	sub rsp, 16
	mov word [rsp + 6], gdt_end - gdt - 1
	mov [rsp + 8], rax
	lgdt [rsp + 6]
	add rsp, 16
	mov eax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	xor eax, eax
	mov fs, ax
	mov gs, ax
	pop rcx
	push CODE64
	push rcx
	retfq

; enter_kernel(entry, boot_params)
enter_kernel:
	mov rax, rdi
	xor edi, edi
	xor ebp, ebp
	xor ebx, ebx
	jmp rax

; descend(list): from 64-bit mode to real mode, in the copy at LOADER_ADDRESS, and there PROTECT; without a list up again at once, to
; where PROTECT leads.
descend:
	mov ebx, edi
	mov eax, .low
	jmp rax
.low:	lgdt [abs gdtr]
	lidt [abs real_idtr]
	push CODE16
	push .half - entry_32
	retfq
bits 16
.half:	mov ax, DATA16
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov fs, ax
	mov gs, ax
	mov eax, cr0
	and eax, 0x7fffffff
	mov cr0, eax
	xor eax, eax
	mov cr4, eax
	mov ecx, EFER
	rdmsr
	xor ax, ax
	wrmsr
	mov eax, cr0
	and al, 0xfe
	mov cr0, eax
	jmp LOW_SEGMENT:.real - entry_32
.real:	mov ax, LOW_SEGMENT
	mov ds, ax
	mov ss, ax
	mov ax, LIST_ADDRESS >> 4
	mov es, ax
	mov edi, entry_protected
	test ebx, ebx
	jz .up
	mov edi, refused
	mov dword [es:LIST_SHARED_BIT], PROTECT_SHARED_BIT_MOST
	; The CPU's physical width, which QEMU may hide, decides which bit it is: a wrong one is refused, and nothing has changed.
.try:	mov eax, PROTECT_CALL
	vmcall
	cmp eax, -PROTECT_ERROR_SHARED_BIT
	jne .up
	dec dword [es:LIST_SHARED_BIT]
	cmp dword [es:LIST_SHARED_BIT], PROTECT_SHARED_BIT_LEAST
	jae .try
; It did not protect.
.up:	mov esi, eax
	o32 lgdt [gdtr - entry_32]
	mov eax, 0x20
	mov cr4, eax
	mov eax, pml4
	mov cr3, eax
	mov ecx, EFER
	rdmsr
	or ax, 0x100
	wrmsr
	mov eax, cr0
	or eax, 0x80000001
	mov cr0, eax
	jmp dword CODE64:.long
bits 64
.long:	mov eax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, stack_top
	xor ebp, ebp
	jmp rdi

; Where a protected VM begins: CR3 = pml4, nothing else is known.
entry_protected:
	cli
	cld
	mov esp, stack_top
	call load_segments
	xor ebp, ebp
	call protected_start

align 8
gdt:	dq 0
	dq 0x00cf9b000000ffff ; 32-bit code
	dq 0x00af9b000000ffff ; 64-bit code
	dq 0x00cf93000000ffff ; data
	dq 0x00009b000000ffff | (LOADER_ADDRESS & 0xffffff) << 16 ; 16-bit code
	dq 0x000093000000ffff | (LOADER_ADDRESS & 0xffffff) << 16
gdt_end:
gdtr:	dw gdt_end - gdt - 1
	dq gdt
real_idtr: dw 0x3ff
	dq 0

; Page tables for the first 2 MiB. The loader makes larger ones as soon as it runs.
section .tables align=4096
global pml4
pml4:	dq pdpt + 3
	times 511 dq 0
pdpt:	dq pd + 3
	times 511 dq 0
pd:	dq 0x83
	times 511 dq 0

section .bss align=16
	resb 16384
stack_top:
