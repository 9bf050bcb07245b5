/* SPDX-License-Identifier: MIT */
/* What the parts of hpsctl share. */
#ifndef HPSCTL_H
#define HPSCTL_H

#include <stdbool.h>
#include <stdint.h>

enum exit_status { EXIT_OK = 0, EXIT_NOT_RUNNING = 1, EXIT_USAGE = 2 };

/* Opens /dev/hyperps; on failure says why, and returns -1. */
int open_device(void);

/* Parses a decimal number that fits 32 bits. */
bool parse_number(const char *text, uint32_t *value);

/* hpsctl run, hpsctl measure; run.c. argv[0] is the command's name. */
int run_main(int argc, char **argv);
int measure_main(int argc, char **argv);

/* hpsctl demo; demo.c. */
int demo_main(int argc, char **argv);

/* hpsctl attack; attack.c. */
int attack_main(int argc, char **argv);

#endif
