// SPDX-License-Identifier: MIT
/* What the assembly has to know: the compiler's output of this file becomes NASM's %defines. */
#include "image_format.h"

void asm_offsets(void);

void asm_offsets(void)
{
	asm volatile("\n#define LOADER_ADDRESS %0" ::"i"(LOADER_ADDRESS));
}
