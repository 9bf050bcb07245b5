// SPDX-License-Identifier: MIT
/* What the assembly has to know: the compiler's output of this file becomes NASM's %defines. */
#include "protect.h"

#define DEFINE(name, value) asm volatile("\n#define " #name " %0" ::"i"(value))

void asm_offsets(void);

void asm_offsets(void)
{
	DEFINE(LOADER_ADDRESS, LOADER_ADDRESS);
	DEFINE(LOADER_TABLE_OFFSET, LOADER_TABLE_OFFSET);
	DEFINE(LIST_ADDRESS, LIST_ADDRESS);
	DEFINE(LIST_SHARED_BIT, offsetof(struct protect_list, shared_bit));
	DEFINE(PROTECT_CALL, PROTECT_CALL);
	DEFINE(PROTECT_SHARED_BIT_MOST, PROTECT_SHARED_BIT_MOST);
	DEFINE(PROTECT_SHARED_BIT_LEAST, PROTECT_SHARED_BIT_LEAST);
	DEFINE(PROTECT_ERROR_SHARED_BIT, PROTECT_ERROR_SHARED_BIT);
}
