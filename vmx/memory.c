// SPDX-License-Identifier: MIT
/* EPT violations of the host: an access to memory that its view does not hold. */
#include "core.h"
#include "host.h"
#include "x86.h"

/* A read, no write or fetch, of what a linear address translates to. */
#define KERNEL_READ (EPT_VIOLATION_READ | EPT_VIOLATION_LINEAR | EPT_VIOLATION_TRANSLATED)
#define KERNEL_READ_MASK (KERNEL_READ | EPT_VIOLATION_WRITE | EPT_VIOLATION_FETCH)

void exit_ept_violation(void)
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION);
	u64 vectoring = vmread(VMCS_IDT_VECTORING_INFO);

	log_refusal(REFUSED_MEMORY, "memory access refused: %s%s%s of %lx, at %016lx",
		    qualification & EPT_VIOLATION_READ ? "read " : "",
		    qualification & EPT_VIOLATION_WRITE ? "write " : "",
		    qualification & EPT_VIOLATION_FETCH ? "execute " : "", vmread(VMCS_GUEST_PHYSICAL_ADDRESS),
		    vmread(VMCS_GUEST_RIP));
	/*
	 * A kernel's read of its own half is a page fault: Linux reads a few bytes past what it owns
	 * (load_unaligned_zeropad) and recovers from that alone.
	 */
	if (!(vectoring & EVENT_VALID) && (qualification & KERNEL_READ_MASK) == KERNEL_READ && is_64bit_ring0() &&
	    (s64)vmread(VMCS_GUEST_LINEAR_ADDRESS) < 0) {
		WRITE_REGISTER(cr2, vmread(VMCS_GUEST_LINEAR_ADDRESS));
		inject_exception(VECTOR_PF);
		return;
	}
	/*
	 * Else #GP: a page fault on a page whose entry looks fine is spurious to Linux, which retries it for ever.
	 * While another event was being delivered (the host's own IDT or stack lies in refused memory) the
	 * architecture's rules for a fault during delivery apply: an exception becomes a double fault, a double fault a
	 * triple fault.
	 */
	if (!inject_gp_during(vectoring))
		exit_triple_fault();
}
