// SPDX-License-Identifier: MIT
/* What compilers call in freestanding code, and the page tables. */
#include "loader.h"

u64 page_tables[6][512] __attribute__((aligned(4096)));
static u64 window_tables[4][512] __attribute__((aligned(4096)));

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *result = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return result;
}

void *memmove(void *to, const void *from, size_t bytes)
{
	u8 *to_end = (u8 *)to + bytes - 1;
	const u8 *from_end = (const u8 *)from + bytes - 1;

	if ((u64)to - (u64)from >= bytes)
		return memcpy(to, from, bytes);
	asm volatile("std; rep movsb; cld" : "+D"(to_end), "+S"(from_end), "+c"(bytes) : : "memory");
	return to;
}

void *memset(void *to, int value, size_t bytes)
{
	void *result = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const u8 *x = a, *y = b;

	for (; bytes; bytes--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

void map_memory(u64 shared_bit)
{
	u64 *root = page_tables[0], *pdpt = page_tables[1];

	root[0] = (u64)pdpt | 3;
	for (u64 i = 0; i < 4; i++) {
		pdpt[i] = (u64)page_tables[2 + i] | 3;
		pdpt[i + SHARED_WINDOW / PAGE_SIZE_1G] = (u64)window_tables[i] | 3;
		for (u64 j = 0; j < 512; j++) {
			u64 address = i * PAGE_SIZE_1G + j * PAGE_SIZE_2M;

			page_tables[2 + i][j] = address | 0x83;
			window_tables[i][j] = address | shared_bit | 0x83;
		}
	}
	WRITE_REGISTER(cr3, root);
}
