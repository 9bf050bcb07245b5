/* SPDX-License-Identifier: MIT */
/* The file that `hpsctl image` makes; README.md draws it. Shared with hpsctl. */
#ifndef IMAGE_FORMAT_H
#define IMAGE_FORMAT_H

#include "types.h"

#define IMAGE_HEADER_BYTES PAGE_SIZE /* PE header, setup header, real-mode code */
/* Where the loader runs once it is protected: what is measured begins there. In the file it begins behind the header. */
#define LOADER_ADDRESS 0x10000
#define COMMAND_LINE_BYTES 2048 /* as x86's Linux takes it, with its NUL */

#define PAYLOAD_MAGIC 0x5453554753505948ULL /* "HYPSGUST" */
#define PAYLOAD_UNPROTECTED BIT(0) /* don't ask for protection: to try an image where there is no monitor */

/* In the loader, this far from its beginning: where PROTECT leads, and where what is measured ends. */
#define LOADER_TABLE_OFFSET 0x1e0
struct loader_table {
	u64 entry, cr3, measured_end;
};

/* Behind the loader; then, each from the next page on, the kernel's file, the initrd and the command line, without a NUL. */
struct payload {
	u64 magic;
	u64 flags;
	u64 kernel_bytes, initrd_bytes, command_line_bytes;
};

#endif
