// SPDX-License-Identifier: GPL-2.0
/*
 * kvmfrctl memory core: writes what QEMU's dump-guest-memory does, but copies the
 * memory itself, and leaves holes for pages of zeros.
 */
#include "memory.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE		4096ULL
#define PAGES(bytes)	(((bytes) + PAGE - 1) / PAGE * PAGE)

struct core {
	int fd;
	const char *file;
	Elf64_Ehdr elf;
	Elf64_Phdr *segments;	/* the notes, and each range of memory */
	void *notes;
	uint64_t size;		/* of the file */
};

static void put(const struct core *core, const void *data, size_t size, off_t at)
{
	while (size) {
		ssize_t n = pwrite(core->fd, data, size, at);

		if (n < 0)
			fail("%s: %s; the core is not complete", core->file,
			     errno == EFAULT ? MEMORY_GONE : strerror(errno));
		data = (const char *)data + n;
		size -= n;
		at += n;
	}
}

/* Writes the pages that aren't all zeros to their place in the core. */
static void put_pages(const struct core *core, const char *data, uint64_t size, off_t at)
{
	static const char zeros[PAGE];
	uint64_t done, n, begin = 0;

	/* What is from @begin on must be written, in pieces that are still in the cache. */
	for (done = 0; done < size; done += n) {
		bool zero;

		n = size - done < PAGE ? size - done : PAGE;
		zero = !memcmp(data + done, zeros, n);
		if (!zero && done - begin < MIB)
			continue;
		put(core, data + begin, done - begin, at + begin);
		begin = zero ? done + n : done;
	}
	put(core, data + begin, size - begin, at + begin);
}

/* Adds the notes with the registers, if QEMU can be asked for them. */
static void add_notes(const struct request *r, struct core *core)
{
	unsigned int machine;
	size_t size;
	int err;

	err = kvmfr_memory_notes(r->memory, &core->notes, &size, &machine);
	if (err == -EOPNOTSUPP)
		return;
	if (err) {
		warn("%s has no registers: QEMU refuses: %s", core->file, strerror(-err));
		return;
	}
	core->elf.e_machine = machine;
	core->segments[core->elf.e_phnum++] = (Elf64_Phdr) {
		.p_type = PT_NOTE,
		.p_offset = core->size,
		.p_filesz = size,
		.p_memsz = size,
	};
	core->size += size;
}

static void add_range(const struct request *r, struct core *core,
		      const struct kvmfr_memory_range *range)
{
	if (kvmfr_memory_way(r->memory, range->block) == KVMFR_MEMORY_NONE)
		return;
	core->size = PAGES(core->size);
	core->segments[core->elf.e_phnum++] = (Elf64_Phdr) {
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X | (range->rom ? 0 : PF_W),
		.p_offset = core->size,
		.p_vaddr = range->address,
		.p_paddr = range->address,
		.p_filesz = range->size,
		.p_memsz = range->size,
	};
	core->size += range->size;
}

static void add_headers(const struct request *r, struct core *core)
{
	const struct kvmfr_memory_range *ranges;
	size_t n = kvmfr_memory_ranges(r->memory, &ranges);

	core->elf = (Elf64_Ehdr) {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
			     ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(core->elf),
		.e_ehsize = sizeof(core->elf),
		.e_phentsize = sizeof(*core->segments),
	};
	core->segments = calloc(n + 1, sizeof(*core->segments));
	if (!core->segments)
		fail("out of memory");
	core->size = sizeof(core->elf) + (n + 1) * sizeof(*core->segments);
	add_notes(r, core);
	for (size_t i = 0; i < n; i++)
		add_range(r, core, &ranges[i]);
}

static void put_headers(const struct core *core)
{
	const Elf64_Phdr *first = core->segments;

	put(core, &core->elf, sizeof(core->elf), 0);
	put(core, first, core->elf.e_phnum * sizeof(*first), sizeof(core->elf));
	if (core->notes)
		put(core, core->notes, first->p_filesz, first->p_offset);
}

/* Writes a part that may have data, all in one segment; returns that segment. */
static const Elf64_Phdr *put_part(const struct request *r, const struct core *core,
				  const Elf64_Phdr *segment, uint64_t from, uint64_t size)
{
	const uint64_t total = memory_below(r, UINT64_MAX), end = from + size;
	uint64_t n;

	while (segment->p_type != PT_LOAD || from - segment->p_paddr >= segment->p_memsz)
		segment++;
	for (; from < end; from += n) {
		const char *data = memory_bytes(r, from, end - from, &n);

		put_pages(core, data, n, segment->p_offset + (from - segment->p_paddr));
		progress("core", memory_below(r, from + n), total);
	}
	return segment;
}

/* Is the file one of those that are the guest's RAM? */
static bool is_ram(const struct request *r, const struct stat *st)
{
	for (int i = 0; i < r->n_files; i++) {
		const char *equals = strchr(r->files[i], '=');
		struct stat ram;

		if (stat(r->files[i], &ram) && (!equals || stat(equals + 1, &ram)))
			continue;
		if (ram.st_dev == st->st_dev && ram.st_ino == st->st_ino)
			return true;
	}
	return false;
}

int memory_core(struct request *r)
{
	struct core core = { .file = r->arguments[0] };
	const Elf64_Phdr *segment;
	uint64_t from = 0, size;
	struct stat st;

	/* Mode 0600: the core has all of the guest's secrets. */
	core.fd = open(core.file, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
	if (core.fd < 0 && errno != ENXIO)
		fail("%s: %s", core.file, strerror(errno));
	if (core.fd < 0 || fstat(core.fd, &st) || !S_ISREG(st.st_mode))
		fail("%s: not a regular file, which a core has to be for its holes", core.file);
	if (is_ram(r, &st))
		fail("%s: the guest's RAM, which a core would replace; name another file", core.file);
	add_headers(r, &core);
	if (ftruncate(core.fd, 0) || ftruncate(core.fd, core.size))
		fail("%s: %s", core.file, strerror(errno));

	segment = core.segments;
	for (; kvmfr_memory_data(r->memory, &from, &size); from += size)
		segment = put_part(r, &core, segment, from, size);
	/* At the end, so that a core that is not complete is none. */
	put_headers(&core);
	if (close(core.fd))
		fail("%s: %s", core.file, strerror(errno));
	return 0;
}
