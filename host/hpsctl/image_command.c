// SPDX-License-Identifier: MIT
/* hpsctl image: makes the image of a protected VM; and what hpsctl measure says about one. */
#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hpsctl.h"
#include "image_command.h"
#include "vm.h"
#include "vm_image.h"

#define KEY_UNPROTECTED 0x100

struct options {
	const char *kernel, *initrd, *command_line, *output;
	bool is_unprotected;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'k':
		options->kernel = text;
		return 0;
	case 'i':
		options->initrd = text;
		return 0;
	case 'a':
		options->command_line = text;
		return 0;
	case 'o':
		options->output = text;
		return 0;
	case KEY_UNPROTECTED:
		options->is_unprotected = true;
		return 0;
	case ARGP_KEY_END:
		if (!options->kernel || !options->output)
			argp_error(state, "it wants --kernel and --output");
		return 0;
	default:
		return refuse_arguments(key, text, state);
	}
}

/* NULL, with a line, if it can't be read; no file: no bytes. */
static void *read_part(const char *path, size_t *bytes)
{
	void *content = path ? read_file(path, bytes) : calloc(1, 1);

	if (!content)
		fprintf(stderr, "hpsctl: cannot read %s: %s\n", path, strerror(errno));
	return content;
}

static bool write_file(const char *path, const void *content, size_t bytes)
{
	FILE *file = fopen(path, "wb");
	bool is_written = file && fwrite(content, 1, bytes, file) == bytes;

	if ((!file || !fclose(file)) && is_written)
		return true;
	fprintf(stderr, "hpsctl: cannot write %s: %s\n", path, strerror(errno));
	return false;
}

static int run_image(const struct command *command, int argc, char **argv)
{
	struct options options = { .command_line = "" };
	struct vm_image_parts parts = { 0 };
	char error[200];
	void *kernel, *initrd, *image = NULL;
	uint64_t memory_mib;
	size_t bytes;
	int status = EXIT_NOT_RUNNING;

	parse_command(command, argc, argv, &options);
	kernel = read_part(options.kernel, &parts.kernel_bytes);
	initrd = kernel ? read_part(options.initrd, &parts.initrd_bytes) : NULL;
	if (initrd) {
		parts.kernel = kernel;
		parts.initrd = initrd;
		parts.command_line = options.command_line;
		parts.is_unprotected = options.is_unprotected;
		image = vm_image_make(&parts, &bytes, &memory_mib, error);
		if (!image)
			fprintf(stderr, "hpsctl: %s: %s\n", options.kernel, error);
		else if (write_file(options.output, image, bytes)) {
			printf("%s: %zu bytes; its VM needs %" PRIu64 " MiB of RAM at least\n", options.output, bytes,
			       memory_mib);
			status = output_is_written() ? EXIT_OK : EXIT_NOT_RUNNING;
		}
	}
	free(kernel);
	free(initrd);
	free(image);
	return status;
}

bool image_is_machine(const char *name)
{
	return vm_image_low_memory(name, 0x100000000) != 0;
}

bool image_is_file(const char *path)
{
	size_t bytes;
	void *file = read_file(path, &bytes);
	bool is_image = file && vm_image_is(file, bytes);

	free(file);
	return is_image;
}

/* The bit of an address that a monitor on this machine takes for "shared". */
static uint32_t own_shared_bit(void)
{
	unsigned eax = 36, ebx, ecx, edx;

	__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx);
	return ((eax & 0xff) < 48 ? eax & 0xff : 48) - 1;
}

static void print_digest(const char *name, const uint8_t digest[VM_IMAGE_DIGEST])
{
	printf("%s ", name);
	for (int i = 0; i < VM_IMAGE_DIGEST; i++)
		printf("%02x", digest[i]);
	putchar('\n');
}

int image_measure(const char *path, const struct image_vm *vm)
{
	struct vm_image_machine machine = { .memory = vm->memory,
					    .low_memory = vm_image_low_memory(vm->machine, vm->memory),
					    .shared_bit = vm->shared_bit ? vm->shared_bit : own_shared_bit() };
	struct vm_image_measurement measurement;
	uint8_t acpi[VM_IMAGE_DIGEST];
	char error[200];
	size_t bytes;
	void *file = read_file(path, &bytes);
	bool is_measured;

	for (size_t i = 0; vm->acpi && i < sizeof(acpi); i++)
		sscanf(vm->acpi + 2 * i, "%2hhx", &acpi[i]);
	if (vm->acpi)
		machine.acpi = acpi;
	is_measured = file && vm_image_measure(file, bytes, &machine, &measurement, error);
	free(file);
	if (!is_measured) {
		fprintf(stderr, "hpsctl: %s: %s\n", path, file ? error : strerror(errno));
		return EXIT_NOT_RUNNING;
	}
	print_digest("MRTD", measurement.mrtd);
	if (vm->acpi)
		print_digest("RTMR0", measurement.rtmr[0]);
	print_digest("RTMR1", measurement.rtmr[1]);
	print_digest("RTMR2", measurement.rtmr[2]);
	return output_is_written() ? EXIT_OK : EXIT_NOT_RUNNING;
}

static const struct argp_option options[] = {
	{ "kernel", 'k', "FILE", 0, "the kernel, a bzImage", 0 },
	{ "initrd", 'i', "FILE", 0, "its initrd", 0 },
	{ "append", 'a', "WORDS", 0, "its command line", 0 },
	{ "output", 'o', "FILE", 0, "the image to write", 0 },
	{ "unprotected", KEY_UNPROTECTED, NULL, 0, "it does not ask for protection: to try it on any machine", 0 },
	{ 0 },
};

const struct command image_command = {
	.name = "image",
	.summary = "make the image of a protected VM",
	.argp = { .options = options,
		  .parser = parse,
		  .doc = "Makes one file of a stock Linux kernel, its initrd and its command line. QEMU takes it as "
			 "-kernel, a UEFI firmware as a program. It asks the monitor below KVM to protect the VM, and "
			 "boots the kernel. THE MONITOR OF THIS VERSION DOES NOT PROTECT SUCH VMs YET: use "
			 "--unprotected. "
			 "Needs neither root nor the monitor.\vExit status: 0 success, 1 the image "
			 "could not be made, 2 wrong usage." },
	.usage_status = EXIT_USAGE,
	.run = run_image,
};
