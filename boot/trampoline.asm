; SPDX-License-Identifier: MIT
; The trampoline's code page, a flat binary at any page below 1 MiB: from real mode, or from the firmware's page tables, into
; the monitor. trampoline.h describes its pages. It uses no stack and, on its own page, writes nothing: the boot page tables
; map it read-only, which is why the descriptors are preset as accessed.

%include "asm_offsets.inc"

CODE32 equ 0x08
CODE64 equ 0x10
DATA equ 0x18

	org 0
	bits 16
	cli
	cld
	jmp short real_mode

	times PARAMETERS - ($ - $$) db 0
parameters:
	dq 0			; entry
	dq 0			; boot_info
	dd 0			; cr3
	dd 0			; cpu_slots
	dd boot_entry
	dd protected_mode
	dw CODE32, 0
	dd long_mode
	dw CODE64
	dw gdt.end - gdt - 1
	dd gdt
%if $ - parameters != PARAMETERS_SIZE
%error "struct trampoline_parameters differs"
%endif

real_mode:			; an application processor, CS:IP = low_base >> 4 : 0
	mov ax, cs
	mov ds, ax
	movzx ebx, ax
	shl ebx, 4		; EBX = low_base from here on
	o32 lgdt [PARAMETER_GDT]
	mov eax, CR0_FOR_PROTECTED	; INIT leaves CD and NW as they were
	mov cr0, eax
	jmp far dword [PARAMETER_PROTECTED]

	bits 32
protected_mode:
	mov ax, DATA
	mov ds, ax
	mov ss, ax
	mov eax, CR4_FOR_LONG
	mov cr4, eax
	mov eax, [ebx + PARAMETER_CR3]
	mov cr3, eax
	mov ecx, EFER_MSR
	mov eax, EFER_FOR_LONG
	xor edx, edx
	wrmsr
	mov eax, CR0_FOR_LONG
	mov cr0, eax
	jmp far dword [ebx + PARAMETER_LONG]

	bits 64
long_mode:
	mov ebx, ebx		; the upper halves are undefined after the change of mode
	mov edi, 1
	lock xadd [rbx + DATA_NEXT_SLOT], edi
	cmp edi, [rbx + PARAMETER_CPU_SLOTS]
	jb enter_monitor
	lock inc dword [rbx + DATA_EXCESS]
.halt:
	hlt
	jmp .halt

boot_entry:			; the boot CPU, interrupts off
	lea rbx, [rel $$]
	mov ecx, EFER_MSR	; the monitor's tables have NX bits, the firmware's may not
	rdmsr
	or eax, EFER_NXE_BIT
	wrmsr
	mov eax, [rbx + PARAMETER_CR3]
	mov cr3, rax
	xor edi, edi

enter_monitor:			; EDI = CPU slot
	mov rsi, [rbx + PARAMETER_BOOT_INFO]
	jmp [rbx + PARAMETER_ENTRY]

	align 8
gdt:
	dq 0
	dq 0x00cf9b000000ffff	; 32-bit code, flat
	dq 0x00af9b000000ffff	; 64-bit code
	dq 0x00cf93000000ffff	; data, flat
.end:
