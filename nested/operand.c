// SPDX-License-Identifier: MIT
/* Memory operands of the host's VMX instructions. SDM, "VM-Exit Instruction Information". */
#include "event.h"
#include "log.h"
#include "memory_service.h"
#include "nested.h"
#include "paging.h"

#define INFO_SCALE(info) ((info)&3)
#define INFO_ADDRESS_32(info) (((info) >> 7 & 7) == 1)
#define INFO_SEGMENT(info) ((info) >> 15 & 7)
#define INFO_INDEX(info) ((info) >> 18 & 0xf)
#define INFO_NO_INDEX BIT(22)
#define INFO_BASE(info) ((info) >> 23 & 0xf)
#define INFO_NO_BASE BIT(27)

static u64 register_value(const struct registers *regs, u64 number)
{
	return number == REGISTER_RSP ? vmread(VMCS_GUEST_RSP) : regs->value[number];
}

static bool is_canonical(u64 linear, unsigned bits)
{
	return (u64)((s64)(linear << (64 - bits)) >> (64 - bits)) == linear;
}

/* False, and a fault is queued: the address is not canonical. */
static bool operand_address(const struct registers *regs, unsigned bytes, u64 *linear)
{
	u64 info = vmread(VMCS_INSTRUCTION_INFO), segment = INFO_SEGMENT(info);
	/* The displacement, sign-extended; with the next instruction's address where that is the base. */
	u64 address = vmread(VMCS_EXIT_QUALIFICATION);
	unsigned bits = vmread(VMCS_GUEST_CR4) & CR4_LA57 ? 57 : 48;

	if (!(info & INFO_NO_BASE))
		address += register_value(regs, INFO_BASE(info));
	if (!(info & INFO_NO_INDEX))
		address += register_value(regs, INFO_INDEX(info)) << INFO_SCALE(info);
	if (INFO_ADDRESS_32(info))
		address = (u32)address;
	if (segment == SEGMENT_FS || segment == SEGMENT_GS)
		address += vmread(VMCS_GUEST_BASE(segment));
	*linear = address;
	if (is_canonical(address, bits) && is_canonical(address + bytes - 1, bits))
		return true;
	inject_exception(segment == SEGMENT_SS ? VECTOR_SS : VECTOR_GP);
	return false;
}

/* As a refused access of the host's: exit_ept_violation(). */
static bool refuse(u64 gpa)
{
	log_refusal(REFUSED_MEMORY, "VMX instruction refused: its operand leads to %lx, at %016lx", gpa,
		    vmread(VMCS_GUEST_RIP));
	inject_exception(VECTOR_GP);
	return false;
}

/* Both pages are translated before anything is read or written. */
static bool operand_access(const struct registers *regs, u8 *buffer, unsigned bytes, bool write)
{
	const struct paging paging = { vmread(VMCS_GUEST_CR0),    vmread(VMCS_GUEST_CR3),
				       vmread(VMCS_GUEST_CR4),    vmread(VMCS_GUEST_IA32_EFER),
				       vmread(VMCS_GUEST_RFLAGS), this_cpu()->capabilities.physical_address_bits };
	unsigned in_page, part[2] = { bytes, 0 };
	u64 linear, gpa[2];

	if (!operand_address(regs, bytes, &linear))
		return false;
	in_page = (unsigned)(PAGE_SIZE - linear % PAGE_SIZE);
	if (bytes > in_page) {
		part[0] = in_page;
		part[1] = bytes - in_page;
	}
	for (unsigned i = 0; i < 2 && part[i]; linear += part[i++]) {
		u32 error_code;

		switch (host_translate(&paging, linear, write, &gpa[i], &error_code)) {
		case TRANSLATED:
			break;
		case TRANSLATION_FAULT:
			WRITE_REGISTER(cr2, linear);
			inject_exception(VECTOR_PF);
			vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, error_code);
			return false;
		case TRANSLATION_REFUSED:
			return refuse(gpa[i]);
		}
	}
	for (unsigned i = 0; i < 2 && part[i]; buffer += part[i++])
		if (!(write ? memory_write_host(gpa[i], buffer, part[i]) : memory_read_host(gpa[i], buffer, part[i])))
			return refuse(gpa[i]);
	return true;
}

bool operand_read(const struct registers *regs, void *out, unsigned bytes)
{
	return operand_access(regs, out, bytes, false);
}

bool operand_write(const struct registers *regs, u64 value)
{
	return operand_access(regs, (u8 *)&value, sizeof(value), true);
}
