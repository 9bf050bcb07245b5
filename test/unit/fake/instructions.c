// SPDX-License-Identifier: MIT
/* What an instruction does of which a test takes no notice: nothing. */
#include <stdlib.h>
#include "instructions.h"

/* What UNIT_NEVER_* of test.mk names: it has to be there for the linker. */
void never_called(void)
{
	abort();
}

#pragma weak cpuid
#pragma weak rdmsr
#pragma weak wrmsr
#pragma weak rdmsr_checked
#pragma weak load_checked
#pragma weak wrmsr_checked
#pragma weak xsetbv_checked
#pragma weak rdtsc
#pragma weak rdrand
#pragma weak read_register
#pragma weak write_register
#pragma weak read_gs_0
#pragma weak port_out
#pragma weak port_in
#pragma weak vmread
#pragma weak vmread_or_zero
#pragma weak vmwrite
#pragma weak vmxon
#pragma weak vmclear
#pragma weak vmptrld
#pragma weak invept_all
#pragma weak invvpid_all
#pragma weak mmio_read32
#pragma weak mmio_read64
#pragma weak mmio_write32
#pragma weak mmio_write64
#pragma weak clflush
#pragma weak wbinvd
#pragma weak unblock_nmi
#pragma weak xgetbv
#pragma weak fxsave
#pragma weak fxrstor
#pragma weak xsave
#pragma weak xrstor

struct cpuid_result cpuid(u32 leaf, u32 subleaf)
{
	(void)leaf;
	(void)subleaf;
	return (struct cpuid_result){ 0 };
}

u64 rdmsr(u32 msr)
{
	(void)msr;
	return 0;
}

void wrmsr(u32 msr, u64 value)
{
	(void)msr;
	(void)value;
}

bool rdmsr_checked(u32 msr, u64 *value)
{
	*value = rdmsr(msr);
	return true;
}

bool load_checked(const u64 *word, u64 *value)
{
	*value = *word;
	return true;
}

bool wrmsr_checked(u32 number, u64 value)
{
	(void)number;
	(void)value;
	return true;
}

bool xsetbv_checked(u32 number, u64 value)
{
	(void)number;
	(void)value;
	return true;
}

u64 rdtsc(void)
{
	return 0;
}

bool rdrand(u64 *value)
{
	(void)value;
	return false;
}

u64 read_register(const char *name)
{
	(void)name;
	return 0;
}

void write_register(const char *name, u64 value)
{
	(void)name;
	(void)value;
}

void *read_gs_0(void)
{
	return 0;
}

void port_out(u16 port, unsigned bytes, u32 value)
{
	(void)port;
	(void)bytes;
	(void)value;
}

u32 port_in(u16 port, unsigned bytes)
{
	(void)port;
	(void)bytes;
	return 0;
}

u64 vmread(vmcs_field_t field)
{
	(void)field;
	return 0;
}

u64 vmread_or_zero(vmcs_field_t field)
{
	return vmread(field);
}

void vmwrite(vmcs_field_t field, u64 value)
{
	(void)field;
	(void)value;
}

void vmxon(hpa_t region)
{
	(void)region;
}

void vmclear(hpa_t vmcs)
{
	(void)vmcs;
}

void vmptrld(hpa_t vmcs)
{
	(void)vmcs;
}

void invept_all(void)
{
}

void invvpid_all(void)
{
}

u32 mmio_read32(const u8 *address)
{
	(void)address;
	return 0;
}

u64 mmio_read64(const u8 *address)
{
	(void)address;
	return 0;
}

void mmio_write32(u8 *address, u32 value)
{
	(void)address;
	(void)value;
}

void mmio_write64(u8 *address, u64 value)
{
	(void)address;
	(void)value;
}

void clflush(u8 *line)
{
	(void)line;
}

void wbinvd(void)
{
}

u64 xgetbv(void)
{
	return 0;
}

void fxsave(u8 *area)
{
	(void)area;
}

void fxrstor(const u8 *area)
{
	(void)area;
}

void xsave(u8 *area, u64 mask)
{
	(void)area;
	(void)mask;
}

void xrstor(const u8 *area, u64 mask)
{
	(void)area;
	(void)mask;
}

void unblock_nmi(void)
{
}
