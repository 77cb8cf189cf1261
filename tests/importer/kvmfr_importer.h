/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /dev/kvmfr_importer: what a GPU driver or VFIO does to the memory, on request of a test.
 *
 * Each open file is one importer with a device of its own. It holds at most one DMA-BUF (ATTACH,
 * then MAP and VMAP) and at most one set of pinned user pages (PIN). IO moves bytes the way the
 * holder would, and mmap() maps the DMA-BUF that is attached. Closing the file gives everything
 * back. Calls in the wrong order answer EBUSY (already) or ENOENT (not yet).
 */
#ifndef KVMFR_IMPORTER_H
#define KVMFR_IMPORTER_H

#include <linux/ioctl.h>
#include <linux/types.h>

struct kvmfr_importer_attach {
	__s32 fd;
	__u32 max_segment;	/* bytes, 0 leaves the kernel's default */
	__u64 boundary;		/* that no segment may cross, minus 1; 0 likewise */
	__u32 revocable;	/* unmaps when it is told to; EOPNOTSUPP before Linux 7.0 */
	__u32 pad;
};

/* enum dma_data_direction */
#define KVMFR_IMPORTER_BIDIRECTIONAL	0
#define KVMFR_IMPORTER_TO_DEVICE	1
#define KVMFR_IMPORTER_FROM_DEVICE	2

struct kvmfr_importer_map {
	__u32 direction;	/* in; the rest is out: */
	__u32 nents;		/* segments as the device sees them */
	__u32 orig_nents;	/* entries of the table */
	__u32 crossing;		/* segments that cross the boundary */
	__u32 unmerged;		/* segments that could have been one with the segment before */
	__u64 largest;		/* bytes of the largest segment */
	__u64 total;		/* bytes of all */
};

#define KVMFR_IMPORTER_VIA_SG		0	/* by the DMA addresses of the table */
#define KVMFR_IMPORTER_VIA_VMAP		1
#define KVMFR_IMPORTER_VIA_PIN		2

struct kvmfr_importer_io {
	__u32 via;
	__u32 write;		/* 0: memory to buffer */
	__u64 offset;
	__u64 length;
	__u64 buffer;
};

struct kvmfr_importer_pin {
	__u64 address;
	__u64 pages;
};

#define KVMFR_IMPORTER_ATTACH	 _IOW('I', 0xe0, struct kvmfr_importer_attach)
#define KVMFR_IMPORTER_DETACH	 _IO('I', 0xe1)
#define KVMFR_IMPORTER_MAP	 _IOWR('I', 0xe2, struct kvmfr_importer_map)
#define KVMFR_IMPORTER_UNMAP	 _IO('I', 0xe3)
#define KVMFR_IMPORTER_VMAP	 _IO('I', 0xe4)
#define KVMFR_IMPORTER_VUNMAP	 _IO('I', 0xe5)
#define KVMFR_IMPORTER_BEGIN_CPU _IO('I', 0xe6)	/* argument: direction */
#define KVMFR_IMPORTER_END_CPU	 _IO('I', 0xe7)	/* argument: direction */
#define KVMFR_IMPORTER_IO	 _IOW('I', 0xe8, struct kvmfr_importer_io)
/* for writing and for the long term */
#define KVMFR_IMPORTER_PIN	 _IOW('I', 0xe9, struct kvmfr_importer_pin)
#define KVMFR_IMPORTER_UNPIN	 _IO('I', 0xea)

#endif
