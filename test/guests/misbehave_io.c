// SPDX-License-Identifier: MIT
/* Ports and MMIO. */
#include "misbehave.h"

/* Reads and writes of all sizes, at all ports but the one that ends the machine. */
static bool try_port(u16 port)
{
	u64 rax = 0xa5a5a5a5a5a5a5a5;

	if (port + 3 >= DEBUG_EXIT_PORT && port < DEBUG_EXIT_PORT + 4)
		return true;
	asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(port));
	if (rax >> 8 != 0xa5a5a5a5a5a5a5)
		return false;
	asm volatile("outb %%al, %%dx" : : "a"(rax), "d"(port));
	rax = 0xa5a5a5a5a5a5a5a5;
	asm volatile("inw %%dx, %%ax" : "+a"(rax) : "d"(port));
	if (rax >> 16 != 0xa5a5a5a5a5a5)
		return false;
	asm volatile("outw %%ax, %%dx" : : "a"(rax), "d"(port));
	asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(port));
	if (rax >> 32)
		return false;
	asm volatile("outl %%eax, %%dx" : : "a"(rax), "d"(port));
	return true;
}

/* String instructions may be refused. If they are not, they move as many bytes as they should. */
static void try_strings(void)
{
	static u8 buffer[64];
	u64 rdi = (u64)buffer, rcx = 16;
	int vector = fault_of("rep insb", BOTH("+D"(rdi), "+c"(rcx)), "d"(0x80));

	check(NONE_UD_GP(vector), "REP INSB raises %d", vector);
	check(vector != VECTOR_NONE || (!rcx && rdi == (u64)buffer + 16), "REP INSB leaves RCX = %lx", rcx);
	rdi = (u64)buffer;
	rcx = 16;
	vector = fault_of("rep outsl", BOTH("+S"(rdi), "+c"(rcx)), "d"(0x80));
	check(NONE_UD_GP(vector), "REP OUTSD raises %d", vector);
	check(vector != VECTOR_NONE || (!rcx && rdi == (u64)buffer + 64), "REP OUTSD leaves RCX = %lx", rcx);
	print("misbehave: string I/O %s\n", vector == VECTOR_NONE ? "works" : "is refused");
}

/* Every port that means something on a PC, and of the others each `step`-th. */
void try_ports(u64 step)
{
	static const u16 ends[][2] = { { 0, 0xff },       { 0x170, 0x177 }, { 0x1f0, 0x1f7 },   { 0x2e8, 0x2ff },
				       { 0x370, 0x37f },  { 0x3b0, 0x3df }, { 0x3e8, 0x3ff },   { 0x4d0, 0x4d1 },
				       { 0x510, 0x511 },  { 0x600, 0x608 }, { 0xb000, 0xb008 }, { 0xcf8, 0xcff },
				       { 0xfff0, 0xffff } };

	step = step > 1 ? step : 211;
	for (u64 i = 0; i < ARRAY_SIZE(ends); i++)
		for (u64 port = ends[i][0]; port <= ends[i][1]; port++)
			check(try_port(port), "IN from port %lx changes more of RAX than it should", port);
	for (u64 port = 0x100; port < 0xfff0; port += step)
		check(try_port(port), "IN from port %lx changes more of RAX than it should", port);
	print("\n");
	try_strings();
}

/* What a device has that does not remember: zeros or ones. */
static bool memory_like;
static u64 background;

#define PATTERN_64 0x8182838485868788ULL

/* What a read of so many bytes gives, zero-extended or sign-extended. */
static u64 zeros(unsigned bytes)
{
	return (memory_like ? PATTERN_64 : background) & (bytes == 8 ? ~0ULL : BIT(8 * bytes) - 1);
}

static u64 sign(unsigned bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return (u64)((s64)(zeros(bytes) << shift) >> shift);
}

/* One load, and what RAX has then, which had `ones` before. */
#define LOAD(instruction, want)                                                                                        \
	({                                                                                                             \
		u64 value = ones;                                                                                      \
		asm volatile("push %%rbp\n\tlea -0x1000(%%rbx), %%rbp\n\t" instruction "\n\tpop %%rbp"                 \
			     : "+a"(value)                                                                             \
			     : "b"(gpa), "r"(r12)                                                                      \
			     : "rsi", "r13", "memory");                                                                \
		check(value == (want), "%s gives %lx, not %lx", instruction, value, (u64)(want));                      \
	})

/* One store at gpa, and what the device then has. */
#define STORE(instruction, stored)                                                                                     \
	({                                                                                                             \
		u64 old;                                                                                               \
		*device = 0;                                                                                           \
		asm volatile(instruction : : "a"(PATTERN_64), "b"(gpa), "r"(r12) : "memory");                          \
		old = *device;                                                                                         \
		if (memory_like)                                                                                       \
			check(old == (u64)(stored), "%s stores %lx", instruction, old);                                \
		else                                                                                                   \
			check(true, "no device that remembers");                                                       \
	})

/* Every form of MOV, at 8 bytes at gpa that remember what was written, or else read as zeros or ones. */
void try_mmio(u64 gpa)
{
	volatile u64 *device = (u64 *)gpa;
	register u64 r12 asm("r12") = 1;
	const u64 ones = 0x1111111111111111;

	*device = PATTERN_64;
	background = *device;
	memory_like = background == PATTERN_64;
	check(memory_like || background == 0 || background == ~0ULL, "the device reads as %lx", background);
	print("misbehave: the device at %lx %s\n", gpa, memory_like ? "remembers" : "does not remember");
	STORE("movb %%al, (%%rbx)", 0x88);
	STORE("movb %%ah, (%%rbx)", 0x87);
	STORE("movw %%ax, (%%rbx)", 0x8788);
	STORE("movl %%eax, (%%rbx)", 0x85868788);
	STORE("movq %%rax, (%%rbx)", PATTERN_64);
	STORE("movb $0x92, (%%rbx)", 0x92);
	STORE("movw $0x9293, (%%rbx)", 0x9293);
	STORE("movl $0x92939495, (%%rbx)", 0x92939495);
	STORE("movq $-2, (%%rbx)", ~1ULL);
	STORE("movl %%r12d, (%%rbx)", 1);
	STORE("movb %%r12b, (%%rbx)", 1);
	STORE("movq %%rax, -1(%%rbx, %%r12)", PATTERN_64);
	STORE("movq %%rax, -8(%%rbx, %%r12, 8)", PATTERN_64);
	*device = PATTERN_64;
	LOAD("movb (%%rbx), %%al", (ones & ~0xffULL) | zeros(1));
	LOAD("movb (%%rbx), %%ah", (ones & ~0xff00ULL) | zeros(1) << 8);
	LOAD("movw (%%rbx), %%ax", (ones & ~0xffffULL) | zeros(2));
	LOAD("movl (%%rbx), %%eax", zeros(4));
	LOAD("movq (%%rbx), %%rax", zeros(8));
	LOAD("movzbw (%%rbx), %%ax", (ones & ~0xffffULL) | zeros(1));
	LOAD("movzbl (%%rbx), %%eax", zeros(1));
	LOAD("movzbq (%%rbx), %%rax", zeros(1));
	LOAD("movzwl (%%rbx), %%eax", zeros(2));
	LOAD("movzwq (%%rbx), %%rax", zeros(2));
	LOAD("movsbw (%%rbx), %%ax", (ones & ~0xffffULL) | (u16)sign(1));
	LOAD("movsbl (%%rbx), %%eax", (u32)sign(1));
	LOAD("movsbq (%%rbx), %%rax", sign(1));
	LOAD("movswl (%%rbx), %%eax", (u32)sign(2));
	LOAD("movswq (%%rbx), %%rax", sign(2));
	LOAD("movslq (%%rbx), %%rax", sign(4));
	LOAD("movl (%%rbx), %%r13d\n\tmovq %%r13, %%rax", zeros(4));
	LOAD("movb (%%rbx), %%sil\n\tmovzbl %%sil, %%eax", zeros(1));
	LOAD("movq -1(%%rbx, %%r12), %%rax", zeros(8));
	LOAD("movl -8(%%rbx, %%r12, 8), %%eax", zeros(4));
	LOAD("movl 0x1000(%%rbp), %%eax", zeros(4));
	LOAD("movl (%%ebx), %%eax", zeros(4));
	LOAD("movl %%cs:(%%rbx), %%eax", zeros(4));
	/* The offset forms, with a 64-bit address and with AL, AX, EAX, RAX. */
	{
		u8 *code = scratch[0];

		code[0] = 0x48;
		code[1] = 0xa1;
		memcpy(code + 2, &gpa, 8);
		code[10] = 0xc3;
		check(((u64(*)(void))code)() == zeros(8), "MOV RAX, moffs64 gives another value");
		code[0] = 0x90;
		code[1] = 0xa3;
		asm volatile("call *%0" : : "r"(code), "a"(0x12345678) : "memory");
		check(!memory_like || (u32)*device == 0x12345678, "MOV moffs64, EAX stores another value");
	}
}

/* An instruction that the monitor need not know, at an MMIO address; value: gpa | which, 0 to 7. */
void try_mmio_unknown(u64 value)
{
	u64 gpa = value & ~7ULL;

	print("misbehave: instruction %lu at MMIO\n", value & 7);
	switch (value & 7) {
	case 0:
		asm volatile("lock xaddq %%rax, (%0)" : : "r"(gpa) : "rax", "memory");
		break;
	case 1:
		asm volatile("rep movsb" : : "D"(scratch[0]), "S"(gpa), "c"(16) : "memory");
		break;
	case 2:
		WRITE_REGISTER(cr4, READ_REGISTER(cr4) | CR4_OSFXSR);
		asm volatile("movups (%0), %%xmm0" : : "r"(gpa));
		break;
	case 3:
		asm volatile("push (%0)\n\tpop %%rax" : : "r"(gpa) : "rax", "memory");
		break;
	case 4:
		asm volatile("lock cmpxchg16b (%0)" : : "r"(gpa) : "rax", "rbx", "rcx", "rdx", "memory");
		break;
	case 5:
		asm volatile("lgdt (%0)" : : "r"(gpa));
		break;
	case 6:
		asm volatile("fxsave64 (%0)" : : "r"(gpa & ~15ULL) : "memory");
		break;
	default:
		asm volatile("call *%0" : : "r"(gpa) : "memory");
	}
	print("misbehave: it works\n");
}
