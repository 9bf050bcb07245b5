; SPDX-License-Identifier: MIT
; The glyphs of printable ASCII, 16 bytes each, a byte for each row of 8 pixels. From base/font.txt.
	section .rodata
	global screen_font:data
screen_font:
	incbin "font.bin"
