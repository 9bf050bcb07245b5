/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What private_page.ko does on request, by ioctl of /dev/private_page; shared with user space. */
#ifndef PRIVATE_PAGE_H
#define PRIVATE_PAGE_H

#include <linux/ioctl.h>

#define PRIVATE_PAGE_FILE "/dev/private_page"

/*
 * mmap() of the file: page 0 is a frame of the host's, page 1 one that has been given to a VM. Both began with a RET
 * and PRIVATE_PAGE_TEXT.
 */
#define PRIVATE_PAGE_TEXT "\xc3private page"

/* The argument is an address of the caller's. _OWN: the same with the host's frame, which must succeed. */
#define PRIVATE_PAGE_GIVE _IO('P', 0) /* gives the page there, which stays mapped, to the VM */
#define PRIVATE_PAGE_GIVE_TABLE _IO('P', 1) /* gives the page-table page that maps it */
#define PRIVATE_PAGE_TAKE_BACK _IO('P', 2) /* ends the VM, so that all is the host's again; a new one gets page 1 */
#define PRIVATE_PAGE_COPY_TO_USER _IO('P', 3) /* 64 bytes of the page */
#define PRIVATE_PAGE_COPY_TO_USER_OWN _IO('P', 4)
#define PRIVATE_PAGE_COPY_FROM_USER _IO('P', 5) /* 64 bytes to the page */
#define PRIVATE_PAGE_COPY_FROM_USER_OWN _IO('P', 6)

/* Plain accesses by the kernel, in the caller's name or in a kernel thread. */
#define PRIVATE_PAGE_READ _IO('P', 7)
#define PRIVATE_PAGE_WRITE _IO('P', 8)
#define PRIVATE_PAGE_THREAD _IO('P', 9) /* gives 1 if the thread came back */
#define PRIVATE_PAGE_THREAD_OWN _IO('P', 10)

#define PRIVATE_PAGE_FRAME _IO('P', 11) /* the number of the VM's frame */
#define PRIVATE_PAGE_FRAME_OWN _IO('P', 12)

#endif
