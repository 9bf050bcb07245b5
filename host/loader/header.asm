; SPDX-License-Identifier: MIT
; The first page of an image: the header of an EFI program and that of a Linux kernel at once, and the real-mode code of the
; latter. hpsctl fills in what depends on the payload: both sizes below SizeOfImage, syssize and init_size.
extern pe_entry, pe_text_bytes, pe_data_bytes, pe_file_bytes

PAGE equ 4096
SECTORS equ PAGE / 512 - 1
E820 equ 0x2d0 ; struct boot_params: the memory map, and how many entries it has
E820_COUNT equ 0x1e8
E820_MOST equ 128
RSDP equ 0x70
CODE32 equ 0x100000 ; where the loaders of kernels put what is behind this page

section .header
bits 16
top:	db 'MZ'
	times 0x3c - ($ - top) db 0
	dd pe - top
pe:	db 'PE', 0, 0
	dw 0x8664, 3 ; x86-64, sections
	dd 0, 0, 0
	dw sections - optional
	dw 0x206 ; executable, without line numbers and symbols
optional:
	dw 0x20b ; PE32+
	db 1, 0
	dd pe_text_bytes, pe_data_bytes, 0
	dd pe_entry, PAGE
	dq 0
	dd PAGE, PAGE ; alignment of sections, in memory and in the file
	dw 0, 0, 0, 0, 0, 0
	dd 0
	dd 0 ; SizeOfImage
	dd PAGE, 0
	dw 10 ; EFI application
	dw 0x100 ; works with no page writable and executable
	dq 0, 0, 0, 0
	dd 0, 6
	times 6 dq 0
sections:
	db '.text', 0, 0, 0
	dd pe_text_bytes, PAGE, pe_text_bytes, PAGE, 0, 0, 0, 0x60000020 ; code, executable, readable
	db '.data', 0, 0, 0
	dd pe_data_bytes, pe_text_bytes + PAGE, pe_data_bytes, pe_text_bytes + PAGE, 0, 0, 0, 0xc0000040 ; readable, writable
	db '.payload'
	dd 0, pe_file_bytes, 0, pe_file_bytes, 0, 0, 0, 0x40000040 ; sizes; readable
	times 0x1f1 - ($ - top) db 0
	db SECTORS
	dw 0
	dd 0 ; syssize
	dw 0, 0xffff, 0, 0xaa55
	db 0xeb, setup_end - ($ + 2)
	db 'HdrS'
	dw 0x20f ; version
	dd 0
	dw 0, version - top - 0x200
	db 0, 1 ; loaded high
	dw 0x8000
	dd CODE32, 0, 0, 0
	dw 0
	db 0, 0
	dd 0
	dd 0x7fffffff, 0x200000 ; initrd_addr_max, alignment
	db 1, 21 ; relocatable
	dw 3 ; 64-bit entry; may lie above 4 GiB
	dd 255, 0
	dq 0
	dd 0, 0
	dq 0, CODE32 ; setup_data, preferred address
	dd 0, 0, 0 ; init_size
setup_end:
	jmp near real_mode

align 8
gdt:	dq 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	dw 31
	dd 0
version: db 'HyperPS protected VM', 0
	times E820 - ($ - top) db 0
	times E820_MOST * 20 db 0

; DS = where this page is; the memory map goes into it, in the place of struct boot_params.
real_mode:
	cli
	cld
	mov ax, ds
	mov es, ax
	mov ss, ax
	mov esp, PAGE ; what follows needs no more than the BIOS does
	xor eax, eax
	mov [RSDP], eax
	mov [RSDP + 4], eax
	xor ebx, ebx
	mov di, E820
	mov bp, E820_MOST
.next:	mov eax, 0xe820
	mov edx, 'PAMS'
	mov ecx, 20
	int 0x15
	jc .done
	cmp eax, 'PAMS'
	jne .done
	inc byte [E820_COUNT]
	add di, 20
	dec bp
	jz .done
	test ebx, ebx
	jnz .next
.done:	cli
	in al, 0x92
	or al, 2
	and al, ~1
	out 0x92, al ; A20
	xor esi, esi
	mov si, ds
	shl esi, 4
	lea eax, [esi + gdt - top]
	mov [gdtr + 2 - top], eax
	o32 lgdt [gdtr - top]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	mov ax, 0x18
	mov ds, ax
	mov es, ax
	mov ss, ax
	jmp dword 0x10:CODE32
	times PAGE - ($ - top) db 0
