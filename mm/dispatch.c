// SPDX-License-Identifier: MIT
/* From the host's registers to the memory manager's requests. */
#include "manager.h"

s64 mm_dispatch(struct mm *mm, u64 call, const u64 argument[4])
{
	const struct vm *vm = mm_find_vm(mm, argument[0]);

	/* A KVM VM is not the host's to change. POOL_DONATE has no handle: its frame number may look like one. */
	if (vm && vm->kvm.is_kvm && call != HYPERPS_CALL_FRAME_QUERY && call != HYPERPS_CALL_POOL_DONATE &&
	    call != HYPERPS_CALL_VM_CREATE)
		return HYPERPS_ERROR_STATE;
	switch (call) {
	case HYPERPS_CALL_VM_CREATE:
		return mm_create(mm);
	case HYPERPS_CALL_VM_MAP:
		return mm_map(mm, argument[0], argument[1], argument[2], argument[3]);
	case HYPERPS_CALL_VM_DECLARE:
		return mm_declare(mm, argument[0], argument[1] & ~(PAGE_SIZE - 1), argument[2],
				  argument[1] & (PAGE_SIZE - 1));
	case HYPERPS_CALL_VM_SYNC:
		return mm_sync(mm, argument[0]);
	case HYPERPS_CALL_VM_SEAL:
		return mm_seal(mm, argument[0]);
	case HYPERPS_CALL_VM_DESTROY:
		return mm_destroy(mm, argument[0]);
	case HYPERPS_CALL_VM_RECLAIM:
		return mm_reclaim(mm, argument[0]);
	case HYPERPS_CALL_POOL_DONATE:
		return mm_donate(mm, argument[0]);
	case HYPERPS_CALL_FRAME_QUERY:
		return mm_query(mm, argument[0], argument[1]);
	default:
		return HYPERPS_ERROR_NO_CALL;
	}
}
