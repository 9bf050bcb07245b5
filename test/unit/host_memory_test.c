// SPDX-License-Identifier: MIT
/*
 * service/memory_service.c: what is read of the host's memory is the host's. A frame leaves it, and this CPU acknowledges
 * flushes as its NMI handler does, before each instruction of the read: a trap after each (RFLAGS.TF) is the NMI. From the
 * acknowledgement on the frame holds a secret of somebody else's.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <cmocka.h>
#include "memory_service.c"

#define FRAMES 4
#define FRAME 2 /* that is read */
#define SECRET 0x5ec5ec5ec5ec5ec5ULL
#define NEVER (~0U)

struct monitor monitor;
static struct cpu cpu;
static u64 mark_table[FRAMES];
static struct page_marks marks = { .mark = mark_table, .frames = FRAMES };
static u64 memory[FRAMES][PAGE_SIZE / sizeof(u64)];
static u8 *no_access; /* where the window is while frames are read: only load_checked() gets at it */
static s64 open_frame; /* in the window, or -1 */
static unsigned windows, loads, poisoned_load;
static bool writes, storm, flips;

/* What happens before which instruction. */
static unsigned instruction, leave_at, acknowledge_at, flush_at;
static u64 epoch;

void *read_gs_0(void)
{
	return &cpu;
}

u8 *set_window(u64 frame, u64 flags)
{
	windows++;
	if (!flags) {
		assert_int_equal(frame, 0);
		assert_true(open_frame >= 0);
		open_frame = -1;
		return NULL;
	}
	assert_int_equal(open_frame, -1);
	assert_in_range(frame, 0, FRAMES - 1);
	assert_int_equal(flags, PTE_RW);
	open_frame = (s64)frame;
	return writes ? (u8 *)memory[frame] : no_access;
}

static void acknowledge(void)
{
	/* A frame that has left is somebody else's once every CPU has acknowledged. */
	if ((mark_table[FRAME] & MARK_STATE) == HYPERPS_FRAME_TO_VM) {
		mark_table[FRAME] = HYPERPS_FRAME_PRIVATE;
		for (size_t i = 0; i < ARRAY_SIZE(memory[FRAME]); i++)
			memory[FRAME][i] = SECRET;
	}
	cpu.flushed = ++epoch;
}

bool load_checked(const u64 *word, u64 *value)
{
	u64 offset = (u64)((const u8 *)word - no_access);

	assert_int_equal(offset % sizeof(*word), 0);
	assert_in_range(offset, 0, PAGE_SIZE - sizeof(*word));
	assert_true(open_frame >= 0);
	if (loads++ == poisoned_load)
		return false;
	*value = memory[open_frame][offset / sizeof(*word)];
	if (flips) /* by another CPU of the host's: whoever looks twice sees both */
		memory[open_frame][offset / sizeof(*word)] ^= ~0ULL;
	/* In the fourth copy of two words the frame leaves as well, unless that is under the lock. */
	if (storm && !mm_lock.taken) {
		if (loads == 7)
			mark_table[FRAME] = HYPERPS_FRAME_TO_VM;
		acknowledge();
	}
	return true;
}

static void trap(int number, siginfo_t *info, void *context)
{
	unsigned now = instruction++;

	(void)number;
	(void)info;
	/* Under the lock no request takes a frame. */
	if (now >= leave_at && !mm_lock.taken && mark_table[FRAME] == HYPERPS_FRAME_HOST)
		mark_table[FRAME] = HYPERPS_FRAME_TO_VM;
	if ((now >= acknowledge_at && mark_table[FRAME] == HYPERPS_FRAME_TO_VM) || now == flush_at)
		acknowledge();
	/* Nothing more happens: the rest at full speed. */
	if (mark_table[FRAME] == HYPERPS_FRAME_PRIVATE || (now >= flush_at && flush_at != NEVER))
		((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(long long)RFLAGS_TF;
}

/* Traps from now on, or no more. The red zone is the compiler's. */
#define SET_STEPPING(instruction, bits)                                                                                \
	asm volatile("lea -128(%%rsp), %%rsp\npushfq\n" instruction                                                    \
		     " %0, (%%rsp)\npopfq\nlea 128(%%rsp), %%rsp" ::"i"(bits)                                          \
		     : "memory", "cc")
#define BEGIN_STEPS() SET_STEPPING("orq", RFLAGS_TF)
#define END_STEPS() SET_STEPPING("andq", ~RFLAGS_TF)

static u64 content(u64 gpa)
{
	return (gpa / sizeof(u64) + 1) * 0x0101030507090b0dULL;
}

static void reset(void)
{
	for (u64 gpa = 0; gpa < sizeof(memory); gpa += sizeof(u64))
		((u64 *)memory)[gpa / sizeof(u64)] = content(gpa);
	for (u64 frame = 0; frame < FRAMES; frame++)
		mark_table[frame] = HYPERPS_FRAME_HOST;
	mm.marks = &marks;
	open_frame = -1;
	windows = loads = 0;
	poisoned_load = leave_at = acknowledge_at = flush_at = NEVER;
	writes = storm = flips = false;
}

static u8 host_byte(u64 gpa)
{
	return (u8)(content(gpa) >> gpa % sizeof(u64) * 8);
}

/* Reads, and looks at what came: the host's bytes, or nothing. */
static bool read_host(u64 gpa, unsigned bytes, bool step)
{
	u8 out[PAGE_SIZE + 16];
	bool done;

	memset(out, 0xcc, sizeof(out));
	instruction = 0;
	if (step)
		BEGIN_STEPS();
	done = memory_read_host(gpa, out + 8, bytes);
	if (step)
		END_STEPS();
	for (unsigned i = 0; i < bytes; i++)
		assert_int_equal(out[8 + i], done ? host_byte(gpa + i) : 0);
	for (unsigned i = 0; i < 8; i++)
		assert_true(out[i] == 0xcc && out[8 + bytes + i] == 0xcc);
	assert_int_equal(open_frame, -1);
	assert_false(mm_lock.taken);
	return done;
}

#define FROM (FRAME * PAGE_SIZE)

static void any_bytes_of_a_page(void **state)
{
	(void)state;
	for (unsigned offset = 0; offset < 24; offset++) {
		for (unsigned bytes = 1; bytes < 24; bytes++) {
			reset();
			assert_true(read_host(FROM + offset, bytes, false));
			assert_int_equal(loads, (offset + bytes - 1) / 8 - offset / 8 + 1);
			assert_true(read_host(FROM + PAGE_SIZE - offset - bytes, bytes, false));
		}
	}
	reset();
	assert_true(read_host(FROM, PAGE_SIZE, false));
	assert_int_equal(loads, PAGE_SIZE / 8);
	assert_int_equal(windows, 2);
}

static void words_of_a_page(void **state)
{
	static const u16 words[] = { 511, 0, 7, 7 };
	static const u64 none[ARRAY_SIZE(words)];
	u64 out[ARRAY_SIZE(words)];

	(void)state;
	reset();
	assert_true(memory_read_host_words(FROM, out, words, ARRAY_SIZE(words)));
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		assert_true(out[i] == content(FROM + words[i] * 8));
	assert_int_equal(loads, ARRAY_SIZE(words));
	/* The words of a page, whatever the address is. */
	assert_false(memory_read_host_words(FROM + 8, out, words, ARRAY_SIZE(words)));
	assert_memory_equal(out, none, sizeof(none));
	mark_table[FRAME] = HYPERPS_FRAME_TO_VM;
	assert_false(memory_read_host_words(FROM, out, words, ARRAY_SIZE(words)));
	/* In the third copy and under the lock it is still the host's; then it is not, and what was read does not count. */
	reset();
	storm = true;
	assert_true(memory_read_host_words(FROM, out, words + 2, 1));
	assert_int_equal(loads, 4);
	reset();
	storm = true;
	assert_false(memory_read_host_words(FROM, out, words, ARRAY_SIZE(words)));
	assert_memory_equal(out, none, sizeof(none));
}

/* A word that changes all the time: it comes as it was at one moment. */
static void no_word_is_torn_or_read_twice(void **state)
{
	u64 out[4];

	(void)state;
	reset();
	flips = true;
	assert_true(memory_read_host(FROM + 64, out, sizeof(out)));
	assert_int_equal(loads, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(out[i] == content(FROM + 64 + i * 8));
		assert_true(memory[FRAME][8 + i] == ~content(FROM + 64 + i * 8));
	}
	/* At any place in the page, and to anywhere. */
	assert_true(memory_read_host(FROM + 123, (u8 *)out + 3, 6));
	assert_int_equal(loads, 4 + 2);
}

static void other_frames(void **state)
{
	static const u64 nowhere[] = {
		FRAMES * PAGE_SIZE,   BIT(40), BIT(52) - PAGE_SIZE, BIT(52), BIT(63), 0xfffffffffffff000ULL,
		0xfffffffffffffff8ULL
	};
	u64 word = 0x1234;

	(void)state;
	reset();
	for (size_t i = 0; i < ARRAY_SIZE(nowhere); i++) {
		assert_false(read_host(nowhere[i], 8, false));
		assert_false(memory_write_host(nowhere[i], &word, 8));
	}
	/* Not across the end of a page, whoever forgot to check that. */
	assert_false(read_host(FROM + PAGE_SIZE - 4, 8, false));
	assert_false(read_host(FROM + 8, PAGE_SIZE, false));
	assert_false(memory_write_host(FROM + PAGE_SIZE - 4, &word, 8));
	for (u64 mark = 0; mark <= MARK_STATE; mark++) {
		mark_table[FRAME] = mark | ~MARK_STATE; /* the generation of shadows, and more, is not looked at */
		assert_int_equal(read_host(FROM, 8, false), mark == HYPERPS_FRAME_HOST);
	}
	assert_int_equal(windows, 2);
}

static void writing(void **state)
{
	static const u8 in[PAGE_SIZE] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };

	(void)state;
	for (u64 mark = 0; mark <= MARK_STATE; mark++) {
		reset();
		writes = true;
		mark_table[FRAME] = mark;
		assert_int_equal(memory_write_host(FROM + 3, in, 9), mark == HYPERPS_FRAME_HOST);
		assert_false(mm_lock.taken);
		assert_int_equal(open_frame, -1);
		for (u64 gpa = 0; gpa < sizeof(memory); gpa++) {
			bool written = gpa - FROM - 3 < 9 && mark == HYPERPS_FRAME_HOST;

			assert_int_equal(((u8 *)memory)[gpa], written ? in[gpa - FROM - 3] : host_byte(gpa));
		}
	}
	reset();
	writes = true;
	assert_true(memory_write_host(FROM, in, PAGE_SIZE));
	assert_memory_equal(memory[FRAME], in, PAGE_SIZE);
}

/* The frame leaves at each instruction of a write but those under the lock: nobody else's is written. */
static void a_write_holds_the_lock(void **state)
{
	unsigned written = 0, refused = 0;
	u64 word = 42;

	(void)state;
	for (unsigned i = 0;; i++) {
		bool done;

		reset();
		writes = true;
		leave_at = acknowledge_at = i;
		instruction = 0;
		BEGIN_STEPS();
		done = memory_write_host(FROM, &word, sizeof(word));
		END_STEPS();
		assert_false(mm_lock.taken);
		/* At the first instruction it left before, or, after the lock was given up, behind the write. */
		if (mark_table[FRAME] == HYPERPS_FRAME_HOST)
			break;
		assert_true(memory[FRAME][0] == SECRET);
		*(done ? &written : &refused) += 1;
	}
	assert_true(written && refused);
}

static unsigned steps_of(u64 gpa, unsigned bytes)
{
	reset();
	leave_at = NEVER - 1;
	assert_true(read_host(gpa, bytes, true));
	assert_in_range(instruction, 50, 20000);
	return instruction;
}

/* The frame leaves and this CPU acknowledges, at once or later; or another frame's flush comes. */
static void events_at_each_instruction(void **state)
{
	unsigned steps = steps_of(FROM + 5, 14), refused = 0, read = 0;

	(void)state;
	for (unsigned i = 0; i < steps; i++) {
		reset();
		leave_at = acknowledge_at = i;
		*(read_host(FROM + 5, 14, true) ? &read : &refused) += 1;
	}
	/* Both: before the look at the mark or in the copy; and behind it. */
	assert_true(refused > steps / 4 && read > 2);
	for (unsigned i = 0; i < steps; i += 17) {
		reset();
		leave_at = i;
		read_host(FROM + 5, 14, true);
		reset();
		flush_at = i;
		assert_true(read_host(FROM + 5, 14, true));
		for (unsigned later = i + 1; later < steps; later += steps / 4) {
			reset();
			leave_at = i;
			acknowledge_at = later;
			read_host(FROM + 5, 14, true);
		}
	}
}

/* The CPU acknowledges in each copy: the fourth is made under the lock, and ends. */
static void flushes_without_end(void **state)
{
	(void)state;
	reset();
	storm = true;
	assert_true(read_host(FROM, 16, false));
	assert_int_equal(windows, 8);
	assert_int_equal(loads, 8);
	mark_table[FRAME] = HYPERPS_FRAME_TO_VM;
	assert_false(read_host(FROM, 16, false));
}

/* A load that met a machine check: nothing of the copy is given, and the word is not read again. */
static void poisoned_memory(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		reset();
		poisoned_load = i;
		assert_int_equal(read_host(FROM, 24, false), i == 3);
		assert_int_equal(loads, i < 3 ? i + 1 : 3);
	}
}

int main(void)
{
	const struct sigaction action = { .sa_sigaction = trap, .sa_flags = SA_SIGINFO };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_bytes_of_a_page),
		cmocka_unit_test(words_of_a_page),
		cmocka_unit_test(no_word_is_torn_or_read_twice),
		cmocka_unit_test(other_frames),
		cmocka_unit_test(writing),
		cmocka_unit_test(a_write_holds_the_lock),
		cmocka_unit_test(events_at_each_instruction),
		cmocka_unit_test(flushes_without_end),
		cmocka_unit_test(poisoned_memory),
	};

	no_access = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (no_access == MAP_FAILED || sigaction(SIGTRAP, &action, NULL))
		return 1;
	return cmocka_run_group_tests_name("host_memory", tests, NULL, NULL);
}
