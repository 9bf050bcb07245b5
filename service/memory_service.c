// SPDX-License-Identifier: MIT
#include "memory_service.h"
#include "address_space.h"
#include "cache.h"
#include "flush.h"
#include "gate_view.h"
#include "iommu.h"
#include "monitor.h"
#include "spinlock.h"
#include "stop.h"

static struct mm mm;
/* mm_lock guards struct mm, the page marks, the pool and all EPTs. Above log_lock in the lock order. */
static struct spinlock mm_lock;

void mm_zero_frame(u64 frame)
{
	u8 *window = set_window(frame, PTE_RW);

	__builtin_memset(window, 0, PAGE_SIZE);
	/* So that whoever has it next sees the zeros by any memory type, and devices by DMA. */
	write_back(__builtin_assume_aligned(window, PAGE_SIZE), PAGE_SIZE);
	set_window(0, 0);
}

void mm_measure_page(u64 slot, u64 gpa, u64 frame)
{
	u8 *window = set_window(frame, PTE_RW);

	/* What is in memory: a line that the host left in this CPU's cache might hide it, by another memory type. */
	write_back(__builtin_assume_aligned(window, PAGE_SIZE), PAGE_SIZE);
	mm_measure(&mm, slot, gpa, window);
	set_window(0, 0);
}

bool mm_map_donated(u64 frame)
{
	hpa_t hpa = HPA(frame << PAGE_SHIFT);
	volatile u64 *entry = NULL;

	if (!gate_uses(hpa))
		entry = own_page_entry(MONITOR_DIRECT_VA + hpa.value, PTE_2M_SHIFT, true);
	if (!entry)
		return false;
	/* Nothing was mapped there, so it needs no flush. */
	*entry = hpa.value | PTE_RW | PTE_LARGE;
	gate_add_memory(hpa);
	return true;
}

void memory_init(void)
{
	mm.marks = &monitor.marks;
	mm.pool = &monitor.pool;
	mm.host_view = &monitor.host_view;
	mm.epoch = 1;
}

bool memory_flush(void)
{
	u64 epoch;

	spin_lock(&mm_lock);
	/* Pages that came to the pool since the last look at it wait for this flush, and not for the next one. */
	page_pool_refresh(mm.pool, mm.epoch, mm.flushed, MM_BATCH);
	epoch = ++mm.epoch;
	spin_unlock(&mm_lock);
	/* Without the lock: another CPU may be waiting for it, and must be able to answer. */
	if (!flush_all_cpus(epoch) || !iommu_flush())
		return false;
	spin_lock(&mm_lock);
	if (mm.flushed < epoch)
		mm.flushed = epoch;
	spin_unlock(&mm_lock);
	return true;
}

struct mm *memory_lock(void)
{
	spin_lock(&mm_lock);
	return &mm;
}

void memory_unlock(void)
{
	spin_unlock(&mm_lock);
}

bool memory_read_guest(u64 handle, u64 gpa, void *out, unsigned bytes)
{
	s64 frame;
	u8 *window;

	spin_lock(&mm_lock);
	frame = mm_guest_frame(&mm, handle, gpa);
	if (frame >= 0) {
		window = set_window((u64)frame, PTE_RW);
		__builtin_memcpy(out, window + gpa % PAGE_SIZE, bytes);
		set_window(0, 0);
	}
	spin_unlock(&mm_lock);
	return frame >= 0;
}

/*
 * Whether all these bytes lie in one frame, of the host's. Any numbers: a frame that is past the table is not HOST. The
 * mark is one load: without the lock it may change meanwhile.
 */
static bool is_in_host_frame(u64 gpa, unsigned bytes)
{
	u64 frame = gpa >> PAGE_SHIFT;

	return bytes <= PAGE_SIZE - gpa % PAGE_SIZE && frame < mm.marks->frames &&
	       (__atomic_load_n(&mm.marks->mark[frame], __ATOMIC_SEQ_CST) & MARK_STATE) == HYPERPS_FRAME_HOST;
}

/* By whole words: REP MOVSB may tear one, which the host replaces meanwhile. words: NULL, or which of a page. */
static bool copy_from_host(u64 gpa, u8 *out, unsigned bytes, const u16 *words)
{
	const u8 *from;
	u64 word;

	if (!is_in_host_frame(gpa, words ? PAGE_SIZE : bytes))
		return false;
	from = set_window(gpa >> PAGE_SHIFT, PTE_RW) + gpa % PAGE_SIZE;
	/* At each VM entry of an L2. */
	for (; words && bytes && load_checked((const u64 *)from + *words, (u64 *)out); words++, out += sizeof(word))
		bytes -= sizeof(word);
	for (unsigned n; !words && bytes; from += n, out += n, bytes -= n) {
		unsigned skip = (u64)from % sizeof(word);

		if (!load_checked((const u64 *)(from - skip), &word))
			break;
		n = sizeof(word) - skip;
		if (n == sizeof(word) && n <= bytes) {
			__builtin_memcpy(out, &word, sizeof(word));
			continue;
		}
		n = n < bytes ? n : bytes;
		word >>= skip * 8;
		__builtin_memcpy(out, &word, n);
	}
	set_window(0, 0);
	return !bytes;
}

/*
 * A frame that is the host's at the look at its mark, and leaves it then, is nobody else's until this CPU has acknowledged a
 * flush, which its NMI handler does in the middle of the copy, too.
 */
static bool copy_consistently(u64 gpa, void *out, unsigned bytes, const u16 *words)
{
	struct cpu *cpu = this_cpu();
	bool done = false, again = true;

	for (unsigned round = 0; again && round < 3; round++) {
		u64 epoch = __atomic_load_n(&cpu->flushed, __ATOMIC_SEQ_CST);

		done = copy_from_host(gpa, out, bytes, words);
		again = __atomic_load_n(&cpu->flushed, __ATOMIC_SEQ_CST) != epoch;
	}
	if (again) {
		spin_lock(&mm_lock);
		done = copy_from_host(gpa, out, bytes, words);
		spin_unlock(&mm_lock);
	}
	/* What a copy that does not count has left there may be a VM's. */
	if (!done)
		__builtin_memset(out, 0, bytes);
	return done;
}

bool memory_read_host(u64 gpa, void *out, unsigned bytes)
{
	return copy_consistently(gpa, out, bytes, NULL);
}

bool memory_read_host_words(u64 gpa, u64 *out, const u16 *words, unsigned count)
{
	return copy_consistently(gpa, out, count * sizeof(*out), words);
}

bool memory_write_host(u64 gpa, const void *in, unsigned bytes)
{
	bool done;

	spin_lock(&mm_lock);
	done = is_in_host_frame(gpa, bytes);
	if (done) {
		__builtin_memcpy(set_window(gpa >> PAGE_SHIFT, PTE_RW) + gpa % PAGE_SIZE, in, bytes);
		set_window(0, 0);
	}
	spin_unlock(&mm_lock);
	return done;
}

bool memory_host_may(u64 gpa, u64 access)
{
	struct ept_run run;

	spin_lock(&mm_lock);
	run = ept_run(mm.host_view, GPA(ALIGN_DOWN(gpa, PAGE_SIZE)), 1);
	spin_unlock(&mm_lock);
	/* No access at all would be allowed, and repeated for ever. */
	return run.frames && access && !(access & ~run.entry);
}

bool memory_hide(hpa_t hpa, u64 pages)
{
	bool done = true;

	spin_lock(&mm_lock);
	for (u64 end = hpa.value + pages * PAGE_SIZE; done && hpa.value < end; hpa.value += PAGE_SIZE) {
		u64 *entry = page_pool_available(mm.pool) < MM_POOL_RESERVE
				     ? NULL
				     : ept_entry(mm.host_view, GPA(hpa.value), 1);

		done = entry;
		if (done)
			ept_set_entry(mm.host_view, entry, 1, 0);
	}
	spin_unlock(&mm_lock);
	return done;
}

static s64 locked_request(u64 call, const u64 *argument)
{
	s64 result;

	spin_lock(&mm_lock);
	result = mm_dispatch(&mm, call, argument);
	spin_unlock(&mm_lock);
	return result;
}

s64 serve_memory_call(u64 call, const u64 *argument, u64 *value)
{
	s64 result;

	/* Until then a CPU may run outside VMX, and a firmware service may still use any memory. */
	if (!monitor.other_cpus_taken)
		return HYPERPS_ERROR_PERMISSION;
	result = locked_request(call, argument);
	/*
	 * One flush for all that waits for it; also for table pages in the pool's quarantine: the VM_RECLAIM of a large VM
	 * frees many, and needs some for the host view. These may need a second one, if others wait before them.
	 */
	for (unsigned round = 0; round < 2; round++) {
		bool waits = result == HYPERPS_ERROR_AGAIN &&
			     (call == HYPERPS_CALL_VM_SYNC || call == HYPERPS_CALL_VM_RECLAIM);

		if ((!waits && result != HYPERPS_ERROR_MEMORY) || !memory_flush())
			break;
		result = locked_request(call, argument);
	}
	if (result == HYPERPS_ERROR_OWNER && call == HYPERPS_CALL_VM_MAP)
		log_refusal(REFUSED_MEMORY, "memory call refused: frame %lx, VM %lx, gpa %lx", argument[2], argument[0],
			    argument[1]);
	if (result < 0)
		return result;
	if (call == HYPERPS_CALL_VM_RECLAIM)
		iommu_add();
	*value = (u64)result;
	return HYPERPS_OK;
}

static __attribute__((noinline)) struct gate_result gate_request(u64 call, const u64 *argument)
{
	s64 result = locked_request(call, argument);

	/* A flush may free pages of the pool; and what is refused goes to the log. */
	if (result == HYPERPS_ERROR_MEMORY || (result == HYPERPS_ERROR_OWNER && call == HYPERPS_CALL_VM_MAP))
		result = HYPERPS_ERROR_USE_VMCALL;
	return (struct gate_result){ result < 0 ? result : HYPERPS_OK, result < 0 ? 0 : (u64)result };
}

struct gate_result gate_serve(u64 argument1, u64 argument2, u64 argument3, u64 unused, u64 argument4, u64 call)
{
	(void)unused;
	if (call == HYPERPS_CALL_IDENTIFY)
		return (struct gate_result){ HYPERPS_OK, HYPERPS_SIGNATURE };
	if (hyperps_gate_serves(call))
		return gate_request(call, (const u64[]){ argument1, argument2, argument3, argument4 });
	/* It reads or zeroes frames, or has other CPUs flush, which only root can. */
	return (struct gate_result){ HYPERPS_ERROR_USE_VMCALL, 0 };
}
