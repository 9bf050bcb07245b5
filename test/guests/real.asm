; SPDX-License-Identifier: MIT
; A flat image that starts in real mode at 0x7c00: goes through every mode of the CPU and back, and says so on the serial
; port. EDI = command line, ESI = vCPU index. If the command line begins with "v" it ends by VMCALL with exit code 0, else
; through port 0xf4 with 16, which is exit code 33.
bits 16
org 0x7c00

TABLES equ 0x20000		; three pages; the loader's are below
SERIAL equ 0x3f8
DEBUG_EXIT equ 0xf4
EXIT_VALUE equ 16
SHUTDOWN equ 0x48505386		; HYPERPS_GUEST_SHUTDOWN
MSR_EFER equ 0xc0000080
CODE_32 equ 0x08
DATA_32 equ 0x10
CODE_16 equ 0x18
DATA_16 equ 0x20
CODE_64 equ 0x28

start:
	cli
	cld
	mov [cs:begin.line], edi
	or eax, ebx		; all others are zero
	or eax, ecx
	or eax, edx
	or eax, ebp
	mov bx, cs
	or ax, bx
	mov bx, ss
	or ax, bx
	mov bx, ds
	or ax, bx
	mov [cs:begin.others], eax
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, start
	test esi, esi
	jz .first
.wait:	hlt			; another vCPU: none of its business
	jmp .wait
.first:	cmp dword [begin.others], 0
	mov si, text.registers
	jnz fail
	smsw ax
	test al, 1
	mov si, text.mode
	jnz fail
	mov word [4 * 0x40], .interrupt	; the interrupt table of real mode
	mov word [4 * 0x40 + 2], 0
	int 0x40
	cmp byte [begin.interrupts], 1
	mov si, text.interrupt
	jne fail
	mov si, text.real
	call print_16
	lgdt [gdt_register]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp CODE_32:protected
.interrupt:
	inc byte [begin.interrupts]
	iret

; Prints the text at SI.
print_16:
	lodsb
	test al, al
	jz .end
	mov dx, SERIAL
	out dx, al
	jmp print_16
.end:	ret

fail:	call print_16
	mov ax, 1
	out DEBUG_EXIT, ax
	hlt

bits 32
print:	mov edx, SERIAL
.next:	lodsb
	test al, al
	jz .end
	out dx, al
	jmp .next
.end:	ret

protected:
	mov ax, DATA_32
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, start
	mov esi, text.protected
	call print
	xor eax, eax
	cpuid
	mov edi, TABLES
	mov ecx, 3 * 1024
	xor eax, eax
	rep stosd
	mov dword [TABLES], TABLES + 0x1000 + 3
	mov dword [TABLES + 0x1000], TABLES + 0x2000 + 3
	mov dword [TABLES + 0x2000], 0x83
	mov eax, cr4
	or eax, 1 << 5		; PAE
	mov cr4, eax
	mov eax, TABLES
	mov cr3, eax
	mov ecx, MSR_EFER
	rdmsr
	or eax, 1 << 8		; LME
	wrmsr
	mov eax, cr0
	or eax, 1 << 31
	mov cr0, eax
	jmp CODE_64:long_mode

bits 64
long_mode:
	mov esi, text.long
	mov edx, SERIAL
.next:	lodsb
	test al, al
	jz .end
	out dx, al
	jmp .next
.end:	mov rax, -1		; nothing but 64-bit mode holds this
	shr rax, 32
	cmp eax, -1
	jne $
	push CODE_32
	push compatibility
	retfq

bits 32
compatibility:
	mov ax, DATA_32
	mov ds, ax
	mov ss, ax
	mov esi, text.compatibility
	call print
	mov eax, cr0
	and eax, 0x7fffffff
	mov cr0, eax
	mov ecx, MSR_EFER
	rdmsr
	and eax, ~(1 << 8)
	wrmsr
	mov eax, cr4
	and eax, ~(1 << 5)
	mov cr4, eax
	mov esi, text.no_paging
	call print
	jmp CODE_16:protected_16

bits 16
protected_16:
	mov ax, DATA_16
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov si, text.protected_16
	call print_16
	mov eax, cr0
	and al, ~1
	mov cr0, eax
	jmp 0:real_again

real_again:
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	int 0x40		; the interrupt table serves again
	cmp byte [begin.interrupts], 2
	mov si, text.interrupt
	jne fail
	mov si, text.again
	call print_16
	mov eax, [begin.line]
	mov esi, eax
	shr eax, 4
	and esi, 15
	mov ds, ax
	mov bl, [si]
	call print_16
	xor ax, ax
	mov ds, ax
	mov si, text.end
	call print_16
	cmp bl, 'v'
	je .vmcall
	mov ax, EXIT_VALUE
	out DEBUG_EXIT, ax
	hlt
.vmcall:
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp CODE_32:.protected
bits 32
.protected:
	mov eax, SHUTDOWN
	xor edi, edi
	vmcall
	hlt

align 8
gdt:	dq 0
	dq 0x00cf9b000000ffff
	dq 0x00cf93000000ffff
	dq 0x00009b000000ffff
	dq 0x000093000000ffff
	dq 0x00af9b000000ffff
gdt_register:
	dw $ - gdt - 1
	dd gdt

align 4
begin:
.line:	dd 0
.others: dd 0
.interrupts: db 0

text:
.real:	db `real: 16-bit real mode\r\n`, 0
.protected: db `real: 32-bit protected mode\r\n`, 0
.long:	db `real: 64-bit mode\r\n`, 0
.compatibility: db `real: compatibility mode\r\n`, 0
.no_paging: db `real: protected mode without paging\r\n`, 0
.protected_16: db `real: 16-bit protected mode\r\n`, 0
.again:	db `real: real mode again, command line: `, 0
.end:	db `\r\n`, 0
.registers: db `real: WRONG: registers are not 0 at the start\r\n`, 0
.mode:	db `real: WRONG: this is no real mode\r\n`, 0
.interrupt: db `real: WRONG: INT does not work\r\n`, 0
