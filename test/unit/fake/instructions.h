/* SPDX-License-Identifier: MIT */
/* In place of include/instructions.h: functions that a test defines; instructions.c has a default for each. */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include "vmx.h"
#include "x86.h"

struct cpuid_result cpuid(u32 leaf, u32 subleaf);
u64 rdmsr(u32 msr);
void wrmsr(u32 msr, u64 value);
bool rdmsr_checked(u32 msr, u64 *value);
bool load_checked(const u64 *word, u64 *value);
bool wrmsr_checked(u32 number, u64 value);
bool xsetbv_checked(u32 number, u64 value);
u64 rdtsc(void);
bool rdrand(u64 *value);
u64 read_register(const char *name);
void write_register(const char *name, u64 value);
#define READ_REGISTER(name) read_register(#name)
#define WRITE_REGISTER(name, value) write_register(#name, value)
void *read_gs_0(void);

/* What goes to and comes from ports, of any width. */
void port_out(u16 port, unsigned bytes, u32 value);
u32 port_in(u16 port, unsigned bytes);
#define outb(port, value) port_out(port, 1, value)
#define outw(port, value) port_out(port, 2, value)
#define outl(port, value) port_out(port, 4, value)
#define inb(port) port_in(port, 1)
#define inw(port) port_in(port, 2)
#define inl(port) port_in(port, 4)

u64 vmread(vmcs_field_t field);
u64 vmread_or_zero(vmcs_field_t field);
void vmwrite(vmcs_field_t field, u64 value);
void vmxon(hpa_t region);
void vmclear(hpa_t vmcs);
void vmptrld(hpa_t vmcs);
void invept_all(void);
void invvpid_all(void);

/* address: what the test's set_window() gave. */
u32 mmio_read32(const u8 *address);
u64 mmio_read64(const u8 *address);
void mmio_write32(u8 *address, u32 value);
void mmio_write64(u8 *address, u64 value);
void clflush(u8 *line);
void wbinvd(void);
void unblock_nmi(void);

u64 xgetbv(void);
void fxsave(u8 *area);
void fxrstor(const u8 *area);
void xsave(u8 *area, u64 mask);
void xrstor(const u8 *area, u64 mask);

/* Without a meaning for a test so far. */
static inline void pause_cpu(void)
{
}
#define pause pause_cpu /* unistd.h has another */
#define invlpg(page) ((void)(page))
#define mfence() ((void)0)
#define verw(selector) ((void)(selector))
#define cli_hlt() ((void)0)

#endif
