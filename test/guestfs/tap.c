// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor_device.h"
#include "tap.h"

int checks, failed;

bool check(bool passed, const char *format, ...)
{
	va_list arguments;

	checks++;
	failed += !passed;
	printf("%s - ", passed ? "ok" : "not ok");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
	return passed;
}

void expect(long got, long wanted, const char *what)
{
	check(got == wanted, "%s gives %ld (%ld)", what, wanted, got);
}

int summary(void)
{
	printf("# failed %d of %d\n", failed, checks);
	return failed || !checks;
}

long value(long result)
{
	return result < 0 ? -errno : result;
}

bool write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);
	bool done = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);

	if (file >= 0)
		close(file);
	return done;
}

struct hyperps_frames frames(int device)
{
	struct hyperps_frames out = { 0 };

	if (monitor_read(device, HYPERPS_OBJECT_FRAMES, 0, 0, &out, sizeof(out)))
		check(false, "reading the frame counts: %s", strerror(errno));
	return out;
}

/* The monitor's own go to and fro between two states. */
void expect_frames(int device, const struct hyperps_frames *before, const char *after_what)
{
	struct hyperps_frames now = frames(device);
	bool same = now.count[HYPERPS_FRAME_HOST] > 0;

	for (int i = 0; i < HYPERPS_FRAME_STATES; i++)
		if (i != HYPERPS_FRAME_MONITOR && i != HYPERPS_FRAME_TO_MONITOR)
			same = same && now.count[i] == before->count[i];
	check(same, "%s every frame is the host's again (%llu, private %llu, shared %llu)", after_what,
	      (unsigned long long)now.count[HYPERPS_FRAME_HOST], (unsigned long long)now.count[HYPERPS_FRAME_PRIVATE],
	      (unsigned long long)now.count[HYPERPS_FRAME_SHARED]);
}
