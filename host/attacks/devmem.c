// SPDX-License-Identifier: MIT
/*
 * devmem ADDRESS...: read and write one byte of each physical page through a mapping of /dev/mem. Prints a line for
 * each access:
 * "<address> <read|write> <worked|refused|not mapped: reason>". Where reading works, the byte is written back as it
 * was.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_SIZE 4096UL

static sigjmp_buf recovery;

static void on_signal(int number)
{
	siglongjmp(recovery, number);
}

static bool try_read(volatile uint8_t *byte)
{
	if (sigsetjmp(recovery, 1))
		return false;
	(void)*byte;
	return true;
}

static bool try_write(volatile uint8_t *byte)
{
	if (sigsetjmp(recovery, 1))
		return false;
	asm volatile("lock orb $0, %0" : "+m"(*byte)::"cc");
	return true;
}

static void try_page(int memory, unsigned long address)
{
	void *page =
		mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, (off_t)(address & ~(PAGE_SIZE - 1)));

	if (page == MAP_FAILED) {
		printf("%#lx read not mapped: %s\n", address, strerror(errno));
		return;
	}
	printf("%#lx read %s\n", address, try_read(page) ? "worked" : "refused");
	printf("%#lx write %s\n", address, try_write(page) ? "worked" : "refused");
	munmap(page, PAGE_SIZE);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	int memory = open("/dev/mem", O_RDWR);

	if (memory < 0) {
		perror("devmem: /dev/mem");
		return 1;
	}
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	for (int i = 1; i < argc; i++)
		try_page(memory, strtoul(argv[i], NULL, 0));
	return 0;
}
