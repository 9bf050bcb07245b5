; SPDX-License-Identifier: MIT
; The way into the monitor and back.

%include "asm_offsets.inc"

	default rel
	bits 64
	section .text

; void enter_monitor(struct boot_info *info, u64 low_entry)
; The caller is de-privileged when it returns: a monitor that cannot start panics. Of the general registers only RSP is kept.
	global enter_monitor:function
enter_monitor:
	pushfq
	push rbx
	push rbp
	push r12
	push r13
	push r14
	push r15
	cli			; the firmware's interrupt table isn't mapped in the monitor's page tables
	pushfq
	pop qword [rdi + BOOT_CPU_RFLAGS]
	lea rax, [.resume]
	mov [rdi + BOOT_CPU_RIP], rax
	mov [rdi + BOOT_CPU_RSP], rsp
	jmp rsi
.resume:
	pop r15
	pop r14
	pop r13
	pop r12
	pop rbp
	pop rbx
	popfq
	ret

	section .rodata
	align 16
	global trampoline_start:data
	global trampoline_end:data
trampoline_start:
	incbin TRAMPOLINE_BIN
trampoline_end:

; Stands in for ExitBootServices(ImageHandle, MapKey), Microsoft ABI. The loader copies it to memory that outlives the loader.
; Only the call that succeeds ends the boot services; from then on the firmware starts no CPU any more.
	align 16
	global exit_boot_hook:data
	global exit_boot_hook_original:data
	global exit_boot_hook_end:data
exit_boot_hook:
	push rbx
	push rsi
	push rdi
	sub rsp, 32		; room for the callee's four register arguments
	call [exit_boot_hook_original]
	test rax, rax
	jnz .done
	mov eax, CALL_TAKE_CPUS
	xor edi, edi
	xor esi, esi
	vmcall			; a failure is the monitor's to report; the firmware's services are gone
	xor eax, eax
.done:
	add rsp, 32
	pop rdi
	pop rsi
	pop rbx
	ret
	align 8
exit_boot_hook_original:
	dq 0
exit_boot_hook_end:
