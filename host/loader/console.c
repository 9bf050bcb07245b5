// SPDX-License-Identifier: MIT
#include <efi.h>

#include "loader.h"

#define COM1 0x3f8
#define LINE_STATUS 5
#define READY BIT(5)
#define TRIES 100000

static EFI_SYSTEM_TABLE *efi;

void console_use_efi(void *system_table)
{
	efi = system_table;
}

static void put(char c)
{
	u8 status = 0;

	for (u32 i = 0; i < TRIES && !(status & READY); i++)
		status = inb(COM1 + LINE_STATUS);
	outb(COM1, c);
}

/* With a carriage return before each line feed. */
static void put_lines(const char *text, void (*put_one)(char))
{
	for (; *text; text++) {
		if (*text == '\n')
			put_one('\r');
		put_one(*text);
	}
}

static void put_efi(char c)
{
	CHAR16 text[2] = { (u8)c, 0 };

	efi->ConOut->OutputString(efi->ConOut, text);
}

/* One after the other: the firmware's console may be on the same line. */
void print(const char *text)
{
	if (efi && efi->ConOut)
		put_lines(text, put_efi);
	put_lines(text, put);
}

void print_number(u64 number)
{
	char digits[21], *at = digits + sizeof(digits) - 1;

	*at = 0;
	do
		*--at = '0' + number % 10;
	while (number /= 10);
	print(at);
}

void print_hex(const u8 *bytes, u64 count)
{
	for (u64 i = 0; i < count; i++) {
		put("0123456789abcdef"[bytes[i] >> 4]);
		put("0123456789abcdef"[bytes[i] & 15]);
	}
}

void give_up(const char *why)
{
	print("\nHyperPS: ");
	print(why);
	print("\n");
	for (;;)
		cli_hlt();
}
