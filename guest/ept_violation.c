// SPDX-License-Identifier: MIT
/* EPT violations of guests: memory that is missing, MMIO, and what the VM does not declare. */
#include "emulate.h"
#include "event.h"
#include "memory_service.h"
#include "paging.h"
#include "vcpu.h"

#define MAPPED (EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED)
#define CS_DEFAULT_32 BIT(14)

/* The bytes from the instruction pointer on, as far as they can be read. */
static unsigned fetch(struct vcpu *vcpu, u8 code[LONGEST_INSTRUCTION])
{
	u64 linear = vmread(VMCS_GUEST_RIP), gpa;
	unsigned done = 0;

	if (!is_64bit())
		linear = (u32)(linear + vmread(VMCS_GUEST_BASE(SEGMENT_CS)));
	while (done < LONGEST_INSTRUCTION) {
		unsigned bytes = LONGEST_INSTRUCTION - done, in_page = PAGE_SIZE - (linear + done) % PAGE_SIZE;

		if (bytes > in_page)
			bytes = in_page;
		if (!guest_translate(vcpu->handle, linear + done, vmread(VMCS_GUEST_CR0), vmread(VMCS_GUEST_CR3),
				     vmread(VMCS_GUEST_CR4), vmread(VMCS_GUEST_IA32_EFER), &gpa) ||
		    !memory_read_guest(vcpu->handle, gpa, code + done, bytes))
			break;
		done += bytes;
	}
	return done;
}

static enum next mmio(struct vcpu *vcpu, u64 gpa, bool is_write, u64 words[8])
{
	bool is_32bit = vmread(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) & CS_DEFAULT_32;
	struct mmio_instruction *access = &vcpu->access;
	u8 code[LONGEST_INSTRUCTION];
	unsigned length = fetch(vcpu, code);

	vcpu->regs.value[REGISTER_RSP] = vmread(VMCS_GUEST_RSP);
	/* The code may be another one by now. */
	if (!decode_mmio(code, length,
			 is_64bit() ? 64
			 : is_32bit ? 32
				    : 16,
			 access) ||
	    gpa % access->bytes || access->write != is_write || (vmread(VMCS_GUEST_LINEAR_ADDRESS) ^ gpa) % PAGE_SIZE)
		return vcpu_fail(vcpu, words, HYPERPS_FAILURE_INSTRUCTION);
	words[0] = access->write ? HYPERPS_EXIT_MMIO_WRITE : HYPERPS_EXIT_MMIO_READ;
	words[1] = gpa;
	words[2] = access->bytes;
	if (access->write)
		words[3] = mmio_write_value(access, vcpu->regs.value);
	else
		vcpu->answer = ANSWER_MMIO;
	skip_bytes(access->length);
	return RETURN_TO_HOST;
}

enum next guest_ept_violation(struct vcpu *vcpu, u64 words[8])
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), gpa = vmread(VMCS_GUEST_PHYSICAL_ADDRESS);
	u64 vectoring = vmread(VMCS_IDT_VECTORING_INFO), allowed;
	/* Read, write and fetch are the same bits in a qualification, in permissions and in the host's word. */
	u64 access = qualification & EPT_RWX;

	block_nmi_again(qualification, vectoring);
	allowed = mm_range(memory_lock(), vcpu->handle, gpa);
	memory_unlock();
	if (allowed == HYPERPS_RANGE_MMIO && (qualification & MAPPED) == MAPPED && !(access & EPT_EXECUTE) &&
	    !(vectoring & EVENT_VALID))
		return mmio(vcpu, gpa, access & EPT_WRITE, words);
	if (allowed != HYPERPS_RANGE_MMIO && allowed && !(access & ~allowed)) {
		words[0] = HYPERPS_EXIT_MEMORY;
		words[1] = ALIGN_DOWN(gpa, PAGE_SIZE);
		words[2] = access;
		return RETURN_TO_HOST;
	}
	/* As in the host: what is not there, or not allowed, is #GP. */
	if (!inject_gp_during(vectoring))
		return vcpu_fail(vcpu, words, HYPERPS_FAILURE_TRIPLE_FAULT);
	return RESUME_GUEST;
}
