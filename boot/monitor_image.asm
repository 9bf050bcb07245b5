; SPDX-License-Identifier: MIT
; The monitor's flat image inside the loader.
	section .rodata
	align 4096
	global monitor_image_start:data
	global monitor_image_end:data
monitor_image_start:
	incbin MONITOR_BIN
monitor_image_end:
