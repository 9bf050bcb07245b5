// SPDX-License-Identifier: MIT
#include "conf.h"
#include "boot_info.h"

#define UART_CLOCK 115200 /* baud: a 16550 divides this by a whole number */
#define PORT_COM1 0x3f8
#define PORT_COM2 0x2f8
#define QUOTE_MAX 40 /* characters of the file that an error message repeats */

static bool equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static void append(struct conf_error *error, const char *s, size_t max)
{
	size_t used = 0;

	while (error->text[used])
		used++;
	for (size_t i = 0; i < max && s[i] && used < sizeof(error->text) - 1; i++)
		error->text[used++] = s[i];
	error->text[used] = 0;
}

/* Notes what is wrong on a line, if it is the first error: `what` with 'quoted' behind it, then what to write. */
static void complain(struct conf_error *error, unsigned line, const char *what, const char *quoted, const char *advice)
{
	if (error->text[0])
		return;
	error->line = line;
	append(error, what, SIZE_MAX);
	if (quoted) {
		append(error, " '", SIZE_MAX);
		append(error, quoted, QUOTE_MAX);
		append(error, "'", SIZE_MAX);
	}
	append(error, ". ", SIZE_MAX);
	append(error, advice, SIZE_MAX);
}

/* Reads a number up to `max` that ends at one of the characters in `ends` or at the end; *s then points there. */
static bool parse_number(const char **s, unsigned base, u64 max, u64 *out)
{
	u64 value = 0;
	const char *start = *s;

	for (;; (*s)++) {
		unsigned digit;

		if (**s >= '0' && **s <= '9')
			digit = **s - '0';
		else if ((**s | 0x20) >= 'a' && (**s | 0x20) <= 'f')
			digit = (**s | 0x20) - 'a' + 10;
		else
			break;
		if (digit >= base)
			break;
		value = value * base + digit;
		if (value > max)
			return false;
	}
	*out = value;
	return *s != start;
}

/* Index of value in a list of words, or -1. */
static int find_word(const char *value, const char *const words[], unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (equal(value, words[i]))
			return (int)i;
	return -1;
}

static bool set_path(const char **path, const char *value)
{
	for (const char *s = value; *s; s++)
		if (*s == '"' || *s == '*' || *s == '?' || *s == '<' || *s == '>' || *s == '|' || *s == ':')
			return false;
	*path = value;
	return true;
}

static bool set_chainload(struct conf *conf, const char *value)
{
	return set_path(&conf->chainload, value);
}

static bool set_initrd(struct conf *conf, const char *value)
{
	return set_path(&conf->initrd, value);
}

static bool set_options(struct conf *conf, const char *value)
{
	conf->options = value;
	return true;
}

static bool set_monitor(struct conf *conf, const char *value)
{
	static const char *const words[] = { "on", "off" };
	int i = find_word(value, words, ARRAY_SIZE(words));

	conf->monitor_off = i == 1;
	return i >= 0;
}

static bool set_unfit(struct conf *conf, const char *value)
{
	static const char *const words[] = { "stop", "continue" };
	int i = find_word(value, words, ARRAY_SIZE(words));

	conf->unfit_continue = i == 1;
	return i >= 0;
}

static bool set_gate(struct conf *conf, const char *value)
{
	static const char *const words[] = {
		[CONF_GATE_AUTO] = "auto", [CONF_GATE_VMFUNC] = "vmfunc", [CONF_GATE_VMCALL] = "vmcall"
	};
	int i = find_word(value, words, ARRAY_SIZE(words));

	if (i >= 0)
		conf->gate = (u32)i;
	return i >= 0;
}

static bool set_dma(struct conf *conf, const char *value)
{
	static const char *const words[] = {
		[CONF_DMA_AUTO] = "auto", [CONF_DMA_OFF] = "off", [CONF_DMA_REQUIRE] = "require"
	};
	int i = find_word(value, words, ARRAY_SIZE(words));

	if (i >= 0)
		conf->dma = (u32)i;
	return i >= 0;
}

static bool set_log_level(struct conf *conf, const char *value)
{
	static const char *const words[] = { "error", "warning", "info", "debug" };
	int i = find_word(value, words, ARRAY_SIZE(words));

	if (i >= 0)
		conf->log_level = (u32)i;
	return i >= 0;
}

static bool set_kvm(struct conf *conf, const char *value)
{
	static const char *const words[] = { "off", "on" };
	int i = find_word(value, words, ARRAY_SIZE(words));

	conf->kvm = i == 1;
	return i >= 0;
}

static bool set_size(u64 *size, const char *value)
{
	u64 mib;

	if (equal(value, "auto"))
		return true;
	if (!parse_number(&value, 10, CONF_MEMORY_MAX >> 20, &mib) || mib == 0 || !equal(value, "M"))
		return false;
	*size = mib << 20;
	return true;
}

static bool set_kvm_pool(struct conf *conf, const char *value)
{
	return set_size(&conf->kvm_pool, value);
}

static bool set_memory(struct conf *conf, const char *value)
{
	return set_size(&conf->memory, value);
}

static bool set_serial(struct conf *conf, const char *value)
{
	u64 port, baud = 0;

	if (equal(value, "none")) {
		conf->serial = CONF_SERIAL_NONE;
		return true;
	}
	if (value[0] == 'c' && value[1] == 'o' && value[2] == 'm' && (value[3] == '1' || value[3] == '2')) {
		port = value[3] == '1' ? PORT_COM1 : PORT_COM2;
		value += 4;
	} else if (value[0] == '0' && value[1] == 'x') {
		value += 2;
		if (!parse_number(&value, 16, 0xfff8, &port) || port == 0)
			return false;
	} else {
		return false;
	}
	if (*value == ',') {
		value++;
		if (!parse_number(&value, 10, UART_CLOCK, &baud) || baud == 0 || UART_CLOCK % baud)
			return false;
	}
	if (*value)
		return false;
	conf->serial = CONF_SERIAL_PORT;
	conf->serial_port = (u16)port;
	conf->serial_baud = (u32)baud;
	return true;
}

static const struct key {
	const char *name;
	bool (*set)(struct conf *conf, const char *value); /* false: bad value, *conf unchanged or harmless */
	const char *advice;
} keys[] = {
	{ "chainload", set_chainload, "Write a path such as \\EFI\\debian\\grubx64.efi" },
	{ "initrd", set_initrd, "Write a path such as \\boot\\initrd.img, or leave the line out" },
	{ "options", set_options, "Write the command line for the chainloaded program" },
	{ "monitor", set_monitor, "Write on or off" },
	{ "unfit", set_unfit, "Write stop or continue" },
	{ "gate", set_gate, "Write auto, vmfunc or vmcall" },
	{ "dma", set_dma, "Write auto, off or require" },
	{ "kvm", set_kvm, "Write on or off" },
	{ "kvm_pool", set_kvm_pool, "Write auto, or MiB for the host's own VMs such as 64M, at most 262144M" },
	{ "memory", set_memory, "Write auto, or MiB of monitor memory such as 64M, at most 262144M" },
	{ "log_level", set_log_level, "Write error, warning, info or debug" },
	{ "serial", set_serial, "Write none, com1, com2 or 0x<port>, with ,<baud> if needed: com1,115200" },
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts the spaces off both ends of [start, end), ends it with a NUL and returns its start. */
static char *trim(char *start, char *end)
{
	while (start < end && is_space(*start))
		start++;
	while (start < end && is_space(end[-1]))
		end--;
	*end = 0;
	return start;
}

/* One line, [start, end), without its line feed; *end is writable. `seen` has a bit for each key met before. */
static void parse_line(char *start, char *end, unsigned line, u32 *seen, struct conf *conf, struct conf_error *error)
{
	char *equals, *name, *value;

	while (start < end && is_space(*start))
		start++;
	if (start == end)
		return;
	for (char *s = start; s < end; s++)
		if (!*s) {
			complain(error, line, "a NUL byte", NULL, "Save the file as plain text (ASCII or UTF-8)");
			return;
		}
	if (*start == '#')
		return;
	if (end - start > CONF_LINE_MAX) {
		complain(error, line, "the line is too long", NULL, "Write at most 2000 characters");
		return;
	}
	start = trim(start, end);
	for (char *s = start; *s; s++)
		if (((unsigned char)*s < ' ' && *s != '\t') || (unsigned char)*s > '~') {
			complain(error, line, "a character outside ASCII", NULL,
				 "Use other characters in comments only");
			return;
		}
	for (equals = start; *equals && *equals != '='; equals++)
		;
	if (!*equals) {
		complain(error, line, "no '=' in", start, "Write key = value, or # in front of a comment");
		return;
	}
	end = equals + 1;
	while (*end)
		end++;
	value = trim(equals + 1, end);
	name = trim(start, equals);
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!equal(name, keys[i].name))
			continue;
		if (*seen & BIT(i))
			complain(error, line, "a second line for", name, "Keep one of the two");
		else if (!*value)
			complain(error, line, "no value for", name, keys[i].advice);
		else if (!keys[i].set(conf, value))
			complain(error, line, "bad value", value, keys[i].advice);
		*seen |= (u32)BIT(i);
		return;
	}
	complain(error, line, "unknown key", name,
		 "The keys are chainload, initrd, options, monitor, unfit, gate, dma, kvm, kvm_pool, memory, "
		 "log_level, serial");
}

bool conf_parse(char *text, size_t size, struct conf *conf, struct conf_error *error)
{
	static const unsigned char byte_order_mark[] = { 0xef, 0xbb, 0xbf };
	char *end = text + size;
	unsigned line = 0;
	u32 seen = 0;

	*conf = (struct conf){ .log_level = 2 };
	error->line = 0;
	error->text[0] = 0;
	if (size > CONF_FILE_MAX) {
		complain(error, 0, "the file is too big", NULL, "Keep it under 64 KiB");
		return false;
	}
	if (size >= sizeof(byte_order_mark) && (unsigned char)text[0] == byte_order_mark[0] &&
	    (unsigned char)text[1] == byte_order_mark[1] && (unsigned char)text[2] == byte_order_mark[2])
		text += sizeof(byte_order_mark);
	while (text < end) {
		char *stop = text;

		while (stop < end && *stop != '\n')
			stop++;
		parse_line(text, stop, ++line, &seen, conf, error);
		text = stop + 1;
	}
	if (!conf->chainload)
		complain(error, 0, "no chainload line", NULL,
			 "Write chainload = and the path of the EFI program or kernel to start");
	return !error->text[0];
}
