/* SPDX-License-Identifier: MIT */
/* For the test programs: TAP lines without a plan, and what several of them look at. */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdint.h>

#include "hyperps/abi.h"

/* How many checks there were, and how many of them failed. A process that counts its own sets both to 0. */
extern int checks, failed;

/* Prints one check. Returns whether it passed. */
__attribute__((format(printf, 2, 3))) bool check(bool passed, const char *format, ...);

/* A check that a system call gives that value, see value(). */
void expect(long got, long wanted, const char *what);

/* The last line. Returns the exit status. */
int summary(void);

/* The value of a system call, with errno's negative for -1. */
long value(long result);

bool write_file(const char *path, const char *text);

/* Of the monitor's frames, how many are in which state; /dev/hyperps is open as device. */
struct hyperps_frames frames(int device);

/* A check that all frames are the host's again that were. */
void expect_frames(int device, const struct hyperps_frames *before, const char *after_what);

#endif
