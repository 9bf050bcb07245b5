; SPDX-License-Identifier: MIT
; For hpsctl: what every image begins with. IMAGE_BIN is its file.
global loader_image, loader_image_end
section .rodata
align 16
loader_image: incbin IMAGE_BIN
loader_image_end:
section .note.GNU-stack noalloc noexec nowrite progbits
