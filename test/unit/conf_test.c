// SPDX-License-Identifier: MIT
/*
 * The configuration parser, boot/conf.c:
 *   gcc -std=gnu11 -g -fsanitize=address,undefined -Iinclude -Iboot test/unit/conf_test.c boot/conf.c -lcmocka
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "boot_info.h"
#include "conf.h"

#define CHAINLOAD "chainload = a\n"

static struct conf conf;
static struct conf_error error;
static char *text; /* as large as the contract says, so that the sanitizer sees each byte beyond */

static bool parse_bytes(const char *bytes, size_t size)
{
	free(text);
	text = malloc(size + 1);
	memcpy(text, bytes, size);
	text[size] = 'x';
	return conf_parse(text, size, &conf, &error);
}

static bool parse(const char *s)
{
	return parse_bytes(s, strlen(s));
}

static int free_text(void **state)
{
	(void)state;
	free(text);
	text = NULL;
	return 0;
}

static void defaults(void **state)
{
	(void)state;
	assert_true(parse("chainload=\\vmlinuz"));
	assert_string_equal(conf.chainload, "\\vmlinuz");
	assert_null(conf.initrd);
	assert_null(conf.options);
	assert_false(conf.monitor_off);
	assert_false(conf.unfit_continue);
	assert_int_equal(conf.gate, CONF_GATE_AUTO);
	assert_int_equal(conf.dma, CONF_DMA_AUTO);
	assert_false(conf.kvm);
	assert_int_equal(conf.kvm_pool, 0);
	assert_int_equal(conf.memory, 0);
	assert_int_equal(conf.log_level, 2);
	assert_int_equal(conf.serial, CONF_SERIAL_PROBE);
}

static void every_key(void **state)
{
	(void)state;
	assert_true(parse("\xef\xbb\xbf# comment \xc3\xa9\r\n"
			  "\r\n"
			  "  \t\n"
			  "\tchainload = /EFI/debian/grubx64.efi \r\n"
			  "initrd=\\initrd.img\n"
			  "options = root=/dev/sda1 quiet # not a comment\n"
			  "  # comment\n"
			  "monitor = off\n"
			  "unfit = continue\n"
			  "gate = vmcall\n"
			  "dma = require\n"
			  "kvm = on\n"
			  "kvm_pool = 128M\n"
			  "memory = 64M\n"
			  "log_level = debug\n"
			  "serial = 0x3E8,9600"));
	assert_string_equal(conf.chainload, "/EFI/debian/grubx64.efi");
	assert_string_equal(conf.initrd, "\\initrd.img");
	assert_string_equal(conf.options, "root=/dev/sda1 quiet # not a comment");
	assert_true(conf.monitor_off);
	assert_true(conf.unfit_continue);
	assert_int_equal(conf.gate, CONF_GATE_VMCALL);
	assert_int_equal(conf.dma, CONF_DMA_REQUIRE);
	assert_true(conf.kvm);
	assert_int_equal(conf.kvm_pool, 128 << 20);
	assert_int_equal(conf.memory, 64 << 20);
	assert_int_equal(conf.log_level, 3);
	assert_int_equal(conf.serial, CONF_SERIAL_PORT);
	assert_int_equal(conf.serial_port, 0x3e8);
	assert_int_equal(conf.serial_baud, 9600);
}

static void good_values(void **state)
{
	(void)state;
	assert_true(parse(CHAINLOAD "serial = none\nmonitor = on\nunfit = stop\ngate = vmfunc\ndma = off\nkvm = off\n"
				    "kvm_pool = auto\nmemory = auto\n"));
	assert_false(conf.kvm);
	assert_int_equal(conf.kvm_pool, 0);
	assert_int_equal(conf.serial, CONF_SERIAL_NONE);
	assert_int_equal(conf.gate, CONF_GATE_VMFUNC);
	assert_int_equal(conf.dma, CONF_DMA_OFF);
	assert_int_equal(conf.memory, 0);
	assert_true(parse(CHAINLOAD "serial = com1\nlog_level = error\nkvm_pool = 262144M\nmemory = 262144M"));
	assert_int_equal(conf.kvm_pool, CONF_MEMORY_MAX);
	assert_int_equal(conf.serial_port, 0x3f8);
	assert_int_equal(conf.serial_baud, 0);
	assert_int_equal(conf.log_level, 0);
	assert_int_equal(conf.memory, CONF_MEMORY_MAX);
	assert_true(parse(CHAINLOAD "serial = com2,115200\n"));
	assert_int_equal(conf.serial_port, 0x2f8);
	assert_int_equal(conf.serial_baud, 115200);
}

static void bad_lines(void **state)
{
	static const struct {
		const char *line;
		const char *says;
	} cases[] = {
		{ "kernel = a", "unknown key 'kernel'. The keys are chainload" },
		{ "dma = on", "bad value 'on'. Write auto, off or require" },
		{ "Monitor = on", "unknown key 'Monitor'" },
		{ "= on", "unknown key ''" },
		{ "monitor on", "no '=' in 'monitor on'. Write key = value" },
		{ "x", "no '='" },
		{ "initrd =", "no value for 'initrd'. Write a path" },
		{ "initrd = \t\r", "no value for 'initrd'" },
		{ "initrd = a:b", "bad value 'a:b'. Write a path" },
		{ "chainload = b", "a second line for 'chainload'. Keep one" },
		{ "options = \xc3\xa9", "a character outside ASCII" },
		{ "options = a\x01z", "a character outside ASCII" },
		{ "options = a\rb", "a character outside ASCII" },
		{ "monitor = yes", "bad value 'yes'. Write on or off" },
		{ "monitor = onn", "bad value 'onn'" },
		{ "monitor = o", "bad value 'o'" },
		{ "unfit = panic", "Write stop or continue" },
		{ "gate = 1", "Write auto, vmfunc or vmcall" },
		{ "kvm = auto", "bad value 'auto'. Write on or off" },
		{ "kvm_pool = on", "bad value 'on'. Write auto, or MiB for" },
		{ "kvm_pool = 0M", "Write auto, or MiB for" },
		{ "kvm_pool = 262145M", "Write auto, or MiB for" },
		{ "memory = 64", "Write auto, or MiB of" },
		{ "memory = 64MB", "Write auto, or MiB" },
		{ "memory = 0M", "Write auto, or MiB" },
		{ "memory = -1M", "Write auto, or MiB" },
		{ "memory = M", "Write auto, or MiB" },
		{ "memory = 262145M", "Write auto, or MiB" },
		{ "memory = 18446744073709551617M", "Write auto, or MiB" },
		{ "log_level = 3", "Write error, warning, info or debug" },
		{ "serial = com3", "Write none, com1" },
		{ "serial = com1,", "Write none, com1" },
		{ "serial = com1,0", "Write none, com1" },
		{ "serial = com1,115201", "Write none, com1" },
		{ "serial = com1,7", "Write none, com1" },
		{ "serial = com1 9600", "Write none, com1" },
		{ "serial = 0x", "Write none, com1" },
		{ "serial = 0x0", "Write none, com1" },
		{ "serial = 0x10000", "Write none, com1" },
		{ "serial = 0x3f8,9600,8", "Write none, com1" },
		{ "serial = 1016", "Write none, com1" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char file[200];

		snprintf(file, sizeof(file), CHAINLOAD "\n%s\ngate = vmcall\n", cases[i].line);
		assert_false(parse(file));
		assert_int_equal(error.line, 3);
		if (!strstr(error.text, cases[i].says))
			fail_msg("'%s' gives: %s", cases[i].line, error.text);
		/* The rest of the file still counts: it may say unfit = continue. */
		assert_string_equal(conf.chainload, "a");
		if (!strstr(cases[i].line, "gate"))
			assert_int_equal(conf.gate, CONF_GATE_VMCALL);
	}
}

static void first_error_wins(void **state)
{
	(void)state;
	assert_false(parse("foo = 1\nbar = 2\n"));
	assert_int_equal(error.line, 1);
	assert_non_null(strstr(error.text, "'foo'"));
}

static void whole_file(void **state)
{
	char *big = calloc(1, CONF_FILE_MAX + 1);

	(void)state;
	assert_false(parse(""));
	assert_int_equal(error.line, 0);
	assert_non_null(strstr(error.text, "no chainload line"));
	assert_false(parse("# nothing\n"));
	assert_int_equal(error.line, 0);
	memset(big, '\n', CONF_FILE_MAX + 1);
	assert_false(parse_bytes(big, CONF_FILE_MAX + 1));
	assert_non_null(strstr(error.text, "too big"));
	memcpy(big, CHAINLOAD, strlen(CHAINLOAD));
	assert_true(parse_bytes(big, CONF_FILE_MAX));
	free(big);
}

static void nul_bytes(void **state)
{
	static const char file[] = CHAINLOAD "options = a\0b\n";
	static const char comment[] = CHAINLOAD "#\0\n";
	static const char utf16[] = "\xff\xfe"
				    "c\0h\0";

	(void)state;
	assert_false(parse_bytes(file, sizeof(file) - 1));
	assert_int_equal(error.line, 2);
	assert_non_null(strstr(error.text, "a NUL byte. Save the file as plain text"));
	assert_false(parse_bytes(comment, sizeof(comment) - 1));
	assert_false(parse_bytes(utf16, sizeof(utf16) - 1));
	assert_non_null(strstr(error.text, "Save the file as plain text"));
}

static void line_length(void **state)
{
	char file[CONF_LINE_MAX + 100];
	int prefix = snprintf(file, sizeof(file), CHAINLOAD);
	int key = snprintf(file + prefix, sizeof(file) - prefix, "options = ");

	(void)state;
	memset(file + prefix + key, 'o', CONF_LINE_MAX - key + 1);
	assert_true(parse_bytes(file, prefix + CONF_LINE_MAX));
	assert_int_equal(strlen(conf.options), CONF_LINE_MAX - key);
	assert_false(parse_bytes(file, prefix + CONF_LINE_MAX + 1));
	assert_int_equal(error.line, 2);
	assert_non_null(strstr(error.text, "too long. Write at most 2000"));
	file[prefix] = '#';
	assert_true(parse_bytes(file, prefix + CONF_LINE_MAX + 1));
}

/* Long names and values are cut in the message, and it stays in its buffer. */
static void long_quotes(void **state)
{
	char file[1000];

	(void)state;
	memset(file, 'k', sizeof(file));
	file[500] = '=';
	assert_false(parse_bytes(file, sizeof(file)));
	assert_true(strlen(error.text) < sizeof(error.text));
	assert_non_null(strstr(error.text, "log_level, serial"));
}

/* Mangled files: whatever comes, the sanitizers are content, and an error has a text. */
static void mangled(void **state)
{
	static const char seed[] = "\xef\xbb\xbf" CHAINLOAD "initrd = b\r\noptions = c d\nmonitor = on\nunfit = stop\n"
				   "gate = auto\nmemory = 64M\nlog_level = info\nserial = 0x3f8,115200\n# e\n";
	static const char bytes[] = "\0\n\r\t =#,xM0\xff\xef\xbb\xbf";
	u32 random = 1;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		char file[sizeof(seed)];
		size_t size = sizeof(seed) - 1;

		memcpy(file, seed, sizeof(seed));
		for (unsigned i = 0; i < 1 + round % 8; i++) {
			random = random * 1664525 + 1013904223;
			file[(random >> 8) % size] = bytes[(random >> 24) % (sizeof(bytes) - 1)];
		}
		random = random * 1664525 + 1013904223;
		if (random >> 31)
			size = (random >> 8) % size;
		if (parse_bytes(file, size)) {
			assert_int_equal(error.text[0], 0);
			assert_non_null(conf.chainload);
		} else {
			assert_int_not_equal(error.text[0], 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(defaults, free_text),
		cmocka_unit_test_teardown(every_key, free_text),
		cmocka_unit_test_teardown(good_values, free_text),
		cmocka_unit_test_teardown(bad_lines, free_text),
		cmocka_unit_test_teardown(first_error_wins, free_text),
		cmocka_unit_test_teardown(whole_file, free_text),
		cmocka_unit_test_teardown(nul_bytes, free_text),
		cmocka_unit_test_teardown(line_length, free_text),
		cmocka_unit_test_teardown(long_quotes, free_text),
		cmocka_unit_test_teardown(mangled, free_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
