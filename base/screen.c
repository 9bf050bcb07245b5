// SPDX-License-Identifier: MIT
/*
 * Errors on the screen, for a user without a serial line. The frame buffer is the host's: the monitor draws only what
 * log level error has, when it stops or can't protect the machine.
 */
#include "address_space.h"
#include "log.h"
#include "monitor.h"
#include "page_mark.h"

#define GLYPH_WIDTH 8 /* pixels */
#define GLYPH_HEIGHT 16
#define GLYPHS 95 /* printable ASCII, from the space on */

extern const u8 screen_font[GLYPHS][GLYPH_HEIGHT]; /* base/font.asm */

static u32 rows_drawn; /* of text; under log_lock */

/*
 * One row of text, in white on black, which is the same in all formats of 32 bits. The host may have moved the frame
 * buffer: then the writes go nowhere, or to a device, as its own could. They never reach memory that can be given away.
 */
static void draw_row(const struct boot_screen *screen, u64 row, const char *text, u32 length, u32 columns)
{
	u8 *window = NULL;

	for (u64 y = 0; y < GLYPH_HEIGHT; y++) {
		u64 address = screen->base + (row * GLYPH_HEIGHT + y) * screen->pitch * sizeof(u32);

		for (u32 x = 0; x < columns * GLYPH_WIDTH; x++, address += sizeof(u32)) {
			u8 glyph = x / GLYPH_WIDTH < length ? (u8)(text[x / GLYPH_WIDTH] - ' ') : 0;

			if (x == 0 || address % PAGE_SIZE == 0) {
				if (page_mark_state(&monitor.marks, address >> PAGE_SHIFT) != HYPERPS_FRAME_DEVICE)
					return;
				window = set_window(address >> PAGE_SHIFT, PTE_RW | PTE_UNCACHED);
			}
			*(volatile u32 *)(window + address % PAGE_SIZE) =
				glyph < GLYPHS && screen_font[glyph][y] << x % GLYPH_WIDTH & 0x80 ? ~0U : 0;
		}
	}
}

void screen_line(const char *text, u32 length)
{
	const struct boot_screen *screen = &monitor.boot->screen;
	u32 columns = screen->width / GLYPH_WIDTH;

	if (!columns || !this_cpu()->window)
		return;
	/* Down to the bottom, and then no more: the first lines tell most. */
	while (length && rows_drawn < screen->height / GLYPH_HEIGHT) {
		u32 part = length < columns ? length : columns;

		draw_row(screen, rows_drawn++, text, part, columns);
		text += part;
		length -= part;
	}
	set_window(0, 0);
}
