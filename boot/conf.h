/* SPDX-License-Identifier: MIT */
/* The configuration file \EFI\HYPERPS\hyperps.conf. No EFI types: it builds for the build machine too. */
#ifndef CONF_H
#define CONF_H

#include "types.h"

#define CONF_FILE_MAX 65536 /* bytes */
#define CONF_LINE_MAX 2000 /* bytes; a Linux kernel takes command lines of up to 2047 */
#define CONF_MEMORY_MAX (256ULL << 30) /* bytes of monitor memory, or of kvm_pool */

enum conf_gate { CONF_GATE_AUTO, CONF_GATE_VMFUNC, CONF_GATE_VMCALL };
enum conf_dma { CONF_DMA_AUTO, CONF_DMA_OFF, CONF_DMA_REQUIRE };
enum conf_serial { CONF_SERIAL_PROBE, CONF_SERIAL_NONE, CONF_SERIAL_PORT };

/* Strings are NUL-terminated ASCII and lie in the text that was parsed. NULL: the file doesn't have that key. */
struct conf {
	const char *chainload;
	const char *initrd;
	const char *options;
	bool monitor_off;
	bool unfit_continue;
	u32 gate; /* enum conf_gate */
	u32 dma; /* enum conf_dma */
	bool kvm; /* VMX is offered to the host */
	u64 kvm_pool; /* bytes, 0: by the RAM */
	u64 memory; /* bytes, 0: as much as the monitor needs */
	u32 log_level;
	enum conf_serial serial;
	u16 serial_port; /* valid for CONF_SERIAL_PORT */
	u32 serial_baud; /* 0: as the firmware set it */
};

struct conf_error {
	unsigned line; /* counted from 1; 0: the file as a whole */
	char text[240]; /* ASCII: what is wrong, ". ", and what to write */
};

/*
 * Parses the file's text, which it cuts into strings: text must be writable and have room for one byte behind `size`.
 * Returns false if there is an error, with the first one in *error; *conf then holds what the other lines say.
 */
bool conf_parse(char *text, size_t size, struct conf *conf, struct conf_error *error);

#endif
