// SPDX-License-Identifier: MIT
/* The smallest guest that shows something: both ways to print, and what the monitor tells a guest. */
#include "guest.h"

int guest_main(u64 index, const char *command_line)
{
	struct cpuid_result signature = cpuid(HYPERPS_GUEST_LEAF, 0);
	char name[13] = { 0 };
	u64 digest[4], random;

	if (index)
		return 0;
	memcpy(name, &signature.ebx, 4);
	memcpy(name + 4, &signature.ecx, 4);
	memcpy(name + 8, &signature.edx, 4);
	print("Hello from a guest by hypercall. Command line: %s\n", command_line);
	serial_print("Hello from a guest by serial port.\n");
	print("CPUID %x: \"%s\", highest leaf %x\n", HYPERPS_GUEST_LEAF, name, signature.eax);
	if (!has_hypercalls())
		return 1;
	if (hyperps_guest_measurement(digest))
		return 2;
	print("Measurement: ");
	for (u64 i = 0; i < sizeof(digest); i++)
		print("%02x", ((u8 *)digest)[i]);
	if (hyperps_guest_random(&random))
		print("\nRandom number: none\n");
	else
		print("\nRandom number: %016lx\n", random);
	return 0;
}
