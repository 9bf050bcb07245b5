// SPDX-License-Identifier: MIT
/*
 * A multiboot guest in 32-bit protected mode. Prints what it was given on the serial port, tries paging, and ends through
 * port 0xf4 with the value of exit=N (default 0), which is exit code N << 1 | 1. Words: ac_loop, task_switch, task_gate.
 */
#include "hyperps/guest.h"
#include "types.h"

#define MULTIBOOT_MAGIC 0x2badb002
#define SERIAL_PORT 0x3f8
#define DEBUG_EXIT_PORT 0xf4
#define EXIT_WRONG 0x7f
#define NONE 255
#define SWITCHED 254
#define CR0_AM (1U << 18)
#define CR0_PG (1U << 31)
#define CR4_PSE (1U << 4)
#define CR4_PAE (1U << 5)
#define CODE 0x08
#define DATA 0x10
#define USER_CODE 0x1b
#define TASK 0x28
#define OTHER_TASK 0x30
#define ALIAS 0xc0000000U

struct multiboot {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline;
};

struct gate {
	u32 low, high;
};

struct table {
	u16 limit;
	u32 base;
} __attribute__((packed));

struct task {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt, map;
};

void protected_main(u32 magic, const struct multiboot *information);
int caught(void (*function)(void));
int call_32(u32 number, u32 argument, u32 low, u32 high);
void ac_loop(void), switch_task(void), task_entry(void);
extern char exception_stubs[];
volatile u8 seen_vector;
u32 recover_esp;

static u64 gdt[7];
static struct gate idt[256];
static struct task tasks[2];
static u32 directory[1024] __attribute__((aligned(4096)));
static u64 pae_directory[512] __attribute__((aligned(4096))), pointers[4] __attribute__((aligned(32)));
static u8 task_stack[4096];
static u32 wrong;

static void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void print(const char *text)
{
	for (; *text; text++)
		outb(SERIAL_PORT, *text);
}

static void print_number(u32 value)
{
	char digits[9];

	for (int i = 0; i < 8; i++)
		digits[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
	digits[8] = 0;
	print(digits);
}

static void check(bool right, const char *what)
{
	if (right)
		return;
	print("protected: WRONG: ");
	print(what);
	print("\n");
	wrong++;
}

__attribute__((noreturn)) static void end(u32 value)
{
	for (;;)
		asm volatile("outl %0, %1\n\tcli\n\thlt" : : "a"(value), "Nd"((u16)DEBUG_EXIT_PORT));
}

static const char *find(const char *line, const char *word)
{
	for (; *line; line++) {
		u32 i = 0;

		while (word[i] && line[i] == word[i])
			i++;
		if (!word[i])
			return line + i;
	}
	return NULL;
}

static void set_gate(u32 vector, u32 selector, u32 target, u32 type)
{
	idt[vector].low = selector << 16 | (target & 0xffff);
	idt[vector].high = (target & 0xffff0000) | type << 8;
}

static u64 task_descriptor(const struct task *task)
{
	u32 base = (u32)task;

	return (sizeof(*task) - 1) | (u64)(base & 0xffffff) << 16 | 0x89ULL << 40 | (u64)(base >> 24) << 56;
}

static void set_up_tables(void)
{
	struct table gdt_register = { sizeof(gdt) - 1, (u32)gdt }, idt_register = { sizeof(idt) - 1, (u32)idt };

	gdt[1] = 0x00cf9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[3] = 0x00cffb000000ffff;
	gdt[4] = 0x00cff3000000ffff;
	gdt[5] = task_descriptor(&tasks[0]);
	gdt[6] = task_descriptor(&tasks[1]);
	for (u32 i = 0; i < 2; i++) {
		tasks[i] = (struct task){ .ss0 = DATA,
					  .esp0 = (u32)task_stack + 2048 * (i + 1),
					  .esp = (u32)task_stack + 2048 * (i + 1),
					  .eip = (u32)task_entry,
					  .eflags = 2,
					  .cs = CODE,
					  .ss = DATA,
					  .ds = DATA,
					  .es = DATA,
					  .map = sizeof(struct task) << 16 };
	}
	for (u32 i = 0; i < 32; i++)
		set_gate(i, CODE, (u32)exception_stubs + 16 * i, 0x8e);
	asm volatile("lgdt %0\n\t"
		     "lidt %1\n\t"
		     "ljmp %2, $1f\n"
		     "1: mov %w3, %%ds\n\t"
		     "mov %w3, %%es\n\t"
		     "mov %w3, %%ss\n\t"
		     "ltr %w4"
		     :
		     : "m"(gdt_register), "m"(idt_register), "i"(CODE), "r"(DATA), "r"(TASK)
		     : "memory");
}

static u32 read_cr4(void)
{
	u32 value;

	asm volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}

/* What lies at an address while these tables are in use, after an exit to the host, too. */
static u32 read_paged(const void *table, u32 cr4_bit, volatile u32 *address)
{
	u32 value, cr0;

	asm volatile("mov %0, %%cr4" : : "r"(read_cr4() | cr4_bit));
	asm volatile("mov %2, %%cr3\n\t"
		     "mov %%cr0, %1\n\t"
		     "or $0x80000000, %1\n\t"
		     "mov %1, %%cr0\n\t"
		     "outb %%al, $0x5a\n\t"
		     "mov (%3), %0\n\t"
		     "and $0x7fffffff, %1\n\t"
		     "mov %1, %%cr0"
		     : "=&r"(value), "=&r"(cr0)
		     : "r"(table), "r"(address)
		     : "memory");
	asm volatile("mov %0, %%cr4" : : "r"(read_cr4() & ~cr4_bit));
	return value;
}

static void try_paging(void)
{
	static volatile u32 marker = 0x600d600d;
	volatile u32 *alias = (u32 *)(ALIAS + (u32)&marker);

	for (u32 i = 0; i < 512; i++) {
		pae_directory[i] = (u64)i << 21 | 0x83;
		directory[i] = i << 22 | 0x83;
	}
	for (u32 i = 0; i < 256; i++)
		directory[ALIAS / 0x400000 + i] = i << 22 | 0x83;
	pointers[0] = pointers[3] = (u32)pae_directory | 1;
	check(read_paged(directory, CR4_PSE, alias) == marker, "32-bit paging");
	check(read_paged(pointers, CR4_PAE, alias) == marker, "PAE paging");
}

static void ud2(void)
{
	asm volatile("ud2");
}

static void divide(void)
{
	asm volatile("div %0" : : "r"(0), "a"(1), "d"(0));
}

static void load_beyond_limit(void)
{
	asm volatile("mov %w0, %%fs" : : "r"(sizeof(gdt)));
}

static void through_task_gate(void)
{
	asm volatile("int $0x30");
}

static void print_vector(const char *what, int vector)
{
	print(what);
	if (vector == SWITCHED) {
		print(" works\n");
		return;
	}
	print(" raises exception ");
	print_number(vector);
	print("\n");
}

void protected_main(u32 magic, const struct multiboot *information)
{
	const char *line = "", *word;
	u32 value = 0;

	print("protected: multiboot magic ");
	print_number(magic);
	print("\n");
	check(magic == MULTIBOOT_MAGIC, "the magic number");
	if (magic == MULTIBOOT_MAGIC && (information->flags & 4)) {
		line = (const char *)information->cmdline;
		print("protected: command line: ");
		print(line);
		print("\n");
	}
	if (magic == MULTIBOOT_MAGIC && (information->flags & 1)) {
		print("protected: upper memory in KiB ");
		print_number(information->mem_upper);
		print("\n");
	}
	set_up_tables();
	check(caught(ud2) == 6, "UD2 raises #UD");
	check(caught(divide) == 0, "division by zero");
	check(caught(load_beyond_limit) == 13, "a selector past the GDT raises #GP");
	try_paging();
	if (find(line, "hypercall")) {
		check(!call_32(HYPERPS_GUEST_CONSOLE, 8, 0x3a6c6c61, 0x0a6b6f20), "console output from 32-bit mode");
		check(call_32(HYPERPS_GUEST_CONSOLE, 9, 0, 0) < 0, "9 bytes of console output are refused");
		check(call_32(0x48505300, 0, 0, 0) == -38, "the host's call gives ENOSYS");
	}
	if (find(line, "task_switch"))
		print_vector("protected: a task switch by JMP", caught(switch_task));
	if (find(line, "task_gate")) {
		set_gate(0x30, OTHER_TASK, 0, 0x85);
		print_vector("protected: a task switch by an interrupt", caught(through_task_gate));
	}
	if (find(line, "ac_loop")) {
		print("protected: endless #AC\n");
		set_gate(17, USER_CODE, (u32)exception_stubs + 16 * 17, 0xee);
		asm volatile("mov %%cr0, %%eax\n\tor %0, %%eax\n\tmov %%eax, %%cr0" : : "i"(CR0_AM) : "eax");
		ac_loop();
	}
	for (word = find(line, "exit="); word && *word >= '0' && *word <= '9'; word++)
		value = value * 10 + *word - '0';
	print(wrong ? "protected: end, with mistakes\n" : "protected: end\n");
	end(wrong ? EXIT_WRONG : value);
}
