/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: a guest's physical memory, seen from the host
 *
 * A guest whose RAM is a file that QEMU shares, such as /dev/kvmfr0, can be
 * looked into by every process that may open that file. An address of the guest
 * isn't an offset in the file, because a PC has a hole below 4 GiB: QEMU says
 * through QMP which ranges there are.
 *
 * The guest goes on while it is looked at, and changes what is read. Read a
 * word once, copy it, and check the copy. A map is what it was when QEMU was
 * asked: memory that is plugged in later is missing from it, and after a reset
 * or with other settings of the chipset a range can be RAM that was ROM.
 *
 * The rules of libkvmfr.h apply: negative errno, no threads, no signals.
 */
#ifndef LIBKVMFR_MEMORY_H
#define LIBKVMFR_MEMORY_H

#include "libkvmfr.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kvmfr_memory;

/* A part of the guest's physical addresses. */
struct kvmfr_memory_range {
	uint64_t address;	/* the first guest-physical address */
	uint64_t size;		/* in bytes */
	uint64_t offset;	/* of the first byte in the RAM block */
	const char *block;	/* name of the RAM block, NULL: no memory here */
	uint32_t rom;		/* 1: the guest can't write to it */
};

/*
 * Asks the QEMU behind a QMP socket, a UNIX socket that nobody else is
 * connected to, for its map ("info mtree -f"). Waits five seconds at most for
 * each answer, and disconnects.
 *
 * @memory: the new object, closed with kvmfr_memory_close(); NULL after an error.
 *
 * Errors: -EPROTO: no QMP, or a map that can't be. -ETIMEDOUT: no answer,
 * perhaps because somebody else is connected. -ECONNRESET: it hung up.
 * -ENAMETOOLONG, -ENOMEM; and what socket() and connect() answer.
 */
KVMFR_API int kvmfr_memory_from_qmp(const char *socket,
				    struct kvmfr_memory **memory);

/*
 * The same from the text that "info mtree -f" printed earlier.
 * Errors: -EPROTO: it has no address space "memory" with RAM, or one that can't
 * be: overlapping, out of order, longer than the addresses. -ENOMEM.
 */
KVMFR_API int kvmfr_memory_from_text(const char *text,
				     struct kvmfr_memory **memory);

/* Ends the mappings, too: pointers into them are invalid. NULL is fine. */
KVMFR_API void kvmfr_memory_close(struct kvmfr_memory *memory);

/*
 * The ranges of RAM and ROM in ascending order, the object's; returns how many.
 */
KVMFR_API size_t kvmfr_memory_ranges(const struct kvmfr_memory *memory,
				     const struct kvmfr_memory_range **ranges);

#define KVMFR_MEMORY_WRITE	0x1	/* kvmfr_memory_attach(): to be written, too */

/*
 * Maps the file that is a RAM block: a /dev/kvmfrN, or any file that QEMU has
 * as memory-backend-file with share=on. Only reading is possible without
 * KVMFR_MEMORY_WRITE.
 *
 * @block: the block's name; NULL is the one that has the guest's first RAM.
 *
 * A file that is cut short while it is mapped makes an access to it SIGBUS.
 *
 * Errors: -EINVAL: unknown flag. -ENOENT: there is no such block, or no such
 * file. -EEXIST: the block has a file. -ERANGE: the file is smaller than the
 * block. -ENODEV: neither a regular file nor a kvmfr device. What open() and
 * mmap() answer.
 */
KVMFR_API int kvmfr_memory_attach(struct kvmfr_memory *memory,
				  const char *block, const char *path,
				  unsigned int flags);

/*
 * Says what is at an address: the whole range of RAM or ROM that has it, with 0,
 * or the whole range without memory, with -EFAULT and @range->block NULL.
 */
KVMFR_API int kvmfr_memory_range(const struct kvmfr_memory *memory,
				 uint64_t address,
				 struct kvmfr_memory_range *range);

/*
 * The place of a guest-physical address in this process, without copying.
 *
 * @pointer: valid until kvmfr_memory_close(). Writing to it is SIGSEGV unless
 * the block was attached with KVMFR_MEMORY_WRITE.
 * @reach: how many bytes from there are the guest's next ones, at least 1.
 *
 * Errors: -EFAULT: no memory there: a hole, MMIO, beyond the end; see
 * kvmfr_memory_range(). -ENXIO: memory of a block without a file.
 */
KVMFR_API int kvmfr_memory_at(const struct kvmfr_memory *memory,
			      uint64_t address, void **pointer, uint64_t *reach);

/*
 * The next part of the attached memory at or after *@address that can have
 * something other than zeros: 1, and where it is. Parts of a sparse file that
 * were never written are passed over, and stay without memory. 0: none is left.
 */
KVMFR_API int kvmfr_memory_data(const struct kvmfr_memory *memory,
				uint64_t *address, uint64_t *size);

#ifdef __cplusplus
}
#endif

#endif
