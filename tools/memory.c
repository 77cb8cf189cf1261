// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl memory: a guest's physical memory, through libkvmfr. */
#include "kvmfrctl.h"
#include "../lib/libkvmfr-memory.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE		4096
#define WRITE_MAX	(1ULL << 30)
#define MAX_FILES	64

struct request {
	const char *qmp;
	const char *files[MAX_FILES];	/* PATH or BLOCK=PATH */
	int n_files;
	bool json, memmap;
	char **arguments;
	struct kvmfr_memory *memory;
};

static uint64_t number(const char *s)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(s, &end, strncmp(s, "0x", 2) ? 10 : 16);
	if (*s < '0' || *s > '9' || *end || errno)
		misuse("memory: '%s' is not a number, for example 4096 or 0x100000", s);
	return value;
}

static void attach(struct request *r, const char *argument, bool write)
{
	const char *file = argument, *equals = strchr(argument, '=');
	char *block = NULL;
	int err;

	/* A path can have a "=", too: what exists as a whole is a path. */
	if (equals && access(argument, F_OK)) {
		block = text("%.*s", (int)(equals - argument), argument);
		file = equals + 1;
	}
	err = kvmfr_memory_attach(r->memory, block, file,
				  write ? KVMFR_MEMORY_WRITE : 0);
	if (err == -ENOENT && !access(file, F_OK))
		fail("%s: the guest has no RAM block '%s'; 'kvmfrctl memory map' lists them",
		     file, block);
	if (err == -ERANGE)
		fail("%s: smaller than the RAM block; is it this guest's memory?", file);
	if (err == -ENODEV)
		fail("%s: neither a regular file nor a kvmfr device", file);
	if (err == -EEXIST)
		fail("%s: the RAM block has a file already", file);
	if (err)
		fail("%s: %s", file, strerror(-err));
}

static void attach_all(struct request *r, bool write)
{
	if (!r->n_files)
		misuse("memory: wants '--file PATH', the file or device that is the guest's RAM");
	for (int i = 0; i < r->n_files; i++)
		attach(r, r->files[i], write);
}

/* The memory at an address, or a message that says what is there instead. */
static char *at(const struct request *r, uint64_t address, uint64_t *reach)
{
	struct kvmfr_memory_range range;
	void *pointer;
	int err = kvmfr_memory_at(r->memory, address, &pointer, reach);

	if (!err)
		return pointer;
	kvmfr_memory_range(r->memory, address, &range);
	fail("0x%" PRIx64 ": %s: 0x%" PRIx64 "-0x%" PRIx64 " is %s%s", address,
	     strerror(-err), range.address, range.address + range.size - 1,
	     range.block ?: "no memory of the guest",
	     range.block ? ", for which no --file was given" : "");
}

/* All of it is memory, so that nothing is half done. */
static void check(const struct request *r, uint64_t address, uint64_t length)
{
	uint64_t reach;

	if (length && address + (length - 1) < address)
		misuse("memory: 0x%" PRIx64 " bytes from 0x%" PRIx64 " on are more than there are addresses",
		       length, address);
	for (; length; address += reach, length -= reach) {
		at(r, address, &reach);
		if (reach > length)
			reach = length;
	}
}

static void map_json(const struct kvmfr_memory_range *ranges, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "address",
				       json_object_new_uint64(ranges[i].address));
		json_object_object_add(o, "size",
				       json_object_new_uint64(ranges[i].size));
		json_object_object_add(o, "offset",
				       json_object_new_uint64(ranges[i].offset));
		json_object_object_add(o, "block",
				       json_object_new_string(ranges[i].block));
		json_object_object_add(o, "rom",
				       json_object_new_boolean(ranges[i].rom));
		json_object_array_add(array, o);
	}
	puts(json_object_to_json_string_ext(array, JSON_C_TO_STRING_PRETTY));
	json_object_put(array);
}

/* The block that is in one file with the guest's first RAM. */
static void map_memmap(const struct kvmfr_memory_range *ranges, size_t n)
{
	const char *block = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!block && !ranges[i].rom)
			block = ranges[i].block;
		if (block && !strcmp(ranges[i].block, block))
			printf("%" PRIx64 " %" PRIx64 " %" PRIx64 "\n",
			       ranges[i].address,
			       ranges[i].address + ranges[i].size - 1,
			       ranges[i].offset);
	}
}

static int memory_map(struct request *r)
{
	const struct kvmfr_memory_range *ranges;
	size_t n = kvmfr_memory_ranges(r->memory, &ranges);

	if (r->json)
		map_json(ranges, n);
	else if (r->memmap)
		map_memmap(ranges, n);
	else
		for (size_t i = 0; i < n; i++)
			printf("%016" PRIx64 "-%016" PRIx64 "  %016" PRIx64 "  %s  %s\n",
			       ranges[i].address,
			       ranges[i].address + ranges[i].size - 1,
			       ranges[i].offset, ranges[i].rom ? "rom" : "ram",
			       ranges[i].block);
	return 0;
}

static int memory_read(struct request *r)
{
	uint64_t address = number(r->arguments[0]), length = number(r->arguments[1]);
	uint64_t reach;

	attach_all(r, false);
	check(r, address, length);
	for (; length; address += reach, length -= reach) {
		const char *data = at(r, address, &reach);

		if (reach > length)
			reach = length;
		if (fwrite(data, 1, reach, stdout) != reach)
			fail("cannot write the output: %s", strerror(errno));
	}
	return 0;
}

static char *standard_input(uint64_t *length)
{
	uint64_t room = 1 << 16;
	char *data = NULL;
	size_t n;

	*length = 0;
	do {
		room *= 2;
		data = realloc(data, room);
		if (!data)
			fail("out of memory");
		n = fread(data + *length, 1, room - *length, stdin);
		*length += n;
	} while (*length == room && room <= WRITE_MAX);
	if (ferror(stdin))
		fail("standard input: %s", strerror(errno));
	if (*length > WRITE_MAX)
		fail("standard input: more than %s", mebibytes(WRITE_MAX));
	return data;
}

static int memory_write(struct request *r)
{
	uint64_t address = number(r->arguments[0]), length, reach;
	char *data;

	attach_all(r, true);
	data = standard_input(&length);
	check(r, address, length);
	for (; length; address += reach, length -= reach, data += reach) {
		char *to = at(r, address, &reach);

		if (reach > length)
			reach = length;
		memcpy(to, data, reach);
	}
	return 0;
}

/* Text, or bytes as 0x and an even number of hexadecimal digits. */
static char *pattern_bytes(const char *s, size_t *length)
{
	size_t digits = strlen(s) - 2;
	char *bytes;

	*length = strlen(s);
	if (!*length)
		misuse("memory: search wants a pattern that is not empty");
	if (strncmp(s, "0x", 2))
		return text("%s", s);
	if (!digits || digits % 2 || strspn(s + 2, "0123456789abcdefABCDEF") != digits)
		misuse("memory: '%s' is not an even number of hexadecimal digits after 0x", s);
	*length = digits / 2;
	bytes = text("%s", s);
	for (size_t i = 0; i < *length; i++)
		sscanf(s + 2 + 2 * i, "%2hhx", (unsigned char *)&bytes[i]);
	return bytes;
}

/* A match that begins from @from on up to before @end. */
static bool search_part(const struct request *r, uint64_t from, uint64_t end,
			const char *pattern, size_t length)
{
	uint64_t reach;
	const char *data, *base, *hit;
	bool found = false;

	base = at(r, from, &reach);
	if (reach > end - from + length - 1)
		reach = end - from + length - 1;
	for (data = base; (hit = memmem(data, base + reach - data, pattern, length));
	     data = hit + 1) {
		printf("0x%" PRIx64 "\n", from + (hit - base));
		found = true;
	}
	return found;
}

static int memory_search(struct request *r)
{
	struct kvmfr_memory_range range;
	uint64_t from = 0, next, done = 0, size, next_size;
	bool found = false, more;
	size_t length;
	char *pattern = pattern_bytes(r->arguments[0], &length);

	if (!*pattern && !memcmp(pattern, pattern + 1, length - 1))
		misuse("memory: search wants a pattern with a byte that is not 0");
	attach_all(r, false);
	/*
	 * A match can begin or end with zeros in a part of the file without memory.
	 * Reading that gives it memory, so the next part is looked up before.
	 */
	more = kvmfr_memory_data(r->memory, &from, &size) == 1;
	for (; more; from = next, size = next_size) {
		uint64_t begin = from > length - 1 ? from - (length - 1) : 0;

		next = from + size;
		more = kvmfr_memory_data(r->memory, &next, &next_size) == 1;
		kvmfr_memory_range(r->memory, from, &range);
		if (begin < range.address)
			begin = range.address;
		if (begin < done)
			begin = done;
		done = from + size;
		found |= search_part(r, begin, done, pattern, length);
	}
	return !found;
}

static void put(int fd, const char *file, const void *data, size_t size, off_t at)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, at);

		if (n < 0)
			fail("%s: %s", file, strerror(errno));
		data = (const char *)data + n;
		size -= n;
		at += n;
	}
}

/* Pages with something in them, where they belong in the core. */
static void core_pages(int fd, const char *file, const char *data, uint64_t size,
		       off_t at)
{
	static const char zeros[PAGE];

	for (uint64_t done = 0, n; done < size; done += n) {
		bool zero;

		n = size - done < PAGE ? size - done : PAGE;
		zero = !memcmp(data + done, zeros, n);
		while (!zero && done + n < size && n < MIB) {
			uint64_t more = size - done - n < PAGE ? size - done - n : PAGE;

			if (!memcmp(data + done + n, zeros, more))
				break;
			n += more;
		}
		if (!zero)
			put(fd, file, data + done, n, at + done);
	}
}

/* The header of a range, if it is memory that has a file. */
static bool core_segment(const struct request *r,
			 const struct kvmfr_memory_range *range, uint64_t offset,
			 Elf64_Phdr *segment)
{
	uint64_t reach;
	void *data;

	if (kvmfr_memory_at(r->memory, range->address, &data, &reach))
		return false;
	*segment = (Elf64_Phdr) {
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X | (range->rom ? 0 : PF_W),
		.p_offset = offset,
		.p_paddr = range->address,
		.p_filesz = range->size,
		.p_memsz = range->size,
	};
	return true;
}

/* Fills the headers; returns the size of the file. */
static uint64_t core_headers(const struct request *r, Elf64_Ehdr *elf,
			     Elf64_Phdr **segments)
{
	const struct kvmfr_memory_range *ranges;
	size_t n = kvmfr_memory_ranges(r->memory, &ranges);
	uint64_t offset = sizeof(*elf) + n * sizeof(**segments);

	*elf = (Elf64_Ehdr) {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
			     ELFDATA2LSB, EV_CURRENT },
		.e_type = ET_CORE,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_phoff = sizeof(*elf),
		.e_ehsize = sizeof(*elf),
		.e_phentsize = sizeof(**segments),
	};
	*segments = calloc(n, sizeof(**segments));
	if (!*segments)
		fail("out of memory");
	offset = (offset + PAGE - 1) / PAGE * PAGE;
	for (size_t i = 0; i < n; i++)
		if (core_segment(r, &ranges[i], offset, &(*segments)[elf->e_phnum])) {
			elf->e_phnum++;
			offset += (ranges[i].size + PAGE - 1) / PAGE * PAGE;
		}
	return offset;
}

static int memory_core(struct request *r)
{
	const char *file = r->arguments[0];
	uint64_t from = 0, size, end, reach;
	Elf64_Phdr *segments;
	Elf64_Ehdr elf;
	int fd, i = 0;

	attach_all(r, false);
	end = core_headers(r, &elf, &segments);
	/* Not for everybody: it is all that the guest knows. */
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, end))
		fail("%s: %s", file, strerror(errno));
	put(fd, file, &elf, sizeof(elf), 0);
	put(fd, file, segments, elf.e_phnum * sizeof(*segments), sizeof(elf));

	for (; kvmfr_memory_data(r->memory, &from, &size); from += size) {
		while (from - segments[i].p_paddr >= segments[i].p_memsz)
			i++;
		core_pages(fd, file, at(r, from, &reach), size,
			   segments[i].p_offset + (from - segments[i].p_paddr));
	}
	if (close(fd))
		fail("%s: %s", file, strerror(errno));
	return 0;
}

static const struct {
	const char *name;
	int arguments;
	int (*run)(struct request *r);
} actions[] = {
	{ "map", 0, memory_map },
	{ "read", 2, memory_read },
	{ "write", 1, memory_write },
	{ "search", 1, memory_search },
	{ "core", 1, memory_core },
};

static void connect_qmp(struct request *r)
{
	int err;

	if (!r->qmp)
		misuse("memory: wants '--qmp SOCKET', of a QEMU with -qmp unix:SOCKET,server=on,wait=off");
	err = kvmfr_memory_from_qmp(r->qmp, &r->memory);
	if (err == -ETIMEDOUT)
		fail("%s: no answer; is another program connected to it?", r->qmp);
	if (err == -EPROTO)
		fail("%s: what answers is not a QEMU with a memory map", r->qmp);
	if (err)
		fail("%s: %s", r->qmp, strerror(-err));
}

static int run_action(struct request *r, int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (!argc || strcmp(argv[0], actions[i].name))
			continue;
		if (argc - 1 != actions[i].arguments)
			misuse("memory: '%s' wants %d arguments, see kvmfrctl(8)",
			       argv[0], actions[i].arguments);
		r->arguments = argv + 1;
		connect_qmp(r);
		return actions[i].run(r);
	}
	misuse("memory: wants map, read, write, search or core");
}

int cmd_memory(int argc, char **argv)
{
	static const struct option options[] = {
		{ "qmp", required_argument, NULL, 'q' },
		{ "file", required_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },
		{ "memmap", no_argument, NULL, 'm' },
		{ }
	};
	struct request r = { };
	int c, status;

	while ((c = option_next(argc, argv, options)) != -1) {
		if (c == 'q')
			r.qmp = optarg;
		else if (c == 'j')
			r.json = true;
		else if (c == 'm')
			r.memmap = true;
		else if (r.n_files == MAX_FILES)
			misuse("memory: more than %d files", MAX_FILES);
		else
			r.files[r.n_files++] = optarg;
	}
	status = run_action(&r, argc - optind, argv + optind);
	kvmfr_memory_close(r.memory);
	return status;
}
