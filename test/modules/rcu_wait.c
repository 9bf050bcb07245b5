// SPDX-License-Identifier: GPL-2.0
/* No checks, no file: loading it takes as long as a grace period of RCU's tasks. */
#include <linux/module.h>
#include <linux/rcupdate_wait.h>

static int __init rcu_wait_init(void)
{
	synchronize_rcu_tasks();
	return 0;
}

static void __exit rcu_wait_exit(void)
{
}

module_init(rcu_wait_init);
module_exit(rcu_wait_exit);
MODULE_DESCRIPTION("Waits for a grace period of RCU's tasks");
MODULE_LICENSE("GPL");
