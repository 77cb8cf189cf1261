/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: a guest's physical memory, seen from the host
 *
 * If the guest's RAM is a file that QEMU shares, such as /dev/kvmfr0, every process
 * that may open the file can map it: kvmfr_memory_attach(), then
 * kvmfr_memory_at() returns a pointer. The memory of any other QEMU is available
 * to whoever may debug that process: kvmfr_memory_attach_process(). Memory that is
 * private to QEMU has no pointer; kvmfr_memory_read() and kvmfr_memory_write()
 * copy it.
 *
 * A guest-physical address is not an offset in the file, because a PC has a hole
 * below 4 GiB. The map from one to the other comes from QEMU (by QMP) or is
 * computed from the machine type.
 *
 * A running guest changes the memory while it is read. Read a word once, copy it,
 * and check the copy. The map doesn't follow the guest: memory that is plugged in
 * later is missing from it, and after a reset or a change of chipset settings a
 * range can be RAM that was ROM. kvmfr_memory_check() reports that.
 *
 * The rules of libkvmfr.h apply: negative errno, no threads, no signals.
 */
#ifndef LIBKVMFR_MEMORY_H
#define LIBKVMFR_MEMORY_H

#include "libkvmfr.h"

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kvmfr_memory;

/* A part of the guest's physical addresses. */
struct kvmfr_memory_range {
	uint64_t address;	/* the first guest-physical address */
	uint64_t size;		/* in bytes */
	uint64_t offset;	/* of the first byte in the RAM block */
	const char *block;	/* name of the RAM block, owned by the map; NULL: no memory */
	uint32_t rom;		/* 1: the guest can't write to it */
};

/*
 * Gets the map from QEMU ("info mtree -f") through a QMP UNIX socket. A QMP socket
 * takes one client at a time; this one stays connected until
 * kvmfr_memory_close(), for events and later questions. Waits at most five seconds
 * for each answer.
 *
 * @memory: the new object, to be closed with kvmfr_memory_close(); NULL on error.
 *
 * Errors: -EPROTO: not QMP, or an impossible map. -ETIMEDOUT: no answer, perhaps
 * because another client is connected. -ECONNRESET: QEMU closed the connection.
 * -ENAMETOOLONG, -ENOMEM; and the errors of socket() and connect().
 */
KVMFR_API int kvmfr_memory_from_qmp(const char *socket,
				    struct kvmfr_memory **memory);

/*
 * Computes the map of a PC without asking QEMU. It leaves out ROM, memory of
 * devices, and 640 KiB to 1 MiB, whose contents the guest chooses. It is wrong for
 * a QEMU with max-ram-below-4g or with memory that was plugged in.
 *
 * @machine: QEMU's machine type: pc, q35, pc-i440fx-VERSION, pc-q35-VERSION.
 * @size: of the RAM in bytes. It is one RAM block, called pc.ram.
 *
 * Errors: -ENOENT: the machine type isn't known. -EINVAL: @size isn't a multiple of
 * 4 KiB, isn't above 1 MiB, or is above 960 GiB. -ENOMEM.
 */
KVMFR_API int kvmfr_memory_from_machine(const char *machine, uint64_t size,
					struct kvmfr_memory **memory);

/*
 * Reads the map from text that "info mtree -f" printed earlier.
 *
 * Errors: -EPROTO: there is no address space "memory" with RAM, or its ranges
 * overlap, are out of order or exceed 64 bits. -ENOMEM.
 */
KVMFR_API int kvmfr_memory_from_text(const char *text,
				     struct kvmfr_memory **memory);

/*
 * Unmaps all memory, so that pointers from kvmfr_memory_at() become invalid, and
 * frees the object. NULL is allowed.
 */
KVMFR_API void kvmfr_memory_close(struct kvmfr_memory *memory);

/*
 * Returns the number of ranges of RAM and ROM, and in *@ranges an array of them in
 * ascending order, which the object owns.
 */
KVMFR_API size_t kvmfr_memory_ranges(const struct kvmfr_memory *memory,
				     const struct kvmfr_memory_range **ranges);

#define KVMFR_MEMORY_WRITE	0x1	/* attach for reading and writing */

/*
 * Maps the file behind a RAM block: a /dev/kvmfrN, or any file that QEMU has as
 * memory-backend-file with share=on. The mapping is read-only without
 * KVMFR_MEMORY_WRITE.
 *
 * @block: the block's name; NULL: the block with the guest's first RAM.
 *
 * If the file is truncated while it is mapped, accessing the mapping can give
 * SIGBUS.
 *
 * Errors: -EINVAL: unknown flag. -ENOENT: no such block, or no such file.
 * -EEXIST: the block is attached already. -ERANGE: the file is smaller than the
 * block. -ENODEV: neither a regular file nor a kvmfr device. -ENOMEM; and the
 * errors of open() and mmap().
 */
KVMFR_API int kvmfr_memory_attach(struct kvmfr_memory *memory,
				  const char *block, const char *path,
				  unsigned int flags);

/*
 * Attaches all blocks that have no file yet through the QEMU process. What QEMU
 * has mapped shared is mapped here, too; anything else is copied with
 * process_vm_readv(). With QMP, QEMU says where in the process a block is;
 * without, the RAM is the only writable mapping of its size, and it is an error
 * if there are several.
 *
 * @pid: the QEMU process; 0: the one that listens at the QMP socket.
 *
 * Mapping needs the rights to read /proc/PID/maps and to open /proc/PID/fd: the
 * same user, or CAP_SYS_PTRACE. Copying needs the rights of a debugger, so Yama's
 * ptrace_scope counts, too.
 *
 * The result is the error of the first block of RAM that can't be reached; others
 * can be attached all the same, see kvmfr_memory_way().
 *
 * Errors: -EINVAL: unknown flag, or neither a process nor QMP. -EEXIST: a process
 * is attached already, or several mappings have the RAM's size. -ENOENT: no
 * mapping of the process fits. -ESRCH: no such process, or it has ended. -EACCES:
 * not permitted to look at the process. -EPERM: not permitted to copy from it.
 * -ENOMEM; and the errors of kvmfr_memory_from_qmp().
 */
KVMFR_API int kvmfr_memory_attach_process(struct kvmfr_memory *memory, pid_t pid,
					  unsigned int flags);

/*
 * The process of kvmfr_memory_attach_process(), even if that call failed. Before
 * it, the process that listens at the QMP socket. 0: none is known.
 */
KVMFR_API pid_t kvmfr_memory_process(const struct kvmfr_memory *memory);

enum kvmfr_memory_way {
	KVMFR_MEMORY_NONE,	/* not attached */
	KVMFR_MEMORY_FILE,	/* mapped, by kvmfr_memory_attach() */
	KVMFR_MEMORY_SHARED,	/* mapped, through a descriptor of the process */
	KVMFR_MEMORY_COPIED	/* copied from the process */
};

/* How a block is attached. @block: as for kvmfr_memory_attach(). */
KVMFR_API enum kvmfr_memory_way kvmfr_memory_way(const struct kvmfr_memory *memory,
						 const char *block);

/*
 * What is at an address: returns 0 and the whole range of RAM or ROM that contains
 * it, or -EFAULT and the whole hole around it, with @range->block NULL.
 */
KVMFR_API int kvmfr_memory_range(const struct kvmfr_memory *memory,
				 uint64_t address,
				 struct kvmfr_memory_range *range);

/*
 * Where a guest-physical address is mapped in this process. Nothing is copied.
 *
 * @pointer: valid until kvmfr_memory_close(), even if QEMU ends. Writing to it is
 * SIGSEGV unless the block was attached with KVMFR_MEMORY_WRITE.
 * @reach: how many bytes from there on belong to consecutive guest addresses, at
 * least 1.
 *
 * Errors: -EFAULT: no memory there (a hole, MMIO, or beyond the end), see
 * kvmfr_memory_range(). -ENXIO: the block isn't attached. -EOPNOTSUPP: the memory
 * can only be copied, see kvmfr_memory_read().
 */
KVMFR_API int kvmfr_memory_at(const struct kvmfr_memory *memory,
			      uint64_t address, void **pointer, uint64_t *reach);

/*
 * Copy guest-physical memory, also across adjacent ranges. Nothing is copied
 * unless every address is memory that is attached. A running guest can change the
 * memory during the copy.
 *
 * Errors before anything is copied: -EFAULT, -ENXIO: see kvmfr_memory_at().
 * -EACCES: a write to memory that was attached without KVMFR_MEMORY_WRITE, or to
 * ROM in a process.
 * Errors after a part may have been copied: -ESRCH: the process ended. -ESTALE:
 * it has no memory there any more. -EPERM: see kvmfr_memory_attach_process().
 * -ENOMEM.
 */
KVMFR_API int kvmfr_memory_read(const struct kvmfr_memory *memory, uint64_t address,
				void *data, size_t size);
KVMFR_API int kvmfr_memory_write(const struct kvmfr_memory *memory, uint64_t address,
				 const void *data, size_t size);

/*
 * Finds the next part of the attached memory, at or after *@address, that may
 * contain anything but zeros. Returns 1 and sets *@address and *@size, or 0 if
 * there is none. Holes of a sparse file and pages that a process never touched are
 * skipped without allocating memory for them.
 */
KVMFR_API int kvmfr_memory_data(const struct kvmfr_memory *memory,
				uint64_t *address, uint64_t *size);

#define KVMFR_MEMORY_RESIZED	0x1	/* the map has changed */
#define KVMFR_MEMORY_RESET	0x2	/* the guest was reset */
#define KVMFR_MEMORY_GONE	0x4	/* a file is now shorter than what is attached of it */

/*
 * Checks whether the map is still QEMU's and whether the guest was reset since it
 * was made. Returns 0 if nothing changed; or KVMFR_MEMORY_RESIZED,
 * KVMFR_MEMORY_RESET or both, and then data that was read may be partly from before
 * and partly from after; or KVMFR_MEMORY_GONE alone.
 *
 * Errors: -EOPNOTSUPP: all files have their length, and without QMP more can't be
 * known. -ECONNRESET: QEMU has ended. Others: see kvmfr_memory_from_qmp().
 */
KVMFR_API int kvmfr_memory_check(const struct kvmfr_memory *memory);

/*
 * Gets the notes of an ELF core as QEMU's dump-guest-memory writes them: the
 * registers of each CPU, and what the guest gave to its vmcoreinfo device. QEMU
 * stops a running guest for a moment. Waits at most a minute for that.
 *
 * @notes: @size bytes, to be freed with free(). @machine: the e_machine of the ELF
 * header that they belong to.
 *
 * Errors: -EOPNOTSUPP: a map without QMP. -EBUSY: QEMU refuses, for example during
 * a migration. Others: see kvmfr_memory_from_qmp().
 */
KVMFR_API int kvmfr_memory_notes(const struct kvmfr_memory *memory, void **notes,
				 size_t *size, unsigned int *machine);

#ifdef __cplusplus
}
#endif

#endif
