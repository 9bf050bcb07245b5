/* SPDX-License-Identifier: MIT */
/* Included before everything else in the monitor: all symbols are local to the image, so no access needs a table. */
#pragma GCC visibility push(hidden)
