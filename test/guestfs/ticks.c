// SPDX-License-Identifier: MIT
/* ticks WHAT: prints the time-stamp counter, for `make bench`. */
#include <stdio.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
	printf("bench-tick %s %llu\n", argc > 1 ? argv[1] : "now", __rdtsc());
	return 0;
}
