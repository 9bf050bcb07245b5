// SPDX-License-Identifier: MIT
/* EPT violations of the host: an access to memory that its view does not hold. */
#include "event.h"
#include "host_cpu.h"
#include "log.h"
#include "memory_service.h"

/* A read or a write, no fetch, of what a linear address translates to. */
#define DATA_ACCESS (EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED)

void exit_ept_violation(struct registers *regs)
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION);
	u64 vectoring = vmread(VMCS_IDT_VECTORING_INFO);

	/*
	 * SDM, "Cached Translation Information": the exit has dropped what this CPU had for the address; now it finds the entry. An
	 * event whose delivery met it is delivered again.
	 */
	if (memory_host_may(vmread(VMCS_GUEST_PHYSICAL_ADDRESS), qualification & EPT_RWX)) {
		block_nmi_again(qualification, vectoring);
		deliver_again();
		return;
	}
	log_refusal(REFUSED_MEMORY, "memory access refused: %s%s%s of %lx, at %016lx",
		    qualification & EPT_VIOLATION_READ ? "read " : "",
		    qualification & EPT_VIOLATION_WRITE ? "write " : "",
		    qualification & EPT_VIOLATION_FETCH ? "execute " : "", vmread(VMCS_GUEST_PHYSICAL_ADDRESS),
		    vmread(VMCS_GUEST_RIP));
	/*
	 * A kernel's access to its own half is a page fault: Linux recovers from that alone where it reads a few bytes
	 * past what it owns (load_unaligned_zeropad), and without a warning where it copies. A reserved bit in an entry
	 * is no reason to Linux to repeat the access: a write to a read-only page, and a page that is not present, may
	 * be (spurious faults, vmalloc areas, KFENCE).
	 */
	if (!(vectoring & EVENT_VALID) && (qualification & (DATA_ACCESS | EPT_VIOLATION_FETCH)) == DATA_ACCESS &&
	    is_64bit_ring0() && (s64)vmread(VMCS_GUEST_LINEAR_ADDRESS) < 0) {
		WRITE_REGISTER(cr2, vmread(VMCS_GUEST_LINEAR_ADDRESS));
		inject_exception(VECTOR_PF);
		vmwrite(VMCS_ENTRY_EXCEPTION_ERROR_CODE,
			PF_PRESENT | PF_RESERVED | (qualification & EPT_VIOLATION_WRITE ? PF_WRITE : 0));
		return;
	}
	/*
	 * Else #GP: a page fault on a page whose entry looks fine is spurious to Linux, which retries it for ever.
	 * While another event was being delivered (the host's own IDT or stack lies in refused memory) the
	 * architecture's rules for a fault during delivery apply: an exception becomes a double fault, a double fault a
	 * triple fault.
	 */
	if (!inject_gp_during(vectoring))
		exit_triple_fault(regs);
}
