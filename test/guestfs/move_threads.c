// SPDX-License-Identifier: MIT
/* move_threads PID CPUS: moves each thread of the process to another CPU every 2 ms; prints how often at SIGTERM. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PERIOD_US 2000

static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

int main(int argc, char **argv)
{
	unsigned long moves = 0, cpus = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
	char path[64];

	if (!cpus)
		return 1;
	snprintf(path, sizeof(path), "/proc/%s/task", argv[1]);
	signal(SIGTERM, end);
	for (unsigned long turn = 0; !ended; turn++) {
		DIR *tasks = opendir(path);
		struct dirent *entry;

		for (unsigned long i = turn; tasks && (entry = readdir(tasks)); i++) {
			int task = atoi(entry->d_name);
			cpu_set_t set;

			CPU_ZERO(&set);
			CPU_SET(i % cpus, &set);
			moves += task && !sched_setaffinity(task, sizeof(set), &set);
		}
		if (tasks)
			closedir(tasks);
		usleep(PERIOD_US);
	}
	printf("%lu\n", moves);
	return 0;
}
