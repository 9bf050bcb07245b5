// SPDX-License-Identifier: GPL-2.0
/*
 * Watches hyperps.ko call the monitor, and makes calls fail: the next `count` calls of that number return `error`
 * without reaching the monitor. `sum` depends on each word that VM_MAP handed over and on its guest-physical address.
 */
#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <hyperps/abi.h>

static ulong number;
static uint count;
static int error;
static ulong sum;
module_param(number, ulong, 0600);
module_param(count, uint, 0600);
module_param(error, int, 0600);
module_param(sum, ulong, 0400);

void call_probe_return(void);
asm(".text\n"
    ".type call_probe_return, @function\n"
    "call_probe_return:\n" ASM_ENDBR ASM_RET ".size call_probe_return, .-call_probe_return\n");

static void add_content(u64 gpa, u64 frame, u64 frames)
{
	const u64 *word = __va(frame << PAGE_SHIFT);
	u64 i;

	for (i = 0; i < frames * PAGE_SIZE / 8; i++)
		sum += word[i] * (2 * (gpa / 8 + i) + 1);
}

static int on_call(struct kprobe *probe, struct pt_regs *regs)
{
	const u64 *argument = (const u64 *)regs->si;

	if (count && regs->di == number) {
		count--;
		regs->ax = error;
		regs->ip = (unsigned long)call_probe_return;
		return 1;
	}
	if (regs->di == HYPERPS_CALL_VM_MAP)
		add_content(argument[1], argument[2], argument[3]);
	return 0;
}

static struct kprobe probe = { .symbol_name = "hyperps_call", .pre_handler = on_call };

static int __init call_probe_init(void)
{
	return register_kprobe(&probe);
}

static void __exit call_probe_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(call_probe_init);
module_exit(call_probe_exit);

MODULE_DESCRIPTION("Watches and fails the calls of hyperps.ko");
MODULE_LICENSE("GPL");
