// SPDX-License-Identifier: MIT
/* VMX instructions of the host, but for what a VM entry does; docs/nested.md. SDM, "VMX Instruction Reference". */
#include "ept.h"
#include "emulate.h"
#include "event.h"
#include "log.h"
#include "memory_service.h"
#include "nested.h"

/* What becomes of an instruction: VMfail with one of the SDM's "VM Instruction Error Numbers", or one of the others. */
enum outcome {
	SUCCESS = 0,
	VMCLEAR_WITH_WRONG_ADDRESS = 2, /* and 3: with the VMXON region's */
	VMLAUNCH_OF_LAUNCHED = 4,
	VMRESUME_OF_CLEAR = 5,
	VMPTRLD_WITH_WRONG_ADDRESS = 9, /* and 10: with the VMXON region's */
	VMPTRLD_WITH_WRONG_REVISION = 11,
	UNSUPPORTED_FIELD = 12,
	READ_ONLY_FIELD = 13,
	VMXON_IN_VMX_OPERATION = 15,
	ENTRY_BLOCKED_BY_MOV_SS = 26,
	INVALID_OPERAND = 28,
	FAIL_INVALID = 0x100, /* VMfailInvalid */
	DONE, /* a fault is queued, or a VM entry was tried: RFLAGS and RIP are right */
};

#define RFLAGS_CF BIT(0)
#define RFLAGS_ZF BIT(6)
#define RFLAGS_ARITHMETIC (RFLAGS_CF | BIT(2) | BIT(4) | RFLAGS_ZF | BIT(7) | BIT(11)) /* and PF, AF, SF, OF */

/* VM-exit instruction information: whether VMREAD's or VMWRITE's value is in a register, and in which; the other operand. */
#define OPERAND_IN_REGISTER BIT(10)
#define OPERAND_REGISTER(information) ((information) >> 3 & 0xf)
#define SECOND_REGISTER(information) ((information) >> 28 & 0xf)

/* SDM, "Structure of VMCS Component Encoding". */
#define ENCODING_HIGH BIT(0)
#define ENCODING_WIDTH (3ULL << 13)
#define ENCODING_64_BITS (1ULL << 13)

/* Types of INVEPT (without the first) and INVVPID (and 3: as 1, but for global translations). */
enum { INVALIDATE_ADDRESS = 0, INVALIDATE_CONTEXT = 1, INVALIDATE_CONTEXTS = 2, INVVPID_TYPES = 4 };

static void finish(u64 flag)
{
	vmwrite(VMCS_GUEST_RFLAGS, (vmread(VMCS_GUEST_RFLAGS) & ~RFLAGS_ARITHMETIC) | flag);
	skip_instruction();
}

void nested_fail(struct nested *n, u32 error)
{
	if (n->current != NO_ADDRESS)
		nested_set(n, VMCS_INSTRUCTION_ERROR, error);
	finish(n->current != NO_ADDRESS ? RFLAGS_ZF : RFLAGS_CF);
}

static bool is_within_width(u64 address)
{
	return !(address >> this_cpu()->capabilities.physical_address_bits);
}

/* To a page that is not the host's, or no longer, nothing is written. */
static void write_back(struct nested *n, u64 address, const u64 *words, unsigned bytes)
{
	if (memory_write_host(address, words, bytes))
		return;
	n->lost_writebacks++;
	log_refusal(REFUSED_MEMORY, "VMCS at %lx refused, at %016lx", address, vmread(VMCS_GUEST_RIP));
}

static void forget_current(struct nested *n)
{
	nested_shadow_off(this_cpu(), n);
	nested_fetch(n);
	if (n->current != NO_ADDRESS)
		write_back(n, n->current, n->page, PAGE_SIZE);
	n->current = NO_ADDRESS;
	n->last_violation = NO_ADDRESS;
}

static enum outcome execute_vmxon(struct cpu *cpu, const struct registers *regs)
{
	struct nested *n = cpu->nested;
	u64 address;
	u32 revision;

	if (n->state != NESTED_OFF)
		return VMXON_IN_VMX_OPERATION;
	/* Of what VMX operation needs in CR0 and CR4, nothing else can be missing in 64-bit mode with CR4.VMXE. */
	if (!(vmread(VMCS_CR0_READ_SHADOW) & CR0_NE)) {
		inject_exception(VECTOR_GP);
		return DONE;
	}
	if (!operand_read(regs, &address, sizeof(address)))
		return DONE;
	if (address % PAGE_SIZE || !is_within_width(address) ||
	    !memory_read_host(address, &revision, sizeof(revision)) || revision != VMCS12_REVISION)
		return FAIL_INVALID;
	nested_begin(cpu);
	n->vmxon_region = address;
	n->state = NESTED_ROOT;
	return SUCCESS;
}

/* The operand of VMCLEAR or VMPTRLD. error: the number for a wrong address. */
static enum outcome read_pointer(struct nested *n, const struct registers *regs, enum outcome error, u64 *address)
{
	if (!operand_read(regs, address, sizeof(*address)))
		return DONE;
	if (*address % PAGE_SIZE || !is_within_width(*address))
		return error;
	return *address == n->vmxon_region ? error + 1 : SUCCESS;
}

static enum outcome execute_vmclear(struct nested *n, const struct registers *regs)
{
	const u64 clear = 0;
	u64 address;
	enum outcome outcome = read_pointer(n, regs, VMCLEAR_WITH_WRONG_ADDRESS, &address);

	if (outcome != SUCCESS)
		return outcome;
	if (address == n->current) {
		n->page[VMCS12_LAUNCH_STATE] = clear;
		forget_current(n);
	} else {
		write_back(n, address + VMCS12_LAUNCH_STATE * sizeof(clear), &clear, sizeof(clear));
	}
	return SUCCESS;
}

static enum outcome execute_vmptrld(struct nested *n, const struct registers *regs)
{
	u64 address, *page = n->second;
	enum outcome outcome = read_pointer(n, regs, VMPTRLD_WITH_WRONG_ADDRESS, &address);

	/* If it is current, the copy of it is newer. */
	if (outcome != SUCCESS || address == n->current)
		return outcome;
	if (!memory_read_host(address, page, PAGE_SIZE) || (u32)page[0] != VMCS12_REVISION)
		return VMPTRLD_WITH_WRONG_REVISION;
	forget_current(n);
	n->second = n->page;
	n->page = page;
	n->current = address;
	n->dirty = true;
	nested_shadow_on(this_cpu(), n);
	return SUCCESS;
}

static enum outcome execute_access(struct nested *n, struct registers *regs, u64 encoding, bool write)
{
	u64 information = vmread(VMCS_INSTRUCTION_INFO), *operand = &regs->value[OPERAND_REGISTER(information)], value;
	bool high = encoding & ENCODING_HIGH, in_register = information & OPERAND_IN_REGISTER, cold;
	vmcs_field_t field = VMCS_FIELD((u32)(encoding & ~ENCODING_HIGH));
	const struct nested_field *found = nested_field(encoding & ~ENCODING_HIGH);

	/* A fault of VMWRITE's comes before a look at the field, one of VMREAD's after it. */
	if (write && !in_register && !operand_read(regs, &value, sizeof(value)))
		return DONE;
	if (!found || (high && (encoding & ENCODING_WIDTH) != ENCODING_64_BITS))
		return UNSUPPORTED_FIELD;
	cold = !(found->flags & NESTED_SHADOW_WRITE);
	if (write && found->kind == NESTED_INFO)
		return READ_ONLY_FIELD;
	/* CR3, and what is hot of CS and SS, come to VMCS12 at each exit. */
	if (cold && (write || (found->flags & (NESTED_SAVED | NESTED_SHADOW_READ)) == NESTED_SAVED))
		nested_fetch(n);
	if (write) {
		n->dirty |= cold;
		value = in_register ? *operand : value;
		if (found->flags & NESTED_SHADOW_READ)
			nested_shadow_off(this_cpu(), n);
		nested_set(n, field, high ? (u32)nested_get(n, field) | value << 32 : value);
		if (found->flags & NESTED_SHADOW_READ)
			nested_shadow_on(this_cpu(), n);
		return SUCCESS;
	}
	value = nested_get(n, field) >> (high ? 32 : 0);
	if (!in_register)
		return operand_write(regs, value) ? SUCCESS : DONE;
	*operand = value;
	vmwrite(VMCS_GUEST_RSP, regs->value[REGISTER_RSP]);
	return SUCCESS;
}

static enum outcome execute_entry(struct nested *n, bool launch)
{
	if (vmread(VMCS_GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_MOV_SS)
		return ENTRY_BLOCKED_BY_MOV_SS;
	if (n->page[VMCS12_LAUNCH_STATE] != !launch)
		return launch ? VMLAUNCH_OF_LAUNCHED : VMRESUME_OF_CLEAR;
	nested_enter(n);
	return DONE;
}

static enum outcome execute_invept(struct nested *n, const struct registers *regs, u64 type)
{
	u64 descriptor[2];

	if (type != INVALIDATE_CONTEXT && type != INVALIDATE_CONTEXTS)
		return INVALID_OPERAND;
	if (!operand_read(regs, descriptor, sizeof(descriptor)))
		return DONE;
	if (type == INVALIDATE_CONTEXTS)
		nested_drop_all(n);
	else if (descriptor[0] % PAGE_SIZE != EPTP_FLAGS(4) || !is_within_width(descriptor[0]))
		return INVALID_OPERAND;
	else
		nested_drop(n, descriptor[0]);
	return SUCCESS;
}

static enum outcome execute_invvpid(const struct nested *n, const struct registers *regs, u64 type)
{
	/* The width that the CPU has, whatever CR4.LA57 is. */
	unsigned unused = 64 - (this_cpu()->capabilities.cr4_fixed1 & CR4_LA57 ? 57 : 48);
	u64 descriptor[2];

	if (type >= INVVPID_TYPES)
		return INVALID_OPERAND;
	if (!operand_read(regs, descriptor, sizeof(descriptor)))
		return DONE;
	if (descriptor[0] >> 16 || (type != INVALIDATE_CONTEXTS && !descriptor[0]) ||
	    (type == INVALIDATE_ADDRESS && (s64)(descriptor[1] << unused) >> unused != (s64)descriptor[1]))
		return INVALID_OPERAND;
	/* What L2s with another VPID had cached goes before the next entry. */
	if (type == INVALIDATE_CONTEXTS || descriptor[0] == n->last_vpid)
		invvpid_all();
	return SUCCESS;
}

static enum outcome execute(struct cpu *cpu, struct registers *regs, u32 reason)
{
	struct nested *n = cpu->nested;
	u64 second = regs->value[SECOND_REGISTER(vmread(VMCS_INSTRUCTION_INFO))];

	switch (reason) {
	case EXIT_VMXON:
		return execute_vmxon(cpu, regs);
	case EXIT_VMXOFF:
		forget_current(n);
		nested_end(n);
		return SUCCESS;
	case EXIT_VMCLEAR:
		return execute_vmclear(n, regs);
	case EXIT_VMPTRLD:
		return execute_vmptrld(n, regs);
	case EXIT_VMPTRST:
		return operand_write(regs, n->current) ? SUCCESS : DONE;
	case EXIT_INVEPT:
		return execute_invept(n, regs, second);
	case EXIT_INVVPID:
		return execute_invvpid(n, regs, second);
	}
	if (n->current == NO_ADDRESS)
		return FAIL_INVALID;
	if (reason == EXIT_VMREAD || reason == EXIT_VMWRITE)
		return execute_access(n, regs, second, reason == EXIT_VMWRITE);
	return execute_entry(n, reason == EXIT_VMLAUNCH);
}

void nested_instruction(struct registers *regs, u32 reason)
{
	struct cpu *cpu = this_cpu();
	enum outcome outcome = DONE;
	u64 ept_vpid;

	regs->value[REGISTER_RSP] = vmread(VMCS_GUEST_RSP);
	if (!is_64bit() || !(vmread(VMCS_CR4_READ_SHADOW) & CR4_VMXE) ||
	    (reason != EXIT_VMXON && cpu->nested->state == NESTED_OFF) ||
	    (reason == EXIT_INVVPID &&
	     (!nested_msr(MSR_IA32_VMX_EPT_VPID_CAP, &ept_vpid) || !(ept_vpid & EPT_CAP_INVVPID))))
		inject_exception(VECTOR_UD);
	else if (privilege_level())
		inject_exception(VECTOR_GP);
	else
		outcome = execute(cpu, regs, reason);
	if (outcome == SUCCESS)
		finish(0);
	else if (outcome == FAIL_INVALID)
		finish(RFLAGS_CF);
	else if (outcome != DONE)
		nested_fail(cpu->nested, outcome);
}
