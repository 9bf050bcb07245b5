// SPDX-License-Identifier: MIT
/*
 * The airlock's code against a model of what a CPU caches: attack 10 of the design. An emulator that flushes its TLB at
 * each VMFUNC can't show it. The code that runs here is the page that gate_page_fill() writes, instruction by instruction.
 *
 * The model (SDM, "Caching Translation Information"): a cached translation is used under the EPT pointer under which it was
 * made, for the PCID under which it was made, or, if global, for each. MOV to CR3 drops the PCID's own, unless bit 63 says
 * no. VMFUNC drops nothing. The attacker's tables can say what they like in the host view. In the monitor view there is
 * memory that the host wrote before it donated it: as a root (DONATED) it maps any address to the monitor's own code.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "gate_page.h"
#include "hyperps/abi.h"

enum view { HOST, AIRLOCK, MONITOR };
enum frame { NOTHING, OWN, GATE_ROOT, DONATED, HOSTILE, CODE, LIST, LANDING, TEXT };
enum page { GATE_PAGE, LIST_PAGE, OTHER_PAGE, PAGES };

#define PCIDS 3 /* 0: the gate's */
#define OFFSETS 9 /* the instructions of the code; its last is VMFUNC */
#define STEPS 12
#define CR3_VALUE (0x90909000 | GATE_PCID)
#define EPTP_VALUE (0x10909000 | 0x1e)

static struct {
	enum view view;
	enum frame root;
	unsigned pcid;
	enum frame own[3][PCIDS][PAGES], global[3][PAGES]; /* what is cached */
	bool slot_2;
} cpu;

static u8 code[PAGE_SIZE];
static bool keeps_list; /* a monitor that does not rewrite the list at an exit */

/* What the tables say, as far as EPT lets the CPU read them; *global: that entry is global. */
static enum frame walk(enum page page, bool *global)
{
	*global = false;
	if (cpu.view == HOST) {
		*global = cpu.root == HOSTILE;
		return cpu.root == DONATED ? NOTHING : HOSTILE;
	}
	if (cpu.view == AIRLOCK)
		return cpu.root != GATE_ROOT ? NOTHING : page == GATE_PAGE ? CODE : page == LIST_PAGE ? LIST : NOTHING;
	if (cpu.root == DONATED)
		return TEXT;
	return cpu.root == GATE_ROOT && page == GATE_PAGE ? LANDING : NOTHING;
}

static enum frame translate(enum page page)
{
	enum frame frame = cpu.own[cpu.view][cpu.pcid][page];
	bool global;

	if (!frame)
		frame = cpu.global[cpu.view][page];
	if (frame)
		return frame;
	frame = walk(page, &global);
	if (global)
		cpu.global[cpu.view][page] = frame;
	else
		cpu.own[cpu.view][cpu.pcid][page] = frame;
	return frame;
}

static void load_cr3(enum frame root, unsigned pcid, bool keep)
{
	cpu.root = root;
	cpu.pcid = pcid;
	for (unsigned view = HOST; view <= MONITOR && !keep; view++)
		memset(cpu.own[view][pcid], 0, sizeof(cpu.own[view][pcid]));
}

/* An exit in the airlock: root restores the host view and rewrites the list. */
static enum frame leave(void)
{
	cpu.view = HOST;
	cpu.slot_2 = cpu.slot_2 && keeps_list;
	return NOTHING;
}

/* In the monitor view, at that page: what the CPU fetches. The landing empties slot 2, and goes back. */
static enum frame arrive(enum page page)
{
	enum frame frame;

	cpu.view = MONITOR;
	frame = translate(page);
	cpu.view = HOST;
	cpu.slot_2 = false;
	return frame;
}

/* From that instruction of the code on. What is fetched in the monitor view, or NOTHING if it is not reached. */
static enum frame run(unsigned first)
{
	const u8 *at = code + HYPERPS_GATE_ENTRY;
	u64 rax = 0, rcx = 2; /* the attacker's */

	for (unsigned i = 0;; i++) {
		if (translate(GATE_PAGE) != CODE)
			return leave();
		if (!memcmp(at, "\x48\xc7\x05", 3)) {
			if (i >= first && translate(LIST_PAGE) != LIST)
				return leave();
			cpu.slot_2 |= i >= first;
			at += 11;
		} else if (*at == 0xb8) {
			rax = i >= first ? CR3_VALUE : rax;
			at += 5;
		} else if (!memcmp(at, "\x0f\x22\xd8", 3)) {
			/* Any other value than the immediate is the attacker's choice, bit 63 included. */
			if (i >= first)
				load_cr3(rax == CR3_VALUE ? GATE_ROOT : DONATED, 0, rax != CR3_VALUE);
			at += 3;
		} else if (!memcmp(at, "\x31\xc0", 2)) {
			rax = i >= first ? 0 : rax;
			at += 2;
		} else if (!memcmp(at, "\x8d\x48\x02", 3)) {
			rcx = i >= first ? rax + 2 : rcx;
			at += 3;
		} else if (!memcmp(at, "\x0f\x01\xd4", 3)) {
			assert_int_equal(at + 3 - code, GATE_LANDING);
			return cpu.slot_2 && rcx == 2 ? arrive(GATE_PAGE) : leave();
		} else if (!memcmp(at, "\x0f\x23\xf8", 3)) {
			at += 3;
		} else if (!memcmp(at, "\xf3\x90", 2)) {
			at += 2;
		} else {
			/* CLI, CLC, and what a mutant puts here. */
			assert_true(*at == 0xfa || *at == 0xf8 || *at == 0x90);
			at++;
		}
	}
}

/* One thing that an attacker can do, by number; what is fetched in the monitor view. */
#define ATTEMPTS (4 * PCIDS * 2 * (OFFSETS + 4))
static enum frame attempt(unsigned number)
{
	static const enum frame roots[] = { OWN, GATE_ROOT, DONATED, HOSTILE };
	unsigned pcid = number / 4 % PCIDS, kind = number / 4 / PCIDS / 2;
	bool keep = number / 4 / PCIDS % 2;

	load_cr3(roots[number % 4], pcid, keep);
	translate(GATE_PAGE);
	if (kind == OFFSETS) {
		/* VMFUNC(2) without the airlock. */
		return cpu.slot_2 ? arrive(OTHER_PAGE) : NOTHING;
	}
	cpu.view = AIRLOCK;
	if (kind == OFFSETS + 1) {
		/* The fill alone, then an exit. */
		cpu.slot_2 |= translate(GATE_PAGE) == CODE && translate(LIST_PAGE) == LIST;
		return leave();
	}
	return run(kind < OFFSETS ? kind : 0);
}

/* Whether some sequence of attempts, after a correct call, fetches anything but the landing. */
static bool finds_way(unsigned random_sequences)
{
	unsigned landings = 0;

	for (unsigned i = 0; i < ATTEMPTS * ATTEMPTS + random_sequences; i++) {
		memset(&cpu, 0, sizeof(cpu));
		for (unsigned step = 0; step < (i < ATTEMPTS * ATTEMPTS ? 3 : STEPS); step++) {
			/* First a correct call; then all pairs, or at random. */
			unsigned number = !step                      ? 1
					  : i >= ATTEMPTS * ATTEMPTS ? (unsigned)rand() % ATTEMPTS
					  : step == 1                ? i / ATTEMPTS
								     : i % ATTEMPTS;
			enum frame fetched = attempt(number);

			if (fetched != NOTHING && fetched != LANDING)
				return true;
			landings += fetched == LANDING;
		}
	}
	assert_true(landings > ATTEMPTS);
	return false;
}

static int fill(void **unused)
{
	(void)unused;
	keeps_list = false;
	gate_page_fill(code, CR3_VALUE, EPTP_VALUE);
	return 0;
}

static void test_only_landing(void **unused)
{
	(void)unused;
	assert_false(finds_way(200000));
}

/* The rules that stand in the way, one at a time: without it the same attempts find one. */
static void remove_instruction(const char *bytes, size_t known, size_t length)
{
	u8 *at = memmem(code + HYPERPS_GATE_ENTRY, GATE_LANDING - HYPERPS_GATE_ENTRY, bytes, known);

	assert_non_null(at);
	memset(at, 0x90, length);
}

static void test_without_load_of_cr3(void **unused)
{
	(void)unused;
	remove_instruction("\x0f\x22\xd8", 3, 3);
	assert_true(finds_way(0));
}

static void test_without_immediate(void **unused)
{
	(void)unused;
	remove_instruction("\xb8", 1, 5);
	assert_true(finds_way(0));
}

static void test_without_rewriting_list(void **unused)
{
	(void)unused;
	keeps_list = true;
	assert_true(finds_way(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_only_landing, fill),
		cmocka_unit_test_setup(test_without_load_of_cr3, fill),
		cmocka_unit_test_setup(test_without_immediate, fill),
		cmocka_unit_test_setup(test_without_rewriting_list, fill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
