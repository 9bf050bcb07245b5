// SPDX-License-Identifier: MIT
/*
 * The I/O ports by which the host resets the machine, switches it off or has it sleep: a write that does so has the
 * memory cleared first (base/stop.c). All else that reaches these ports is done as the host wants it. All other ports
 * are the host's, without an exit.
 */
#include "emulate.h"
#include "event.h"
#include "host_cpu.h"
#include "monitor.h"
#include "page_pool.h"
#include "stop.h"

#define PORT_KEYBOARD_COMMAND 0x64
#define KEYBOARD_WRITE_OUTPUT_PORT 0xd1
#define KEYBOARD_DISABLE_A20 0xdd
#define PORT_PCI_ADDRESS 0xcf8
#define PORT_SYSTEM_CONTROL 0x92
#define SYSTEM_CONTROL_A20 0x02u
#define BITMAP_BITS (8 * PAGE_SIZE)

static u8 *bitmap[2];

void port_init(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(bitmap); i++) {
		bitmap[i] = page_pool_take(&monitor.pool);
		CHECK(bitmap[i]);
	}
	for (const struct boot_end_port *end = monitor.boot->end_port; end->port; end++)
		bitmap[end->port / BITMAP_BITS][end->port % BITMAP_BITS / 8] |= 1 << end->port % 8;
}

void port_write_bitmaps(void)
{
	vmwrite(VMCS_IO_BITMAP_A, hpa_of(bitmap[0]).value);
	vmwrite(VMCS_IO_BITMAP_B, hpa_of(bitmap[1]).value);
}

static u32 read_port(u16 port, u64 size)
{
	return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
}

static void write_port(u16 port, u64 size, u32 value)
{
	if (size == 1)
		outb(port, (u8)value);
	else if (size == 2)
		outw(port, (u16)value);
	else
		outl(port, value);
}

/*
 * What a write ends the machine's run by, or NULL. A dword at 0xcf8 is a PCI address, and does not reach the port after
 * it.
 */
static const struct boot_end_port *find_end(u16 port, u64 size, u32 value)
{
	for (const struct boot_end_port *end = monitor.boot->end_port; end->port; end++) {
		u64 offset = (u64)end->port - port;

		if (offset < size && !(port == PORT_PCI_ADDRESS && size == 4) &&
		    ((value >> 8 * offset) & end->mask) == end->value)
			return end;
	}
	return NULL;
}

/* ACPI, "PM1 Control Registers": sleep begins when both blocks have SLP_EN set, each with its own SLP_TYP. */
static void enable_sleep_in_other_block(const struct boot_end_port *this)
{
	for (const struct boot_end_port *end = monitor.boot->end_port; end->port; end++)
		if (end->sleep && end->port != this->port)
			write_port(end->port - 1, 2, read_port(end->port - 1, 2) | end->value << 8);
}

static void host_writes(u16 port, u64 size, u32 value)
{
	const struct boot_end_port *end = find_end(port, size, value);
	u64 command = PORT_KEYBOARD_COMMAND - (u64)port, control = PORT_SYSTEM_CONTROL - (u64)port;
	u8 keyboard = command < size ? (u8)(value >> 8 * command) : 0;

	/*
	 * The keyboard controller's output port has the reset line, too. The A20 line stays on: CPUs in VMX operation ignore it, but
	 * an emulator's may see other memory without it. A word or dword from below reaches a port as well.
	 */
	if (keyboard == KEYBOARD_WRITE_OUTPUT_PORT || keyboard == KEYBOARD_DISABLE_A20)
		return;
	if (control < size)
		value |= SYSTEM_CONTROL_A20 << 8 * control;
	if (end)
		clear_memory("the host resets the machine, or has it sleep");
	write_port(port, size, value);
	if (!end)
		return;
	if (!end->sleep)
		reset_machine();
	enable_sleep_in_other_block(end);
	stop_this_cpu();
}

void exit_io(struct registers *regs)
{
	u64 qualification = vmread(VMCS_EXIT_QUALIFICATION), size = IO_BYTES(qualification);
	u64 *rax = &regs->value[REGISTER_RAX], mask = size == 4 ? ~0ULL : BIT(8 * size) - 1;

	/* No driver moves strings through these ports. */
	if (qualification & IO_STRING) {
		log_refusal(REFUSED_INSTRUCTION, "string I/O at port %lx refused, at %016lx", IO_PORT(qualification),
			    vmread(VMCS_GUEST_RIP));
		inject_exception(VECTOR_GP);
		return;
	}
	if (qualification & IO_IN)
		*rax = (*rax & ~mask) | read_port(IO_PORT(qualification), size);
	else
		host_writes(IO_PORT(qualification), size, (u32)*rax);
	skip_instruction();
}
