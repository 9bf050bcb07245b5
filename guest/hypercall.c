// SPDX-License-Identifier: MIT
/* Calls of guests to the monitor (include/hyperps/guest.h). */
#include "cpu_features.h"
#include "emulate.h"
#include "event.h"
#include "flush.h"
#include "iommu.h"
#include "memory_service.h"
#include "vcpu.h"
#include "hyperps/guest.h"

_Static_assert(HYPERPS_GUEST_RELEASE - HYPERPS_GUEST_SHARE == 2 && HYPERPS_EXIT_RELEASED - HYPERPS_EXIT_SHARED == 2 &&
		       HYPERPS_GUEST_UNSHARE - HYPERPS_GUEST_SHARE == 1 &&
		       HYPERPS_EXIT_UNSHARED - HYPERPS_EXIT_SHARED == 1,
	       "calls and exits are in the same order");

/* Only the bytes that are meant reach the host. */
static s64 console(const u64 *regs, bool is_long, u64 words[8])
{
	u64 text[] = { regs[REGISTER_RSI], regs[REGISTER_RDX], regs[REGISTER_R8], regs[REGISTER_R9],
		       regs[REGISTER_R10] };
	u64 bytes = is_long ? regs[REGISTER_RDI] : (u32)regs[REGISTER_RDI];

	if (!is_long)
		text[0] = (u32)text[0] | text[1] << 32;
	if (!bytes || bytes > (is_long ? sizeof(text) : sizeof(text[0])))
		return HYPERPS_ERROR_INVALID;
	words[0] = HYPERPS_EXIT_CONSOLE;
	words[1] = bytes;
	__builtin_memcpy(&words[2], text, bytes);
	return HYPERPS_OK;
}

/* A request of the memory manager. HYPERPS_EXIT_ROOM: it can only be met once the host has made room for it. */
static s64 memory_request(struct vcpu *vcpu, u64 call, u64 gpa, u64 count, u64 words[8])
{
	static const u8 to[] = { HYPERPS_FRAME_SHARED, HYPERPS_FRAME_TO_VM, HYPERPS_FRAME_TO_HOST }; /* by call */
	s64 result = mm_guest_move(memory_lock(), vcpu->handle, gpa, count, to[call - HYPERPS_GUEST_SHARE]);

	memory_unlock();
	vcpu->must_sync |= call == HYPERPS_GUEST_UNSHARE && !result;
	vcpu->must_flush |= result == HYPERPS_ERROR_MEMORY;
	if (result == HYPERPS_ERROR_AGAIN || result == HYPERPS_ERROR_MEMORY)
		words[0] = HYPERPS_EXIT_ROOM;
	if (result)
		return result;
	/* Not present for this vCPU from now on; for others when it is synced or reclaimed. */
	if (call != HYPERPS_GUEST_SHARE)
		flush_this_cpu(this_cpu());
	else
		iommu_add();
	words[0] = HYPERPS_EXIT_SHARED + (call - HYPERPS_GUEST_SHARE);
	words[1] = gpa;
	words[2] = count;
	return HYPERPS_OK;
}

/* SDM, "RDRAND": ten tries are enough on a CPU that works. */
static bool random(u64 *value)
{
	for (unsigned i = 0; i < 10; i++)
		if (rdrand(value))
			return true;
	return false;
}

enum next guest_hypercall(struct vcpu *vcpu, u64 words[8])
{
	bool is_long = is_64bit();
	/* Outside 64-bit mode only the lower halves are the guest's. */
	u64 *regs = vcpu->regs.value, mask = is_long ? ~0ULL : ~0U, digest[4];
	s64 result = HYPERPS_ERROR_NO_CALL;

	if (privilege_level()) {
		inject_exception(VECTOR_UD);
		return RESUME_GUEST;
	}
	switch (regs[REGISTER_RAX] & mask) {
	case HYPERPS_GUEST_CONSOLE:
		result = console(regs, is_long, words);
		break;
	case HYPERPS_GUEST_SHARE ... HYPERPS_GUEST_RELEASE:
		result = memory_request(vcpu, (u32)regs[REGISTER_RAX], regs[REGISTER_RDI] & mask,
					regs[REGISTER_RSI] & mask, words);
		/* Made again, once the host has done that. */
		if (words[0] == HYPERPS_EXIT_ROOM)
			return RETURN_TO_HOST;
		break;
	case HYPERPS_GUEST_RANDOM:
		if (cpuid(1, 0).ecx & BIT(CPUID_RDRAND))
			result = random(&regs[REGISTER_RDX]) ? HYPERPS_OK : HYPERPS_ERROR_AGAIN;
		break;
	case HYPERPS_GUEST_MEASUREMENT:
		if (!is_long)
			break;
		__builtin_memcpy(digest, vcpu->vm->digest, sizeof(digest));
		regs[REGISTER_RDI] = digest[0];
		regs[REGISTER_RSI] = digest[1];
		regs[REGISTER_RDX] = digest[2];
		regs[REGISTER_R8] = digest[3];
		result = HYPERPS_OK;
		break;
	case HYPERPS_GUEST_SHUTDOWN:
		words[0] = HYPERPS_EXIT_SHUTDOWN;
		words[1] = (u8)regs[REGISTER_RDI];
		vcpu->ended = true;
		result = HYPERPS_OK;
	}
	regs[REGISTER_RAX] = (u64)result;
	skip_instruction();
	return words[0] ? RETURN_TO_HOST : RESUME_GUEST;
}
