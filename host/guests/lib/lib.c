// SPDX-License-Identifier: MIT
#include <stdarg.h>

#include "guest.h"

#define SERIAL_PORT 0x3f8
#define DEBUG_EXIT_PORT 0xf4 /* as QEMU's isa-debug-exit has it */
#define EXIT_EXCEPTION 255
#define SHOWN 60 /* failed checks that are printed */
#define EXCEPTION_STACK (3 << 12) /* ends of the stacks, as offsets in struct cpu */
#define USER_STACK (4 << 12)

struct cpu cpus[HYPERPS_VCPUS];
u64 checks, failures;
static u64 console_lock;
static char words[512]; /* the command line: where the loader put it may be RAM that a test uses */

extern char exception_stubs[], resume_caught[], user_return[];
extern const u64 fixups[][2], fixups_end[][2];
void enter_user(u64 function, u64 argument, u64 stack, u64 rflags);
void start_c(const char *command_line, u64 index);
void on_exception(struct frame *frame);

void *memcpy(void *to, const void *from, size_t bytes)
{
	void *result = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
	return result;
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

bool has_hypercalls(void)
{
	struct cpuid_result r = cpuid(HYPERPS_GUEST_LEAF, 0);

	return r.ebx == 0x65707948 && r.ecx == 0x67535072 && r.edx == 0x74736575;
}

void serial_print(const char *text)
{
	for (; *text; text++)
		outb(SERIAL_PORT, *text);
}

static u64 put(char *line, u64 at, u64 end, char c)
{
	if (at < end)
		line[at++] = c;
	return at;
}

static u64 put_number(char *line, u64 at, u64 end, u64 value, unsigned base, unsigned width, char fill)
{
	char digits[20];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	for (unsigned i = n; i < width; i++)
		at = put(line, at, end, fill);
	while (n)
		at = put(line, at, end, digits[--n]);
	return at;
}

static void print_list(const char *format, va_list list)
{
	char line[256];
	u64 at = 0, end = sizeof(line) - 1;

	for (; *format; format++) {
		char fill = ' ';
		unsigned width = 0, longs = 0;
		u64 value;

		if (*format != '%') {
			at = put(line, at, end, *format);
			continue;
		}
		format++;
		if (*format == '0')
			fill = *format++;
		while (*format >= '0' && *format <= '9')
			width = width * 10 + *format++ - '0';
		for (; *format == 'l' || *format == 'z'; format++)
			longs++;
		switch (*format) {
		case 's':
			for (const char *s = va_arg(list, const char *); *s; s++)
				at = put(line, at, end, *s);
			break;
		case 'c':
			at = put(line, at, end, va_arg(list, int));
			break;
		case 'd':
			value = longs ? va_arg(list, u64) : (u64)(s64)va_arg(list, int);
			if ((s64)value < 0)
				at = put(line, at, end, '-');
			at = put_number(line, at, end, (s64)value < 0 ? -value : value, 10, width, fill);
			break;
		case 'u':
		case 'x':
			value = longs ? va_arg(list, u64) : va_arg(list, unsigned);
			at = put_number(line, at, end, value, *format == 'x' ? 16 : 10, width, fill);
			break;
		default:
			at = put(line, at, end, *format);
		}
	}
	line[at] = 0;
	while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE))
		pause();
	if (!has_hypercalls())
		serial_print(line);
	else
		for (u64 done = 0, n = 1; done < at && n; done += n)
			n = hyperps_guest_console(line + done, at - done);
	__atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
}

void print(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	print_list(format, list);
	va_end(list);
}

bool check(bool passed, const char *format, ...)
{
	va_list list;

	__atomic_add_fetch(&checks, 1, __ATOMIC_RELAXED);
	if (passed)
		return true;
	if (__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED) > SHOWN)
		return false;
	print("vCPU %lu: WRONG: ", this_cpu()->index);
	va_start(list, format);
	print_list(format, list);
	va_end(list);
	print("\n");
	return false;
}

void shut_down(int code)
{
	if (has_hypercalls())
		hyperps_guest_call(HYPERPS_GUEST_SHUTDOWN, code & 0xff, 0);
	outb(DEBUG_EXIT_PORT, code);
	for (;;)
		asm volatile("cli; hlt");
}

void on_exception(struct frame *frame)
{
	struct cpu *cpu = this_cpu();

	if (cpu->hook && cpu->hook(frame))
		return;
	if ((frame->vector >= 32 && frame->vector != VECTOR_USER_RETURN) || frame->vector == VECTOR_NMI) {
		cpu->interrupts[frame->vector]++;
		return;
	}
	cpu->vector = frame->vector;
	cpu->error_code = frame->error_code;
	cpu->rip = frame->rip;
	cpu->rflags = frame->rflags;
	asm("mov %%cr2, %0" : "=r"(cpu->cr2));
	for (const u64(*fixup)[2] = fixups; fixup < fixups_end; fixup++)
		if (frame->rip == (*fixup)[0]) {
			frame->rip = (*fixup)[1];
			return;
		}
	if (!cpu->recover_rsp) {
		print("vCPU %lu: exception %lu, error code %lx, at %lx, CR2 %lx\n", cpu->index, frame->vector,
		      frame->error_code, frame->rip, cpu->cr2);
		shut_down(EXIT_EXCEPTION);
	}
	frame->rip = (u64)resume_caught;
	frame->rsp = cpu->recover_rsp;
	frame->rax = frame->vector;
	frame->rflags = RFLAGS_RESERVED;
	frame->cs = CODE_64;
	frame->ss = DATA;
}

bool expect(int vector, void (*function)(u64), u64 argument)
{
	int got = caught(function, argument);

	return check(got == vector, "exception %d, not %d, with argument %lx", got, vector, argument);
}

struct user_call {
	u64 function, argument, rflags;
};

static void call_user(u64 request)
{
	const struct user_call *call = (void *)request;
	u64 stack = (u64)this_cpu() + USER_ALIAS + USER_STACK - 8;

	*(u64 *)(stack - USER_ALIAS) = (u64)user_return + USER_ALIAS;
	enter_user(call->function, call->argument, stack, call->rflags);
}

int caught_in_user(void (*function)(u64), u64 argument, u64 rflags)
{
	struct user_call call = { (u64)function + USER_ALIAS, argument, rflags | RFLAGS_RESERVED };

	return caught(call_user, (u64)&call);
}

void barrier(u64 count)
{
	static u64 arrived, round;
	u64 now = __atomic_load_n(&round, __ATOMIC_ACQUIRE);

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL) == count) {
		__atomic_store_n(&arrived, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&round, now + 1, __ATOMIC_RELEASE);
		return;
	}
	while (__atomic_load_n(&round, __ATOMIC_ACQUIRE) == now)
		pause();
}

static u64 parse_number(const char **text)
{
	u64 value = 0, base = 10;
	const char *s = *text;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	for (;; s++) {
		u64 digit = *s >= '0' && *s <= '9' ? *s - '0' : *s >= 'a' && *s <= 'f' ? *s - 'a' + 10 : 16;

		if (digit >= base)
			break;
		value = value * base + digit;
	}
	*text = s;
	return value;
}

u64 argument(const char *line, const char *word, u64 otherwise)
{
	while (*line) {
		u64 i = 0;

		while (word[i] && line[i] == word[i])
			i++;
		if (!word[i] && line[i] == '=') {
			line += i + 1;
			return parse_number(&line);
		}
		if (!word[i] && (!line[i] || line[i] == ' '))
			return 1;
		while (*line && *line != ' ')
			line++;
		while (*line == ' ')
			line++;
	}
	return otherwise;
}

u64 number_argument(const char *line, u64 n, u64 otherwise)
{
	for (; *line; line++) {
		const char *end = line;
		u64 value;

		if (*line >= '0' && *line <= '9') {
			value = parse_number(&end);
			if ((!*end || *end == ' ') && !n--)
				return value;
		}
		for (line = end; *line && *line != ' ';)
			line++;
		if (!*line)
			break;
	}
	return otherwise;
}

u64 next_random(u64 *state)
{
	u64 z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void set_up_tables(struct cpu *cpu)
{
	struct descriptor_table gdt = { sizeof(cpu->gdt) - 1, (u64)cpu->gdt };
	struct descriptor_table idt = { sizeof(cpu->idt) - 1, (u64)cpu->idt };
	u64 tss = (u64)cpu->tss, stack = (u64)cpu + EXCEPTION_STACK;

	cpu->gdt[CODE_64 / 8] = 0x00af9b000000ffff;
	cpu->gdt[DATA / 8] = 0x00cf93000000ffff;
	cpu->gdt[USER_DATA / 8] = 0x00cff3000000ffff;
	cpu->gdt[USER_CODE / 8] = 0x00affb000000ffff;
	cpu->gdt[TSS / 8] = 0x0000890000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
	cpu->gdt[TSS / 8 + 1] = tss >> 32;
	memcpy((u8 *)cpu->tss + 36, &stack, sizeof(stack)); /* IST1 */
	cpu->tss[25] = sizeof(cpu->tss) << 16; /* no I/O permission map */
	for (u64 i = 0; i < 256; i++) {
		u64 at = (u64)exception_stubs + i * 16, type = i == VECTOR_USER_RETURN || i == 3 ? 0xee : 0x8e;

		cpu->idt[i].low = (at & 0xffff) | CODE_64 << 16 | 1ULL << 32 | type << 40 | (at >> 16 & 0xffff) << 48;
		cpu->idt[i].high = at >> 32;
	}
	asm volatile("lgdt %0\n\t"
		     "lidt %1\n\t"
		     "ltr %w2\n\t"
		     "push %3\n\t"
		     "lea 1f(%%rip), %%rax\n\t"
		     "push %%rax\n\t"
		     "lretq\n"
		     "1: mov %w4, %%ss\n\t"
		     "mov %w4, %%ds\n\t"
		     "mov %w4, %%es"
		     :
		     : "m"(gdt), "m"(idt), "r"(TSS), "i"(CODE_64), "r"(DATA)
		     : "rax", "memory");
}

void start_c(const char *command_line, u64 index)
{
	static u64 copied;
	int code;

	set_up_tables(this_cpu());
	this_cpu()->index = index;
	if (!index) {
		for (u64 i = 0; i < sizeof(words) - 1 && command_line && command_line[i]; i++)
			words[i] = command_line[i];
		__atomic_store_n(&copied, 1, __ATOMIC_RELEASE);
	}
	while (!__atomic_load_n(&copied, __ATOMIC_ACQUIRE))
		pause();
	code = guest_main(index, words);
	if (!index)
		shut_down(code);
}

bool random_word(u64 *value)
{
	bool done = has_hypercalls() && !hyperps_guest_random(value);

	for (int i = 0; i < 100 && !done && (cpuid(1, 0).ecx & BIT(30)); i++)
		asm volatile("rdrand %0" : "=r"(*value), "=@ccc"(done));
	return done;
}
