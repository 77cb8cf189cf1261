/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * kvmfr: the user interface of /dev/kvmfrN
 *
 * A device is a piece of memory that a host and a virtual machine share. On
 * a host it is made of the host's memory ("static", module parameter
 * static_size_mb); in a guest it is BAR 2 of an IVSHMEM PCI device ("pci").
 *
 * The numbers below are compiled into programs that exist and never change.
 * 'u' 0x40-0x4f is registered to udmabuf, and 0x42 collides with its
 * UDMABUF_CREATE: send these only to a /dev/kvmfrN.
 *
 * open()   O_RDONLY, O_WRONLY and O_RDWR mean what they say for all that follows.
 *          ENODEV: the device is being unplugged (the node is about to vanish).
 *
 * lseek()  SEEK_END tells the size in bytes, however large; so does
 *          /sys/class/kvmfr/kvmfrN/size. Beside it, "type" is "static" or
 *          "pci", and "huge_bytes" is how much of the memory is made of huge
 *          pages (PMD_SIZE: 2 MiB on x86-64).
 *          EINVAL: outside the device. ENODEV: unplugged.
 *
 * read(), write(), pread(), readv(), sendfile(), splice() and so on: any offset
 *          and length, as on a block of memory. Short at the end; at the end
 *          and past it 0. (A program that repeats a write() which returned 0,
 *          as stdio does, never ends there.)
 *          EBADF: not opened for it. EFAULT: bad buffer, nothing copied.
 *          EIO: a page with a memory error. EOPNOTSUPP: the kernel has no
 *          mapping of this IVSHMEM device (encrypted guests). ENODEV: unplugged.
 *
 * fsync()  and msync() have nothing to do: 0, or ENODEV.
 *
 * mmap()   MAP_SHARED, any part of the device. Offset in bytes, a multiple of
 *          the page size. The mapping can shrink, split and be inherited by
 *          children, but never grow. Where the device has huge pages they are
 *          mapped if the address and the offset agree modulo their size: mmap()
 *          picks such an address, QEMU has to be told (align=). From Linux 6.13
 *          on, a mapping of an IVSHMEM device with huge pages that has no room
 *          for one is made of page frame numbers: it can't be pinned (O_DIRECT,
 *          io_uring), and MADV_DONTNEED answers EINVAL.
 *          EINVAL: MAP_PRIVATE, or a part that isn't inside the device.
 *          EACCES: PROT_WRITE from an O_RDONLY descriptor, or any mapping
 *          from an O_WRONLY one. ENODEV: unplugged.
 *
 * Unplug   When an IVSHMEM device goes away, every mapping, also those of
 *          DMA-BUFs, gives SIGBUS from then on, and every call on an open
 *          descriptor answers ENODEV. A device that comes back is opened anew.
 *          A static device goes away when root takes its size from the module
 *          parameter static_size_mb, or unloads the module; neither is possible
 *          as long as a descriptor, a mapping or a DMA-BUF is alive. Unplugging
 *          waits for importers that have the memory mapped and for pinned
 *          pages, and the machine's PCI hot-plug with it: whoever may open the
 *          node can hold that up. The log says what is waited for. From Linux
 *          7.0 on, importers that can let go of the memory are told to. Reboot
 *          and poweroff don't wait.
 */
#ifndef KVMFR_H
#define KVMFR_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* kvmfr_dmabuf_create.flags: set FD_CLOEXEC on the new descriptor */
#define KVMFR_DMABUF_FLAG_CLOEXEC	0x1

/**
 * struct kvmfr_dmabuf_create - which part of a device becomes a DMA-BUF
 * @flags: KVMFR_DMABUF_FLAG_*, all other bits zero
 * @offset: first byte, from the start of the device; a multiple of the page size
 * @size: bytes, not zero, a multiple of the page size
 *
 * 24 bytes for a 64-bit caller, 20 for one on i386: the ioctl's number differs,
 * and the module knows both. The bytes behind @flags are padding and ignored.
 */
struct kvmfr_dmabuf_create {
	__u8  flags;
	__u64 offset;
	__u64 size;
};

/**
 * KVMFR_DMABUF_GETSIZE - the size of the device in bytes, as the return value
 *
 * Takes no argument.
 *
 * Errors: EOVERFLOW: the size doesn't fit an int (2 GiB and more); lseek() and
 * sysfs tell it. ENODEV: unplugged.
 */
#define KVMFR_DMABUF_GETSIZE	_IO('u', 0x44)

/**
 * KVMFR_DMABUF_CREATE - make a DMA-BUF of a part of the device
 *
 * Takes a struct kvmfr_dmabuf_create, returns a new file descriptor that the
 * caller owns. The DMA-BUF is the device's memory, not a copy, and lives until
 * its last user is gone, whatever becomes of the descriptor it was made from.
 * Making one takes the same time and memory for a page as for the whole device.
 *
 * mmap() of a DMA-BUF: MAP_SHARED, offset counted from the start of the
 * DMA-BUF. The kernel maps huge pages where the address and the place in the
 * device agree modulo the huge page size, but lets no exporter choose the
 * address of a DMA-BUF's mapping, so a caller who cares picks it. With
 * huge = 2 MiB and buf the struct above:
 *
 *	p = mmap(NULL, size + huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
 *		 -1, 0);
 *	p += (buf.offset - (uintptr_t)p) & (huge - 1);
 *	p = mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
 *		 dmabuf_fd, 0);
 *
 * (examples/viewer.c does this, and unmaps the rest of what it has reserved.)
 * CPU access goes between DMA_BUF_IOCTL_SYNC calls, see <linux/dma-buf.h>.
 *
 * An importer whose DMA would need bounce buffers (swiotlb) is refused with
 * EOPNOTSUPP when it maps the DMA-BUF: copying one back would overwrite what the
 * other machine has written meanwhile.
 *
 * Errors:
 * EINVAL: @flags has an unknown bit; @offset or @size isn't a multiple of the
 *	page size; @size is 0; the part isn't inside the device.
 * EACCES: the descriptor isn't O_RDWR. An importer could not be kept from
 *	writing, so there are no read-only DMA-BUFs.
 * EFAULT: the argument can't be read.
 * EMFILE, ENFILE, ENOMEM: no descriptor or no memory left. Nothing was made.
 * EOPNOTSUPP: the kernel has no struct pages for the memory of this IVSHMEM
 *	device; its log says why. mmap() works.
 * ENODEV: unplugged.
 */
#define KVMFR_DMABUF_CREATE	_IOW('u', 0x42, struct kvmfr_dmabuf_create)

/*
 * Doorbells: an IVSHMEM device with MSI-X ("ivshmem-doorbell" of QEMU) connects
 * peers, virtual machines and programs of the host, that interrupt each other.
 * The numbers come from 'u' 0x50-0x5f, which the kernel's ioctl list has free.
 * The structures are the same for 32-bit callers. The registers behind it are
 * those of QEMU's ivshmem-spec.
 *
 * Each of the calls answers EOPNOTSUPP on a device without doorbell (static,
 * ivshmem-plain, or no MSI-X to be had), ENODEV when it is unplugged, and EFAULT
 * when the argument can't be read or written. /sys/class/kvmfr/kvmfrN has
 * "peer_id" and "vectors" where there is a doorbell.
 */

/**
 * struct kvmfr_doorbell_info - who we are
 * @id: the own peer id, 0 to 65535
 * @vectors: how many vectors interrupt us, numbered from 0
 */
struct kvmfr_doorbell_info {
	__u32 id;
	__u32 vectors;
};

/* KVMFR_DOORBELL_INFO - fills a struct kvmfr_doorbell_info */
#define KVMFR_DOORBELL_INFO	_IOR('u', 0x50, struct kvmfr_doorbell_info)

/**
 * struct kvmfr_doorbell_ring - whom to interrupt
 * @peer: its id, 0 to 65535
 * @vector: its vector, 0 to 65535; QEMU looks at the low 8 bits
 */
struct kvmfr_doorbell_ring {
	__u32 peer;
	__u32 vector;
};

/**
 * KVMFR_DOORBELL_RING - interrupt a peer
 *
 * Takes a struct kvmfr_doorbell_ring. What was written to the memory before is
 * there when the peer is interrupted. It also succeeds when there is no such
 * peer or vector: the device gives no answer.
 *
 * Errors: EINVAL: @peer or @vector is above 65535. EACCES: the descriptor is
 * O_RDONLY.
 */
#define KVMFR_DOORBELL_RING	_IOW('u', 0x51, struct kvmfr_doorbell_ring)

/**
 * struct kvmfr_doorbell_eventfd - what to signal
 * @vector: one of our vectors
 * @fd: an eventfd, or -1
 */
struct kvmfr_doorbell_eventfd {
	__u32 vector;
	__s32 fd;
};

/**
 * KVMFR_DOORBELL_EVENTFD - signal an eventfd at each interrupt of a vector
 *
 * Takes a struct kvmfr_doorbell_eventfd. A vector can have several eventfds. An
 * fd of -1 removes those of the vector that came through this descriptor of the
 * device; closing the descriptor removes all that came through it. The eventfd's
 * own descriptor may be closed, the kernel keeps the eventfd. An unplug signals
 * each of them once: a waiting program wakes up, and its next call answers ENODEV.
 *
 * Errors: EINVAL: no such vector of ours, or @fd is no eventfd. EBADF: @fd is not
 * open. ENOSPC: the device has 256 eventfds. ENOMEM.
 */
#define KVMFR_DOORBELL_EVENTFD	_IOW('u', 0x52, struct kvmfr_doorbell_eventfd)

#endif
