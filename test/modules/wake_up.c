// SPDX-License-Identifier: GPL-2.0
/* No checks, no file: some seconds after it was loaded, the machine wakes up from suspend to idle, as by a device. */
#include <linux/module.h>
#include <linux/suspend.h>
#include <linux/timer.h>

#define SECONDS 5

static void wake(struct timer_list *timer)
{
	pm_system_wakeup();
}

static DEFINE_TIMER(timer, wake);

static int __init wake_up_init(void)
{
	mod_timer(&timer, jiffies + SECONDS * HZ);
	return 0;
}

static void __exit wake_up_exit(void)
{
	timer_delete_sync(&timer);
}

module_init(wake_up_init);
module_exit(wake_up_exit);
MODULE_DESCRIPTION("Wakes the machine up");
MODULE_LICENSE("GPL");
