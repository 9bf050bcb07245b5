/* SPDX-License-Identifier: GPL-2.0 */
#ifndef POWER_H
#define POWER_H

/* From now on sleep is refused, and so are CPUs that the monitor does not have; until the module's end. */
int hyperps_power_start(void);
void hyperps_power_stop(void);

#endif
