// SPDX-License-Identifier: MIT
/*
 * A stub for gdb's remote protocol in Bochs ("GDB Remote Serial Protocol" in gdb's manual). Bochs's own knows neither several
 * CPUs nor VM exits. Each CPU is a thread. Memory is what the CPU's page tables show; where a guest's show nothing, what those
 * of VMX root show, so that the monitor's data can be read wherever the machine has stopped. Nothing can be changed.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <fcntl.h>
#include <unistd.h>
#include <set>
#include <string>
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"

#define PACKET_BYTES 0x1000
#define ADDRESS 0x000ffffffffff000ULL

Bit64u gdb_mask = ~0ULL;
static std::set<Bit64u> breakpoints;
static int connection = -1;
static unsigned stopped, selected; /* the CPU that stopped, and the one that gdb looks at */
static int step_cpu = -1, step_wanted;

static std::string hex(const void *data, size_t length)
{
	std::string text;
	char digits[3];

	for (size_t i = 0; i < length; i++) {
		snprintf(digits, sizeof(digits), "%02x", ((const Bit8u *)data)[i]);
		text += digits;
	}
	return text;
}

static std::string format(const char *format, Bit64u a = 0, Bit64u b = 0, Bit64u c = 0, Bit64u d = 0)
{
	char text[200];

	snprintf(text, sizeof(text), format, a, b, c, d);
	return text;
}

static bool get(char *c)
{
	return recv(connection, c, 1, 0) == 1;
}

static void put(const std::string &text)
{
	send(connection, text.data(), text.size(), MSG_NOSIGNAL);
}

static void reply(const std::string &text)
{
	Bit8u sum = 0;

	for (char c : text)
		sum += c;
	put("$" + text + format("#%02lx", sum));
}

static bool receive(std::string &packet)
{
	char c;

	do {
		if (!get(&c))
			return false;
	} while (c != '$');
	packet.clear();
	while (get(&c) && c != '#')
		packet += c;
	if (!get(&c) || !get(&c))
		return false;
	put("+");
	return true;
}

static bool read_physical(Bit64u address, unsigned length, void *data)
{
	return address + length <= BX_MEM(0)->get_memory_len() &&
	       BX_MEM(0)->dbg_fetch_mem(BX_CPU(selected), address, length, (Bit8u *)data);
}

/* 4-level page tables. */
static bool translate(Bit64u root, Bit64u linear, bx_phy_address *physical)
{
	Bit64u entry = root;

	for (int shift = 39; shift >= 12; shift -= 9) {
		if (!read_physical((entry & ADDRESS) + (linear >> shift & 511) * 8, 8, &entry) || !(entry & 1))
			return false;
		if (shift == 12 || (entry & 0x80)) {
			Bit64u inside = (1ULL << shift) - 1;

			*physical = (entry & ADDRESS & ~inside) | (linear & inside);
			return true;
		}
	}
	return false;
}

static std::string read_memory(Bit64u linear, Bit64u length)
{
	BX_CPU_C *cpu = BX_CPU(selected);
	bx_phy_address physical;
	std::string text;
	Bit8u byte;

	for (; length && text.size() < PACKET_BYTES - 8; length--, linear++) {
		bool found = cpu->dbg_xlate_linear2phy(linear, &physical) && read_physical(physical, 1, &byte);

		if (!found && cpu->in_vmx_guest)
			found = translate(cpu->vmcs.host_state.cr3, linear, &physical) &&
				read_physical(physical, 1, &byte);
		if (!found)
			break;
		text += hex(&byte, 1);
	}
	return text.empty() ? "E01" : text;
}

/* In gdb's order for x86-64: general registers, RIP, RFLAGS, selectors. */
static std::string registers()
{
	static const int order[] = { 0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15, BX_64BIT_REG_RIP };
	static const int segments[] = { BX_SEG_REG_CS, BX_SEG_REG_SS, BX_SEG_REG_DS,
					BX_SEG_REG_ES, BX_SEG_REG_FS, BX_SEG_REG_GS };
	BX_CPU_C *cpu = BX_CPU(selected);
	Bit32u flags = cpu->read_eflags();
	std::string text;

	for (int i : order)
		text += hex(&cpu->gen_reg[i].rrx, 8);
	text += hex(&flags, 4);
	for (int i : segments) {
		Bit32u selector = cpu->sregs[i].selector.value;

		text += hex(&selector, 4);
	}
	return text;
}

static std::string mode(const BX_CPU_C *cpu)
{
	return cpu->in_vmx_guest ? "VMX non-root" : cpu->in_vmx ? "VMX root" : "no VMX";
}

/* gdb's "monitor" commands. gdb does not say which thread they are for. */
static std::string command(const std::string &text)
{
	unsigned n = 0;
	Bit64u number, word;
	std::string answer;

	if (text == "cpus") {
		for (n = 0; n < BX_SMP_PROCESSORS; n++) {
			BX_CPU_C *cpu = BX_CPU(n);

			answer += format("CPU %lx: cr0 %lx cr3 %lx cr4 %lx", n, cpu->cr0.get32(), cpu->cr3,
					 cpu->cr4.get32());
			answer += format(" efer %lx gs %lx, current VMCS %lx, ", cpu->efer.get32(),
					 cpu->sregs[BX_SEG_REG_GS].cache.u.segment.base, cpu->vmcsptr) +
				  mode(cpu) + "\n";
		}
		return answer;
	}
	if (sscanf(text.c_str(), "vmread %lx %u", &number, &n) >= 1 && n < BX_SMP_PROCESSORS) {
		if (BX_CPU(n)->vmcsptr == BX_INVALID_VMCSPTR)
			return "no VMCS is current\n";
		return BX_CPU(n)->vmcs_map->is_valid(number) ? format("%lx\n", BX_CPU(n)->vmread(number))
							     : "no such field\n";
	}
	if (sscanf(text.c_str(), "phys %lx", &number) == 1)
		return read_physical(number, 8, &word) ? format("%lx\n", word) : "not RAM\n";
	return "cpus: registers that gdb has no names for\nvmread FIELD [CPU]: a field of its current VMCS, by its "
	       "encoding\n"
	       "phys ADDRESS: 8 bytes of RAM\n(numbers in hex)\n";
}

static std::string query(const std::string &packet)
{
	std::string list = "m";

	if (packet.compare(0, 10, "qSupported") == 0)
		return format("PacketSize=%lx;swbreak+;hwbreak+", PACKET_BYTES);
	if (packet.compare(0, 6, "qRcmd,") == 0) {
		std::string text;

		for (size_t i = 6; i + 1 < packet.size(); i += 2)
			text += (char)strtol(packet.substr(i, 2).c_str(), NULL, 16);
		text = command(text);
		return hex(text.data(), text.size());
	}
	if (packet == "qC")
		return format("QC%lx", stopped + 1);
	if (packet == "qAttached")
		return "1";
	if (packet == "qfThreadInfo") {
		for (unsigned i = 0; i < BX_SMP_PROCESSORS; i++)
			list += format(i ? ",%lx" : "%lx", i + 1);
		return list;
	}
	if (packet == "qsThreadInfo")
		return "l";
	if (packet.compare(0, 17, "qThreadExtraInfo,") == 0) {
		std::string text = mode(BX_CPU((strtoul(packet.c_str() + 17, NULL, 16) - 1) % BX_SMP_PROCESSORS));

		return hex(text.data(), text.size());
	}
	return "";
}

static std::string breakpoint(const std::string &packet)
{
	Bit64u address = 0;

	if (packet[1] > '1' || sscanf(packet.c_str() + 2, ",%lx", &address) != 1)
		return ""; /* no watchpoints */
	if (packet[0] == 'Z')
		breakpoints.insert(address);
	else
		breakpoints.erase(address);
	return "OK";
}

/* H: the thread for what follows; 0 and -1 mean any. */
static void select_thread(const std::string &packet)
{
	long thread = strtol(packet.c_str() + 2, NULL, 16);
	unsigned cpu = thread > 0 && thread <= (long)BX_SMP_PROCESSORS ? thread - 1 : stopped;

	if (packet[1] == 'g')
		selected = cpu;
	else
		step_wanted = cpu;
}

static std::string stop_reply(bool at_breakpoint)
{
	return format(at_breakpoint ? "T05thread:%lx;swbreak:;" : "T05thread:%lx;", stopped + 1);
}

/* Serves gdb until the machine is to go on. */
static void serve(bool at_breakpoint)
{
	std::string packet;
	Bit64u address, length;

	while (receive(packet)) {
		switch (packet[0]) {
		case 'c':
		case 'C':
			step_cpu = -1;
			return;
		case 's':
		case 'S':
			step_cpu = step_wanted;
			return;
		case 'D':
			reply("OK");
			breakpoints.clear();
			close(connection);
			connection = -2;
			step_cpu = -1;
			return;
		case 'k':
			exit(0);
		case '?':
			reply(stop_reply(at_breakpoint));
			break;
		case 'g':
			reply(registers());
			break;
		case 'm':
			reply(sscanf(packet.c_str(), "m%lx,%lx", &address, &length) == 2 ? read_memory(address, length)
											 : "E01");
			break;
		case 'H':
			select_thread(packet);
			/* fall through */
		case 'T':
			reply("OK");
			break;
		case 'q':
			reply(query(packet));
			break;
		case 'Z':
		case 'z':
			reply(breakpoint(packet));
			break;
		default:
			reply("");
		}
	}
	exit(0); /* gdb is gone */
}

/* A byte from gdb while the machine runs is Ctrl-C's: have the next instruction look. */
static void input_arrived(int)
{
	gdb_mask = ~0ULL;
}

static void wait_for_gdb()
{
	const char *port = getenv("HYPERPS_GDB_PORT");
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in address = {};

	address.sin_family = AF_INET;
	address.sin_port = htons(port ? atoi(port) : 1234);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1) ||
	    (connection = accept(listener, NULL, NULL)) < 0) {
		perror("gdb stub");
		exit(1);
	}
	close(listener);
	setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	signal(SIGIO, input_arrived);
	fcntl(connection, F_SETOWN, getpid());
	fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_ASYNC);
}

void gdb_before_instruction(unsigned cpu)
{
	bool first = connection == -1, at_breakpoint = breakpoints.count(BX_CPU(cpu)->gen_reg[BX_64BIT_REG_RIP].rrx);
	char c;

	if (first)
		wait_for_gdb();
	if (first || at_breakpoint || (int)cpu == step_cpu ||
	    (connection >= 0 && recv(connection, &c, 1, MSG_DONTWAIT) == 1 && c == 3)) {
		stopped = selected = cpu;
		step_wanted = cpu;
		if (!first)
			reply(stop_reply(at_breakpoint));
		serve(at_breakpoint);
	}
	gdb_mask = step_cpu >= 0 ? ~0ULL : 0;
	for (Bit64u address : breakpoints)
		gdb_mask |= 1ULL << (address & 63);
}
