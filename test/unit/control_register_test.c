// SPDX-License-Identifier: MIT
/*
 * host_cpu/instruction.c: MOV to CR0 and CR4, on a model of a CPU with guest/host masks and read shadows ("Guest/Host Masks
 * and Read Shadows for CR0 and CR4"), with VMX offered or not, in VMX operation or not, with the gate on or off.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "event.h"
#include "gate_view.h"
#include "host_cpu.h"
#include "monitor.h"
#include "nested.h"
#include "stop.h"
#include "vmcs.h"
#include "vmcs_words.h"

#define MOST_EXITS 4
#define CR0_BEFORE (CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE)
#define CR4_BEFORE (CR4_PAE | CR4_MCE | CR4_SMEP | CR4_SMAP)

struct monitor monitor;
u64 idt[32][2];
u32 gate_state = HYPERPS_GATE_OFFERED;
static struct boot_info boot = { .capabilities.cr4_fixed0 = CR4_VMXE };
static struct cpu_area area;
static struct nested nested;
static unsigned logged_refusals;

static struct setting {
	bool kvm, operation, gate;
} setting;

void *read_gs_0(void)
{
	return &area.cpu;
}

hpa_t hpa_of(const void *object)
{
	return HPA((u64)object);
}

void log_refusal(enum refusal kind, const char *format, ...)
{
	(void)kind;
	(void)format;
	logged_refusals++;
}

void port_write_bitmaps(void)
{
}

void flush_this_cpu(struct cpu *cpu)
{
	(void)cpu;
}

bool gate_views_fit(u64 linear, u64 top, unsigned levels)
{
	(void)linear;
	(void)top;
	(void)levels;
	return true;
}

u64 gate_views_build(struct cpu *cpu, u64 linear, u64 top, unsigned levels)
{
	(void)cpu;
	(void)linear;
	(void)top;
	(void)levels;
	return 0;
}

bool gate_views_are_safe(struct cpu *cpu, u64 cr3)
{
	(void)cpu;
	(void)cr3;
	return true;
}

void panic_stop(void)
{
	abort();
}

static u64 *field(vmcs_field_t field)
{
	return &vmcs[field.encoding];
}

static u64 read_cr(unsigned number)
{
	u64 mask = *field(number ? VMCS_CR4_MASK : VMCS_CR0_MASK);

	return (*field(number ? VMCS_CR4_READ_SHADOW : VMCS_CR0_READ_SHADOW) & mask) |
	       (*field(number ? VMCS_GUEST_CR4 : VMCS_GUEST_CR0) & ~mask);
}

/* False: #GP. */
static bool write_cr(unsigned number, u64 value)
{
	struct registers regs = { { [REGISTER_RBX] = value } };
	u64 *real = field(number ? VMCS_GUEST_CR4 : VMCS_GUEST_CR0), mask;

	for (unsigned i = 0; i < MOST_EXITS; i++) {
		mask = *field(number ? VMCS_CR4_MASK : VMCS_CR0_MASK);
		if (!((value ^ *field(number ? VMCS_CR4_READ_SHADOW : VMCS_CR0_READ_SHADOW)) & mask)) {
			*real = (*real & mask) | (value & ~mask);
			return true;
		}
		*field(VMCS_EXIT_QUALIFICATION) = number | REGISTER_RBX << 8;
		exit_cr_access(&regs);
		if (*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VALID) {
			assert_int_equal(*field(VMCS_ENTRY_INTERRUPTION_INFO) & EVENT_VECTOR, VECTOR_GP);
			assert_int_equal(*field(VMCS_ENTRY_EXCEPTION_ERROR_CODE), 0);
			*field(VMCS_ENTRY_INTERRUPTION_INFO) = 0;
			return false;
		}
	}
	fail_msg("CR%u = %lx exits for ever", number, value);
	return false;
}

/* The host, as it is before each write: the firmware had VMXE on, which the host does not see. */
static void begin(void)
{
	const struct boot_cpu_state state = { .cr0 = CR0_BEFORE,
					      .cr4 = CR4_BEFORE | CR4_VMXE,
					      .efer = EFER_LME | EFER_LMA | EFER_NXE };
	u64 cr3;

	memset(vmcs, 0, sizeof(vmcs));
	memset(&area.cpu, 0, sizeof(area.cpu));
	monitor.boot = &boot;
	monitor.kvm = setting.kvm;
	monitor.other_cpus_taken = true;
	area.cpu.nested = setting.kvm ? &nested : NULL;
	nested.state = NESTED_OFF;
	area.cpu.capabilities.gate = true;
	host_vmcs_init(&area.cpu, &state);
	*field(VMCS_GUEST_ACCESS_RIGHTS(SEGMENT_CS)) = ACCESS_RIGHTS_LONG;
	assert_true(read_cr(0) == CR0_BEFORE && read_cr(4) == CR4_BEFORE);
	if (setting.gate)
		assert_int_equal(gate_set(&area.cpu, PAGE_SIZE, PAGE_SIZE, &cr3), HYPERPS_OK);
	if (setting.operation) {
		assert_true(write_cr(4, CR4_BEFORE | CR4_VMXE));
		nested.state = NESTED_ROOT;
	}
	logged_refusals = 0;
}

/* What the architecture, or the monitor, refuses; logged: the monitor. */
static bool refused(unsigned number, u64 value, bool *logged)
{
	u64 allowed = CR4_ALLOWED | (setting.kvm ? CR4_VMXE : 0);

	*logged = false;
	if (setting.operation && !(value & (number ? CR4_VMXE : CR0_NE)))
		return true;
	*logged = number ? value & ~allowed : (value & CR0_NW) && !(value & CR0_CD);
	return *logged;
}

static void check_write(unsigned number, u64 value)
{
	u64 before, visible;
	bool logged, done;

	begin();
	before = read_cr(number);
	done = write_cr(number, value);
	assert_int_equal(done, !refused(number, value, &logged));
	assert_int_equal(logged_refusals, logged);
	visible = read_cr(number);
	if (visible != (done ? value : before))
		fail_msg("CR%u reads as %lx after %lx", number, visible, value);
	/* What VMX operation and the monitor need of the CPU's own. */
	assert_int_equal(*field(VMCS_GUEST_CR4) & (CR4_VMXE | CR4_MCE), CR4_VMXE | CR4_MCE);
	assert_int_equal(*field(VMCS_GUEST_CR0) & CR0_OWNED, CR0_NE);
	/* And the gate is on only with what it needs. */
	if (area.cpu.gate.on)
		assert_false(gate_needs(&area.cpu, 0, read_cr(0)) || gate_needs(&area.cpu, 4, read_cr(4)));
}

static void each_setting(void (*check)(void))
{
	for (unsigned i = 0; i < 8; i++) {
		setting = (struct setting){ i & 1, i & 2, i & 4 };
		if (setting.kvm || !setting.operation)
			check();
	}
}

static void check_writes(void)
{
	u64 seed = 88172645463325252ULL;

	for (unsigned bit = 0; bit < 64; bit++) {
		check_write(0, CR0_BEFORE ^ BIT(bit));
		check_write(4, CR4_BEFORE ^ BIT(bit));
		check_write(4, (CR4_BEFORE | CR4_VMXE) ^ BIT(bit));
	}
	for (unsigned i = 0; i < 3000; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		check_write(4, seed & (CR4_ALLOWED | CR4_VMXE));
		check_write(4, (CR4_BEFORE | CR4_VMXE) ^ BIT(seed % 23) ^ BIT(seed / 64 % 23));
		check_write(0, CR0_BEFORE ^ (seed & (CR0_OWNED | CR0_WP | CR0_MP)));
	}
}

static void writes(void **state)
{
	(void)state;
	each_setting(check_writes);
}

/* VMXE on, off, and on again, with MCE; each is what is read. After INIT and SIPI it is 0. */
static void check_vmxe(void)
{
	const u64 values[] = { CR4_VMXE | CR4_MCE, 0, CR4_MCE, CR4_VMXE };

	begin();
	if (!setting.kvm || setting.operation) {
		assert_int_equal(write_cr(4, CR4_BEFORE | CR4_VMXE), setting.kvm);
		assert_int_equal(read_cr(4) & CR4_VMXE, setting.kvm ? CR4_VMXE : 0);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
		assert_true(write_cr(4, (CR4_BEFORE & ~CR4_MCE) | values[i]));
		assert_int_equal(read_cr(4), (CR4_BEFORE & ~CR4_MCE) | values[i]);
		assert_int_equal(area.cpu.gate.on, setting.gate);
	}
	host_load_sipi_state(8, 0);
	assert_int_equal(read_cr(4), 0);
	assert_int_equal(*field(VMCS_GUEST_CR4), CR4_VMXE | CR4_MCE);
}

static void vmxe(void **state)
{
	(void)state;
	each_setting(check_vmxe);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(writes), cmocka_unit_test(vmxe) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
