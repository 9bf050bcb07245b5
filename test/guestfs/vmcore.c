// SPDX-License-Identifier: MIT
/*
 * In a crash kernel: vmcore FRAME... reads these frames through /proc/vmcore: the first 16 bytes of each as text, or the
 * error. vmcore --read, --mmap, --pipe: goes through all of it, or of a dump from standard input, and says what is there.
 */
#define _GNU_SOURCE
#include <elf.h>
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

#include "dump_text.h"

#define PAGE 4096ULL
#define BYTES 16
#define PIECE (1ULL << 20)
#define FIRST_ERRORS 5

static void show(int core, uint64_t address)
{
	char buffer[BYTES + 1] = { 0 };
	Elf64_Ehdr header;
	Elf64_Phdr part;

	if (pread(core, &header, sizeof(header), 0) != sizeof(header)) {
		printf("%llx: no core: %s\n", (unsigned long long)address, strerror(errno));
		return;
	}
	for (int i = 0; i < header.e_phnum; i++) {
		if (pread(core, &part, sizeof(part), header.e_phoff + i * sizeof(part)) != sizeof(part) ||
		    part.p_type != PT_LOAD || address - part.p_paddr >= part.p_memsz)
			continue;
		if (pread(core, buffer, BYTES, part.p_offset + (address - part.p_paddr)) < 0)
			printf("%llx: refused: %s\n", (unsigned long long)address, strerror(errno));
		else
			printf("%llx: bytes '%s'\n", (unsigned long long)address, buffer);
		return;
	}
	printf("%llx: not in the core\n", (unsigned long long)address);
}

/* Where the last part of the core ends. */
static uint64_t core_size(int core)
{
	Elf64_Ehdr header;
	Elf64_Phdr part;
	uint64_t size = 0;

	if (pread(core, &header, sizeof(header), 0) != sizeof(header))
		return 0;
	for (int i = 0; i < header.e_phnum; i++)
		if (pread(core, &part, sizeof(part), header.e_phoff + i * sizeof(part)) == sizeof(part) &&
		    part.p_offset + part.p_filesz > size)
			size = part.p_offset + part.p_filesz;
	return size;
}

static uint64_t text[DUMP_TEXTS][DUMP_TEXT_WORDS], found[DUMP_TEXTS], errors;

/* A dump's pages may lie at any address. */
static void count(const void *memory, uint64_t size)
{
	const char *end = (const char *)memory + size;

	for (int i = 0; i < DUMP_TEXTS; i++)
		for (const char *at = memory; (at = memmem(at, (size_t)(end - at), text[i], sizeof(text[i]))); at++)
			found[i]++;
}

static void complain(uint64_t offset, const char *what)
{
	if (errors++ < FIRST_ERRORS)
		printf("at %llx: %s\n", (unsigned long long)offset, what);
}

static sigjmp_buf escape;

static void on_signal(int number)
{
	siglongjmp(escape, number);
}

/* Returns whether the memory could be read. */
static bool count_mapped(const void *memory, uint64_t size)
{
	if (sigsetjmp(escape, 1))
		return false;
	count(memory, size);
	return true;
}

static uint64_t buffer[PIECE / sizeof(uint64_t)];

/* A page that can't be read is an error, and the next one is tried. Returns the bytes that could be read. */
static uint64_t scan_read(int core, uint64_t size)
{
	uint64_t done = 0;

	for (uint64_t at = 0, step; at < size; at += step) {
		ssize_t bytes = pread(core, buffer, PIECE, (off_t)at);

		step = bytes > 0 ? (uint64_t)bytes : PAGE - at % PAGE;
		if (bytes <= 0) {
			complain(at, bytes ? strerror(errno) : "the end");
			continue;
		}
		count(buffer, step);
		done += step;
	}
	return done;
}

static uint64_t scan_mmap(int core, uint64_t size)
{
	uint64_t done = 0;

	signal(SIGBUS, on_signal);
	signal(SIGSEGV, on_signal);
	for (uint64_t at = 0; at < size; at += PIECE) {
		uint64_t length = size - at < PIECE ? size - at : PIECE;
		void *memory = mmap(NULL, length, PROT_READ, MAP_PRIVATE, core, (off_t)at);

		if (memory == MAP_FAILED) {
			complain(at, strerror(errno));
			continue;
		}
		if (count_mapped(memory, length))
			done += length;
		else
			complain(at, "a signal");
		munmap(memory, length);
	}
	return done;
}

/* The last bytes of a piece are looked at once more, with the next one: too few for a text of their own. */
static uint64_t scan_pipe(void)
{
	uint64_t done = 0, kept = 0;
	size_t bytes;

	while ((bytes = fread((char *)buffer + kept, 1, PIECE - kept, stdin))) {
		count(buffer, kept + bytes);
		done += bytes;
		bytes += kept;
		kept = bytes < sizeof(text[0]) ? bytes : sizeof(text[0]) - 1;
		memmove(buffer, (char *)buffer + bytes - kept, kept);
	}
	return done;
}

static void scan(int core, const char *how)
{
	uint64_t size = core_size(core), done;

	for (int i = 0; i < DUMP_TEXTS; i++)
		dump_text(text[i], i);
	done = !strcmp(how, "--read")   ? scan_read(core, size)
	       : !strcmp(how, "--mmap") ? scan_mmap(core, size)
					: scan_pipe();
	printf("size %llu, read %llu, %s, errors %llu, pages of the process %llu, of the VM %llu\n",
	       (unsigned long long)size, (unsigned long long)done, done < size ? "less" : "all",
	       (unsigned long long)errors, (unsigned long long)found[DUMP_TEXT_PROCESS],
	       (unsigned long long)found[DUMP_TEXT_VM]);
}

int main(int argc, char **argv)
{
	int core = open("/proc/vmcore", O_RDONLY);

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			scan(core, argv[i]);
		else
			show(core, strtoull(argv[i], NULL, 0) * PAGE);
	}
	return 0;
}
