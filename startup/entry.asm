; SPDX-License-Identifier: MIT
; The monitor's entry point.
bits 64
default rel
%include "asm_offsets.inc"

extern cpu_start

section .text

; Every CPU arrives here from the loader's trampoline: EDI = CPU slot, RSI = linear address of boot_info, interrupts off, no
; stack, boot page tables loaded. The final page tables hold this same linear address, and no trampoline.
global monitor_entry
monitor_entry:
	mov	rax, [rsi + BOOT_INFO_FINAL_CR3]
	mov	cr3, rax
	mov	edi, edi
	imul	rdx, rdi, CPU_AREA_SIZE
	add	rdx, [rsi + BOOT_INFO_CPU_AREA]
	mov	rax, MONITOR_VA_VALUE
	add	rdx, rax
	lea	rsp, [rdx + CPU_AREA_STACK_TOP]
	xor	ebp, ebp
	call	cpu_start		; (slot, boot_info, area); does not return
	ud2

; For the image header, which linker.ld writes.
global image_cpu_area_size, image_log_size
image_cpu_area_size	equ CPU_AREA_SIZE
image_log_size		equ LOG_SIZE_VALUE
