// SPDX-License-Identifier: MIT
/* What the compiler may call for assignments and copies of structures. */
#include "types.h"

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);

void *memcpy(void *to, const void *from, size_t size)
{
	void *d = to;

	asm volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(size)::"memory");
	return to;
}

void *memset(void *to, int value, size_t size)
{
	void *d = to;

	asm volatile("rep stosb" : "+D"(d), "+c"(size) : "a"(value) : "memory");
	return to;
}
