; SPDX-License-Identifier: MIT
; The landing: what the gate runs in the monitor view at the gate's own linear address, from the VMFUNC of the airlock to the
; VMFUNC that goes back. gate_view.c copies it to each CPU's landing page and fills in the two addresses. It lies in .rodata: in the
; monitor's own text these bytes would be one more VMFUNC.
bits 64
default rel
%include "asm_offsets.inc"

section .rodata

; What is known here, because the airlock's straight line is the only way to a filled slot 2 (docs/gate.md): CPL 0, 64-bit
; mode, CR3 = the gate's, IF, TF and DR7 clear, EAX = 0. Everything else is the host's. No exception may come before LIDT: it
; would use the host's IDTR in this view. None can: both instructions before it only touch the CPU's own, mapped pages.
global gate_landing, gate_landing_end, gate_landing_frame, gate_landing_serve
gate_landing:
	db	0x48, 0xbc		; mov rsp, imm64: this CPU's struct gate_frame
gate_landing_frame:
	dq	0
	sidt	[rsp + GATE_FRAME_HOST_IDTR]
	lidt	[rsp + GATE_FRAME_EMPTY_IDTR]
	mov	qword [rsp + GATE_FRAME_SLOT_2], 0
	mov	[rsp + GATE_FRAME_HOST_RSP], rbp
	push	2			; flags: TF might wait for a branch (BTF); DF, AC, NT
	popfq
	lfence				; nothing of what follows starts before slot 2 is empty
	db	0x48, 0xb8		; mov rax, imm64
gate_landing_serve:
	dq	0
	call	gate_landing_return.serve
	; Only results and what the host had leave: RBX and RBP, and R12 to R15, which C keeps.
	mov	rbx, rdx
	mov	rbp, rax
	xor	edx, edx
	xor	esi, esi
	xor	edi, edi
	xor	r8d, r8d
	xor	r9d, r9d
	xor	r10d, r10d
	xor	r11d, r11d
	lidt	[rsp + GATE_FRAME_HOST_IDTR]
	verw	[rsp + GATE_FRAME_NULL_SELECTOR] ; CPU buffers, where the CPU needs it
	mov	rsp, [rsp + GATE_FRAME_HOST_RSP]
	xor	eax, eax
	xor	ecx, ecx
	vmfunc
gate_landing_return:
	; The host may have trained the branch predictors: a jump that they can't be asked for.
.serve:
	call	.set
.capture:
	pause
	lfence
	jmp	.capture
.set:
	mov	[rsp], rax
	ret
gate_landing_end:
; Fails unless the VMFUNC ends at HYPERPS_GATE_RETURN.
	times	0 - (gate_landing_return - gate_landing != GATE_RETURN_VALUE - GATE_LANDING_VALUE) int3
