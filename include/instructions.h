/* SPDX-License-Identifier: MIT */
/*
 * The instructions that C has no words for. All of root's are here, and nothing else is, so that a test can put a header of
 * the same name in front, and be the CPU (test/unit/fake/).
 */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include "vmx.h"
#include "x86.h"

static inline struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_result r;

	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (u64)high << 32 | low;
}

static inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

/* A number from the CPU's random generator; false if there is none just now (SDM, "RDRAND": CF tells). */
static inline bool rdrand(u64 *value)
{
	bool done;

	asm volatile("rdrand %0" : "=r"(*value), "=@ccc"(done));
	return done;
}

/* Control and debug registers, by name: READ_REGISTER(cr0). */
#define READ_REGISTER(name)                                                                                            \
	({                                                                                                             \
		u64 value_;                                                                                            \
		asm volatile("mov %%" #name ", %0" : "=r"(value_));                                                    \
		value_;                                                                                                \
	})
#define WRITE_REGISTER(name, value) asm volatile("mov %0, %%" #name ::"r"((u64)(value)) : "memory")

/* What lies at the base of GS: in VMX root, the address of this CPU's struct cpu. Fixed, so that the compiler may keep it. */
static inline void *read_gs_0(void)
{
	void *value;

	asm("mov %%gs:0, %0" : "=r"(value));
	return value;
}

static inline void outb(u16 port, u8 value)
{
	asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outw(u16 port, u16 value)
{
	asm volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
	asm volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u16 inw(u16 port)
{
	u16 value;

	asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u32 inl(u16 port)
{
	u32 value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* Of a device's registers: one access, of this width. */
#define MMIO_ACCESS(bits, instruction)                                                                                 \
	static inline u##bits mmio_read##bits(const u8 *address)                                                       \
	{                                                                                                              \
		u##bits value;                                                                                         \
                                                                                                                       \
		asm volatile(instruction " %1, %0" : "=r"(value) : "m"(*(const u##bits *)address) : "memory");         \
		return value;                                                                                          \
	}                                                                                                              \
	static inline void mmio_write##bits(u8 *address, u##bits value)                                                \
	{                                                                                                              \
		asm volatile(instruction " %1, %0" : "=m"(*(u##bits *)address) : "r"(value) : "memory");               \
	}
MMIO_ACCESS(32, "movl")
MMIO_ACCESS(64, "movq")
#undef MMIO_ACCESS

static inline void pause(void)
{
	asm volatile("pause" ::: "memory");
}

/* Waits with interrupts off: only NMI, INIT and SMI get through. */
static inline void cli_hlt(void)
{
	asm volatile("cli; hlt" ::: "memory");
}

/* Goes on at the next instruction by IRET, which ends the blocking of NMIs (SDM, "Handling Multiple NMIs"). */
static inline void unblock_nmi(void)
{
	u64 rsp, scratch;

	asm volatile("mov %%rsp, %0\n"
		     "mov %%ss, %k1\n"
		     "push %q1\n"
		     "push %0\n"
		     "pushfq\n"
		     "mov %%cs, %k1\n"
		     "push %q1\n"
		     "lea 1f(%%rip), %1\n"
		     "push %1\n"
		     "iretq\n"
		     "1:"
		     : "=&r"(rsp), "=&r"(scratch)
		     :
		     : "memory");
}

static inline void invlpg(const void *page)
{
	asm volatile("invlpg %0" ::"m"(*(const u8 *)page) : "memory");
}

static inline void clflush(u8 *line)
{
	asm volatile("clflush %0" : "+m"(*line));
}

static inline void mfence(void)
{
	asm volatile("mfence" ::: "memory");
}

static inline void wbinvd(void)
{
	asm volatile("wbinvd" ::: "memory");
}

/* SDM, "VERW": with MD_CLEAR it overwrites the CPU's buffers. */
static inline void verw(const u16 *selector)
{
	asm volatile("verw %0" ::"m"(*selector) : "cc");
}

static inline u64 xgetbv(void)
{
	u32 low, high;

	asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (u64)high << 32 | low;
}

static inline void fxsave(u8 *area)
{
	asm volatile("fxsave64 (%0)" ::"r"(area) : "memory");
}

static inline void fxrstor(const u8 *area)
{
	asm volatile("fxrstor64 (%0)" ::"r"(area) : "memory");
}

static inline void xsave(u8 *area, u64 mask)
{
	asm volatile("xsave64 (%0)" ::"r"(area), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

static inline void xrstor(const u8 *area, u64 mask)
{
	asm volatile("xrstor64 (%0)" ::"r"(area), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
}

/*
 * Instructions that may raise an exception in VMX root by what the host chose: they report it instead of stopping the CPU.
 * An operand of the asm, [vector], names it. For the monitor only, whose linker script collects the fix-ups.
 */
#define FAULTING_INSTRUCTION(instruction, fixup)                                                                       \
	"1: " instruction "\n"                                                                                         \
	".pushsection .exception_fixups, \"a\"\n"                                                                      \
	".quad 1b, " fixup ", %c[vector]\n"                                                                            \
	".popsection\n"

#define DEFINE_CHECKED_WRITE(name, instruction)                                                                        \
	static inline bool name(u32 number, u64 value)                                                                 \
	{                                                                                                              \
		asm goto(FAULTING_INSTRUCTION(instruction, "%l[fault]")                                                \
			 :                                                                                             \
			 : "c"(number), "a"((u32)value), "d"((u32)(value >> 32)), [vector] "i"(VECTOR_GP)              \
			 : "memory"                                                                                    \
			 : fault);                                                                                     \
		return true;                                                                                           \
fault:                                                                                                                 \
		return false;                                                                                          \
	}

/* Write an MSR, or XCR0 (number 0; CR4.OSXSAVE must be set); false if the CPU refuses the value or the number (#GP). */
DEFINE_CHECKED_WRITE(wrmsr_checked, "wrmsr")
DEFINE_CHECKED_WRITE(xsetbv_checked, "xsetbv")

/* Reads an MSR into *value; false if the CPU has no such MSR (#GP). */
static inline bool rdmsr_checked(u32 msr, u64 *value)
{
	u32 low, high;

	asm goto(FAULTING_INSTRUCTION("rdmsr", "%l[fault]")
		 : "=a"(low), "=d"(high)
		 : "c"(msr), [vector] "i"(VECTOR_GP)
		 : "memory"
		 : fault);
	*value = (u64)high << 32 | low;
	return true;
fault:
	return false;
}

/* Reads a word of memory by one load; false if that raised a machine check, which is latched for the host. */
static inline bool load_checked(const u64 *word, u64 *value)
{
	u64 loaded;

	asm goto(FAULTING_INSTRUCTION("movq %1, %0", "%l[fault]")
		 : "=r"(loaded)
		 : "m"(*word), [vector] "i"(VECTOR_MC)
		 : "memory"
		 : fault);
	*value = loaded;
	return true;
fault:
	return false;
}

void vmx_instruction_failed(const char *instruction) __attribute__((noreturn, cold));

/*
 * Both failure flags count ("Conventions" of the VMX instruction reference): CF is VMfailInvalid, ZF is VMfailValid. A
 * failure is the monitor's own bug, or the CPU's, and panics.
 */
#define VMX_INSTRUCTION(instruction, ...)                                                                              \
	do {                                                                                                           \
		bool failed_;                                                                                          \
		asm volatile(instruction : "=@ccbe"(failed_) : __VA_ARGS__ : "memory");                                \
		if (__builtin_expect(failed_, false))                                                                  \
			vmx_instruction_failed(instruction);                                                           \
	} while (0)

static inline void vmxon(hpa_t region)
{
	VMX_INSTRUCTION("vmxon %1", "m"(region.value));
}

static inline void vmclear(hpa_t vmcs)
{
	VMX_INSTRUCTION("vmclear %1", "m"(vmcs.value));
}

static inline void vmptrld(hpa_t vmcs)
{
	VMX_INSTRUCTION("vmptrld %1", "m"(vmcs.value));
}

#define INVALIDATE_ALL 2ULL

static inline void invept_all(void)
{
	const u64 descriptor[2] = { 0, 0 };

	VMX_INSTRUCTION("invept %2, %1", "r"(INVALIDATE_ALL), "m"(descriptor));
}

static inline void invvpid_all(void)
{
	const u64 descriptor[2] = { 0, 0 };

	VMX_INSTRUCTION("invvpid %2, %1", "r"(INVALIDATE_ALL), "m"(descriptor));
}

void vmcs_field_failed(vmcs_field_t field) __attribute__((noreturn, cold));

/* Read or write a field of the current VMCS; a failure is the monitor's own bug and panics. */
static inline u64 vmread(vmcs_field_t field)
{
	u64 value;
	bool failed;

	asm volatile("vmread %2, %1" : "=@ccbe"(failed), "=r"(value) : "r"((u64)field.encoding) : "memory");
	if (__builtin_expect(failed, false))
		vmcs_field_failed(field);
	return value;
}

static inline void vmwrite(vmcs_field_t field, u64 value)
{
	bool failed;

	asm volatile("vmwrite %2, %1" : "=@ccbe"(failed) : "r"((u64)field.encoding), "r"(value) : "memory");
	if (__builtin_expect(failed, false))
		vmcs_field_failed(field);
}

/* Reads a field for a panic's report: some can't be read in some states, and that must not panic again. */
static inline u64 vmread_or_zero(vmcs_field_t field)
{
	u64 value = 0;
	bool failed;

	asm volatile("vmread %2, %1" : "=@ccbe"(failed), "+r"(value) : "r"((u64)field.encoding) : "memory");
	return failed ? 0 : value;
}

#endif
