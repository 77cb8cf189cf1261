/* SPDX-License-Identifier: MIT */
/*
 * libkvmfr: a guest's physical memory, seen from the host
 *
 * A guest whose RAM is a file that QEMU shares, such as /dev/kvmfr0, can be
 * looked into by every process that may open that file: kvmfr_memory_attach(),
 * and kvmfr_memory_at() gives a pointer to it. Of any other QEMU the memory can be
 * reached by whoever may debug the process: kvmfr_memory_attach_process(). Private
 * memory has no pointer; kvmfr_memory_read() and kvmfr_memory_write() copy.
 *
 * An address of the guest isn't an offset in the file, because a PC has a hole
 * below 4 GiB: QEMU says through QMP which ranges there are, or they are known
 * from the machine type.
 *
 * The guest goes on while it is looked at, and changes what is read. Read a
 * word once, copy it, and check the copy. A map is what it was when QEMU was
 * asked: memory that is plugged in later is missing from it, and after a reset
 * or with other settings of the chipset a range can be RAM that was ROM.
 * kvmfr_memory_check() says whether that happened.
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
	const char *block;	/* name of the RAM block, NULL: no memory here */
	uint32_t rom;		/* 1: the guest can't write to it */
};

/*
 * Asks the QEMU behind a QMP socket, a UNIX socket that nobody else is
 * connected to, for its map ("info mtree -f"). Waits five seconds at most for
 * each answer. Stays connected until kvmfr_memory_close(), for events and what is
 * asked later; a QMP socket has one client at a time.
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
 * The map of a PC without asking its QEMU. It leaves out 640 KiB to 1 MiB, where
 * the guest decides what there is, ROM, and memory of devices. It is wrong for a
 * QEMU with max-ram-below-4g or with memory that is plugged in.
 *
 * @machine: QEMU's name for it: pc, q35, pc-i440fx-VERSION, pc-q35-VERSION.
 * @size: of the RAM in bytes, all of it one RAM block, which is called pc.ram.
 *
 * Errors: -ENOENT: no such machine is known. -EINVAL: a size that isn't a multiple
 * of 4 KiB, of at most 1 MiB, or of more than 960 GiB. -ENOMEM.
 */
KVMFR_API int kvmfr_memory_from_machine(const char *machine, uint64_t size,
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

#define KVMFR_MEMORY_WRITE	0x1	/* attach: to be written, too */

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
 * Attaches the blocks that aren't yet to what a QEMU has: a file that it has
 * mapped shared is mapped here, too; anything else is copied with
 * process_vm_readv(). A map from QMP says which block is where in the process;
 * without QMP the RAM is found by its size, and it is an error if that isn't
 * enough.
 *
 * @pid: the QEMU's; 0 is the one that listens at the QMP socket.
 *
 * A file needs what reading /proc/PID/maps and opening /proc/PID/fd need, the same
 * user or CAP_SYS_PTRACE. Copying needs what a debugger needs, on top of that
 * Yama's ptrace_scope.
 *
 * Errors are those of the first block of RAM that can't be reached; others can be
 * attached then, see kvmfr_memory_way(). -EINVAL: unknown flag, or neither a
 * process nor QMP. -EEXIST: there is a process already, or the size fits
 * several of its mappings. -ENOENT: the process has no mapping that fits. -ESRCH:
 * no such process, or it ended. -EACCES: not permitted to look at the process.
 * -EPERM: not permitted to copy from it. -ENOMEM; and those of
 * kvmfr_memory_from_qmp().
 */
KVMFR_API int kvmfr_memory_attach_process(struct kvmfr_memory *memory, pid_t pid,
					  unsigned int flags);

/*
 * The process behind kvmfr_memory_attach_process(), from its call on, whatever it
 * answers; before that the one that listens at the QMP socket; 0: none is known.
 */
KVMFR_API pid_t kvmfr_memory_process(const struct kvmfr_memory *memory);

enum kvmfr_memory_way {
	KVMFR_MEMORY_NONE,	/* not attached */
	KVMFR_MEMORY_FILE,	/* mapped, by kvmfr_memory_attach() */
	KVMFR_MEMORY_SHARED,	/* mapped, through a descriptor of the process */
	KVMFR_MEMORY_COPIED,	/* copied from the process */
};

/* How a block is reached. @block: as for kvmfr_memory_attach(). */
KVMFR_API enum kvmfr_memory_way kvmfr_memory_way(const struct kvmfr_memory *memory,
						 const char *block);

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
 * @pointer: valid until kvmfr_memory_close(), whatever happens to the QEMU. Writing
 * to it is SIGSEGV unless the block was attached with KVMFR_MEMORY_WRITE.
 * @reach: how many bytes from there are the guest's next ones, at least 1.
 *
 * Errors: -EFAULT: no memory there: a hole, MMIO, beyond the end; see
 * kvmfr_memory_range(). -ENXIO: memory of a block that isn't attached.
 * -EOPNOTSUPP: memory that is copied; see kvmfr_memory_read().
 */
KVMFR_API int kvmfr_memory_at(const struct kvmfr_memory *memory,
			      uint64_t address, void **pointer, uint64_t *reach);

/*
 * Copy guest-physical memory, which may be of several ranges that follow each
 * other. Nothing is copied unless all of the addresses are memory that is attached.
 * A guest that runs can change what is copied meanwhile.
 *
 * Errors: -EFAULT, -ENXIO: see kvmfr_memory_at(). -EACCES: to be written, but
 * attached without KVMFR_MEMORY_WRITE, or ROM of a process. After part of it was
 * copied: -ESRCH: the process ended. -ESTALE: it has nothing there any more.
 * -EPERM: see kvmfr_memory_attach_process(). -ENOMEM.
 */
KVMFR_API int kvmfr_memory_read(const struct kvmfr_memory *memory, uint64_t address,
				void *data, size_t size);
KVMFR_API int kvmfr_memory_write(const struct kvmfr_memory *memory, uint64_t address,
				 const void *data, size_t size);

/*
 * The next part of the attached memory at or after *@address that can have
 * something other than zeros: 1, and where it is. Parts of a sparse file that
 * were never written are passed over, and stay without memory, and so does what a
 * process never touched. 0: none is left.
 */
KVMFR_API int kvmfr_memory_data(const struct kvmfr_memory *memory,
				uint64_t *address, uint64_t *size);

#define KVMFR_MEMORY_RESIZED	0x1	/* the map is another one */
#define KVMFR_MEMORY_RESET	0x2	/* the guest was reset */
#define KVMFR_MEMORY_GONE	0x4	/* a file is shorter than what is attached of it */

/*
 * Is the guest still the one that was asked about? Compares the map with the one
 * that QEMU has now, and says whether the guest was reset since. 0, or
 * KVMFR_MEMORY_RESIZED and KVMFR_MEMORY_RESET: what was read since the last look
 * can be of both before and after. Or KVMFR_MEMORY_GONE alone.
 *
 * Errors: -EOPNOTSUPP: a map without QMP, and all files are as long as they were. Others: see kvmfr_memory_from_qmp();
 * -ECONNRESET when QEMU has ended.
 */
KVMFR_API int kvmfr_memory_check(const struct kvmfr_memory *memory);

/*
 * The notes of an ELF core, as QEMU's dump-guest-memory writes them: the
 * registers of each CPU, and what the guest gave QEMU through its vmcoreinfo
 * device. A guest that runs is stopped for a moment; waits for that a minute at
 * most.
 *
 * @notes: to be freed with free(). @machine: what goes into e_machine with them.
 *
 * Errors: -EOPNOTSUPP: a map without QMP. -EBUSY: QEMU refuses now, for example
 * because it is being migrated. Others: see kvmfr_memory_from_qmp().
 */
KVMFR_API int kvmfr_memory_notes(const struct kvmfr_memory *memory, void **notes,
				 size_t *size, unsigned int *machine);

#ifdef __cplusplus
}
#endif

#endif
