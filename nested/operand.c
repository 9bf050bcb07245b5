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

/* Where an operand lies: in one page or in two. */
struct operand {
	u64 gpa[2];
	unsigned bytes[2];
};

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

static bool find_operand(const struct registers *regs, unsigned bytes, bool write, struct operand *operand)
{
	const struct paging paging = { vmread(VMCS_GUEST_CR0),    vmread(VMCS_GUEST_CR3),
				       vmread(VMCS_GUEST_CR4),    vmread(VMCS_GUEST_IA32_EFER),
				       vmread(VMCS_GUEST_RFLAGS), this_cpu()->capabilities.physical_address_bits };
	unsigned in_page;
	u64 linear;

	if (!operand_address(regs, bytes, &linear))
		return false;
	in_page = (unsigned)(PAGE_SIZE - linear % PAGE_SIZE);
	*operand = (struct operand){ .bytes = { bytes, 0 } };
	if (bytes > in_page)
		*operand = (struct operand){ .bytes = { in_page, bytes - in_page } };
	/* Both before anything is read or written. */
	for (unsigned i = 0; i < 2 && operand->bytes[i]; linear += operand->bytes[i++]) {
		u32 error_code;

		switch (host_translate(&paging, linear, write, &operand->gpa[i], &error_code)) {
		case TRANSLATED:
			break;
		case TRANSLATION_FAULT:
			WRITE_REGISTER(cr2, linear);
			inject_exception(VECTOR_PF);
			vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE, error_code);
			return false;
		case TRANSLATION_REFUSED:
			return refuse(operand->gpa[i]);
		}
	}
	return true;
}

bool operand_read(const struct registers *regs, void *out, unsigned bytes)
{
	struct operand operand;

	if (!find_operand(regs, bytes, false, &operand))
		return false;
	for (unsigned i = 0; i < 2 && operand.bytes[i]; i++)
		if (!memory_read_host(operand.gpa[i], (u8 *)out + (i ? operand.bytes[0] : 0), operand.bytes[i]))
			return refuse(operand.gpa[i]);
	return true;
}

bool operand_write(const struct registers *regs, u64 value)
{
	struct operand operand;

	if (!find_operand(regs, sizeof(value), true, &operand))
		return false;
	for (unsigned i = 0; i < 2 && operand.bytes[i]; i++)
		if (!memory_write_host(operand.gpa[i], (u8 *)&value + (i ? operand.bytes[0] : 0), operand.bytes[i]))
			return refuse(operand.gpa[i]);
	return true;
}
