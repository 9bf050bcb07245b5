/* SPDX-License-Identifier: GPL-2.0 */
/* Test modules: each offers one file in /proc; reading it runs the checks and gives TAP lines. */
#ifndef TAP_H
#define TAP_H

#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <asm/asm.h>

/* Room for all lines of a module: a sequence file that overflows would run the checks twice. */
#define TAP_BYTES (64 << 10)

#define VECTOR_NONE (-1)

/* A module whose checks come in parts, of which some can be asked for: `if (part("name"))`. */
#define TAP_PARTS                                                                                                      \
	static char *parts = "";                                                                                       \
	module_param(parts, charp, 0400);                                                                              \
	MODULE_PARM_DESC(parts, "which of the checks, by name, with commas between; none: all")
#define part(name) (!*parts || strstr(parts, name))

/*
 * Run one instruction. Gives the vector of the fault that it raised, or VECTOR_NONE. Operands follow as for asm(),
 * inputs only; "a" is free as an input.
 */
#define fault_of(instruction, eax, ...)                                                                                \
	({                                                                                                             \
		int vector = (int)(eax);                                                                               \
		asm volatile("1: " instruction "\n"                                                                    \
			     "movl $-1, %%eax\n"                                                                       \
			     "2:\n" _ASM_EXTABLE_FAULT(1b, 2b)                                                         \
			     : "+a"(vector)                                                                            \
			     : __VA_ARGS__                                                                             \
			     : "memory", "cc");                                                                        \
		vector;                                                                                                \
	})

/*
 * Print one check. The kernel's log gets the line, too, at debug level, in case the machine does not survive the next
 * check.
 */
__printf(3, 4) static inline void tap_check(struct seq_file *out, bool passed, const char *format, ...)
{
	char line[160];
	va_list arguments;

	va_start(arguments, format);
	vscnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	seq_printf(out, "%s - %s\n", passed ? "ok" : "not ok", line);
	printk(KERN_DEBUG "%s - %s\n", passed ? "ok" : "not ok", line);
}

/* A module named after its /proc file, whose checks are run by show(). */
#define TAP_MODULE(module_name, show, summary)                                                                         \
	static int tap_open(struct inode *inode, struct file *file)                                                    \
	{                                                                                                              \
		return single_open_size(file, show, NULL, TAP_BYTES);                                                  \
	}                                                                                                              \
	static const struct proc_ops tap_operations = {                                                                \
		.proc_open = tap_open,                                                                                 \
		.proc_read = seq_read,                                                                                 \
		.proc_lseek = seq_lseek,                                                                               \
		.proc_release = single_release,                                                                        \
	};                                                                                                             \
	static int __init tap_init(void)                                                                               \
	{                                                                                                              \
		return proc_create(module_name, 0400, NULL, &tap_operations) ? 0 : -ENOMEM;                            \
	}                                                                                                              \
	static void __exit tap_exit(void)                                                                              \
	{                                                                                                              \
		remove_proc_entry(module_name, NULL);                                                                  \
	}                                                                                                              \
	module_init(tap_init);                                                                                         \
	module_exit(tap_exit);                                                                                         \
	MODULE_DESCRIPTION(summary);                                                                                   \
	MODULE_LICENSE("GPL")

#endif
