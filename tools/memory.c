// SPDX-License-Identifier: GPL-2.0
/* kvmfrctl memory: a guest's physical memory, through libkvmfr. */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITE_MAX	(1ULL << 30)

struct action {
	const char *name;
	const char *arguments;	/* their names, each with a space before */
	int n_arguments;
	int (*run)(struct request *r);
	bool whole;		/* looks at all of the memory */
	bool write;
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

	/* A path can contain "=", too: if the whole argument exists, it is a path. */
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

/* "; HOW BLOCK, BLOCK": the RAM blocks that are reached in this way, or "". */
static char *blocks(const struct request *r, enum kvmfr_memory_way way, const char *how)
{
	const struct kvmfr_memory_range *ranges;
	size_t k, n = kvmfr_memory_ranges(r->memory, &ranges);
	char *list = text("%s", "");

	for (size_t i = 0; i < n; i++) {
		for (k = 0; strcmp(ranges[k].block, ranges[i].block); k++)
			;
		if (k == i && !ranges[i].rom &&
		    kvmfr_memory_way(r->memory, ranges[i].block) == way)
			list = *list ? text("%s, %s", list, ranges[i].block) :
				       text("; %s %s", how, ranges[i].block);
	}
	return list;
}

/* Attaches a process and says how each block is reached; or fails and says why. */
static void attach_process(struct request *r, bool write)
{
	int err = kvmfr_memory_attach_process(r->memory, r->pid,
					      write ? KVMFR_MEMORY_WRITE : 0);
	pid_t pid = r->pid ?: kvmfr_memory_process(r->memory);

	if (err == -ESRCH)
		fail("process %d: there is none, or it ended", pid);
	if (err == -EACCES)
		fail("process %d: not permitted to look at it: %s", pid, guest_permission(pid));
	if (err == -EPERM)
		fail("process %d: its memory is private and has to be copied with process_vm_readv(), which is not permitted: %s; memory that QEMU shares (share=on) is mapped",
		     pid, guest_permission(pid));
	if (err == -EEXIST || err == -ENOENT)
		fail("process %d has %s of the size of the guest's RAM; '--qmp' tells where it is",
		     pid, err == -EEXIST ? "several mappings" : "no mapping");
	if (err)
		fail("process %d: %s", pid, strerror(-err));
	warn("process %d%s%s%s", pid, blocks(r, KVMFR_MEMORY_SHARED, "mapped"),
	     blocks(r, KVMFR_MEMORY_COPIED, "copied with process_vm_readv()"),
	     blocks(r, KVMFR_MEMORY_NONE, "out of reach"));
}

static void attach_all(struct request *r, const struct action *action)
{
	const char *missing;

	for (int i = 0; i < r->n_files; i++)
		attach(r, r->files[i], action->write);
	if (r->n_files) {
		missing = blocks(r, KVMFR_MEMORY_NONE, "");
		if (action->whole && *missing)
			warn("the %s leaves out RAM for which no --file was given:%s",
			     action->name, missing + strlen("; "));
		return;
	}
	if (!r->pid && !r->qmp)
		misuse("memory: wants '--file PATH', the file or device that is the guest's RAM, or '--pid PID' of its QEMU");
	attach_process(r, action->write);
}

/* The attached range at an address. Calls fail() if there is none. */
static void range_at(const struct request *r, uint64_t address,
		     struct kvmfr_memory_range *range)
{
	int err = kvmfr_memory_range(r->memory, address, range);

	if (!err && kvmfr_memory_way(r->memory, range->block) == KVMFR_MEMORY_NONE)
		err = -ENXIO;
	if (err)
		fail("0x%" PRIx64 ": %s: 0x%" PRIx64 "-0x%" PRIx64 " is %s%s", address,
		     strerror(-err), range->address, range->address + range->size - 1,
		     range->block ?: "no memory of the guest", !range->block ? "" :
		     r->n_files ? ", for which no --file was given" :
		     ", which is out of reach in QEMU's process");
}

/* Calls fail() unless all of it is attached, so that nothing is half done. */
static void check(const struct request *r, uint64_t address, uint64_t length)
{
	struct kvmfr_memory_range range;
	uint64_t reach;

	if (length && address + (length - 1) < address)
		misuse("memory: 0x%" PRIx64 " bytes from 0x%" PRIx64 " on are more than there are addresses",
		       length, address);
	for (; length; address += reach, length -= reach) {
		range_at(r, address, &range);
		reach = range.size - (address - range.address);
		if (reach > length)
			reach = length;
	}
}

/* Calls fail() for a copy that failed although the memory is attached. */
static void copy_failed(const struct request *r, uint64_t address, int err)
{
	if (err == -ESRCH)
		fail("0x%" PRIx64 ": QEMU ended", address);
	if (err == -ESTALE)
		fail("0x%" PRIx64 ": QEMU has no memory there any more; was it unplugged?", address);
	if (err == -EACCES)
		fail("0x%" PRIx64 ": ROM, or memory that QEMU may not write to", address);
	if (err == -EPERM)
		fail("0x%" PRIx64 ": not permitted any more: %s", address,
		     guest_permission(r->pid));
	fail("0x%" PRIx64 ": %s", address, strerror(-err));
}

const char *memory_bytes(const struct request *r, uint64_t address, uint64_t max,
			 uint64_t *size)
{
	static char copy[MEMORY_STEP];
	struct kvmfr_memory_range range;
	void *pointer;
	int err;

	range_at(r, address, &range);
	*size = range.size - (address - range.address);
	if (*size > max)
		*size = max;
	if (*size > MEMORY_STEP)
		*size = MEMORY_STEP;
	if (!kvmfr_memory_at(r->memory, address, &pointer, &max))
		return pointer;
	err = kvmfr_memory_read(r->memory, address, copy, *size);
	if (err)
		copy_failed(r, address, err);
	return copy;
}

uint64_t memory_below(const struct request *r, uint64_t address)
{
	const struct kvmfr_memory_range *ranges;
	size_t n = kvmfr_memory_ranges(r->memory, &ranges);
	uint64_t sum = 0;

	for (size_t i = 0; i < n && ranges[i].address < address; i++) {
		uint64_t part = address - ranges[i].address;

		if (kvmfr_memory_way(r->memory, ranges[i].block) != KVMFR_MEMORY_NONE)
			sum += part < ranges[i].size ? part : ranges[i].size;
	}
	return sum;
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

/* Prints the ranges of the block with the guest's first RAM, as LeechCore reads them. */
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
	uint64_t done, n;

	check(r, address, length);
	for (done = 0; done < length; done += n) {
		const char *data = memory_bytes(r, address + done, length - done, &n);

		if (fwrite(data, 1, n, stdout) != n)
			fail("cannot write the output: %s", errno == EFAULT ? MEMORY_GONE :
			     strerror(errno));
		progress("read", done + n, length);
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
	uint64_t address = number(r->arguments[0]), length;
	char *data = standard_input(&length);
	int err;

	check(r, address, length);
	err = kvmfr_memory_write(r->memory, address, data, length);
	if (err)
		copy_failed(r, address, err);
	return 0;
}

static const struct action actions[] = {
	{ "map", "", 0, memory_map, false, false },
	{ "read", " ADDRESS LENGTH", 2, memory_read, false, false },
	{ "write", " ADDRESS", 1, memory_write, false, true },
	{ "search", " PATTERN", 1, memory_search, true, false },
	{ "core", " FILE", 1, memory_core, true, false },
};

static void map_from_qmp(struct request *r)
{
	int err = kvmfr_memory_from_qmp(r->qmp, &r->memory);

	if (err == -ETIMEDOUT)
		fail("%s: no answer; is another program connected to it?", r->qmp);
	if (err == -EPROTO)
		fail("%s: what answers is not a QEMU with a memory map", r->qmp);
	if (err == -ENOENT || err == -ECONNREFUSED)
		fail("%s: %s; a QEMU that runs with '-qmp unix:SOCKET,server=on,wait=off' has a socket there",
		     *r->qmp ? r->qmp : "--qmp ''", err == -ENOENT ? strerror(ENOENT) :
		     "nothing listens, or it is no socket");
	if (err == -ENAMETOOLONG)
		fail("%s: a socket's path has at most 107 bytes; name it from a directory nearer to it",
		     r->qmp);
	if (err)
		fail("%s: %s", r->qmp, strerror(-err));
}

/* The size of a file or device. */
static uint64_t file_bytes(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	struct stat st;

	if (size < 0 || fstat(fd, &st))
		fail("%s: %s", file, strerror(errno));
	if (!size || S_ISDIR(st.st_mode))
		fail("%s: has no size to take for that of the RAM; '--size' says it", file);
	close(fd);
	return size;
}

static void map_from_machine(struct request *r)
{
	const char *machine = r->machine;
	uint64_t size = 0;
	int err;

	if (r->pid && !(machine && r->size))
		guest_machine(r->pid, &machine, &size);
	machine = r->machine ?: machine;
	if (r->size)
		size = guest_size(r->size, MIB);
	else if (!size && r->n_files == 1)
		size = file_bytes(r->files[0]);
	if (!machine || !size)
		misuse("memory: wants '--qmp SOCKET', of a QEMU with -qmp unix:SOCKET,server=on,wait=off, or '--pid PID', or '--machine pc|q35' and '--size SIZE'");
	err = kvmfr_memory_from_machine(machine, size, &r->memory);
	if (err == -ENOENT)
		fail("the memory map of machine '%s' is not known, only those of pc and q35; '--qmp' asks QEMU",
		     machine);
	if (err == -EINVAL)
		fail("the memory map for %s of RAM is not known; '--qmp' asks QEMU", mebibytes(size));
	if (err)
		fail("%s", strerror(-err));
}

/* The result is good only if the guest and its map stayed the same meanwhile. */
static void finish(const struct request *r, const char *action)
{
	int result = kvmfr_memory_check(r->memory);

	if (result == -EOPNOTSUPP || !result)
		return;
	if (result == KVMFR_MEMORY_GONE)
		fail(MEMORY_GONE);
	if (result == -ECONNRESET)
		fail("QEMU ended during the %s", action);
	if (result < 0)
		fail("QEMU does not answer any more: %s", strerror(-result));
	fail("%s during the %s, so the result is partly from before and partly from after",
	     result & KVMFR_MEMORY_RESET ? "the guest was reset" :
	     "the guest's memory map changed", action);
}

/* SIGBUS: the file was truncated, or no huge page is left for this page. */
static void no_page(int signal)
{
	static const char message[] = "kvmfrctl: " MEMORY_GONE "\n";

	(void)signal;
	if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
		_exit(2);
	_exit(1);
}

static int run_action(struct request *r, const struct action *action)
{
	int status;

	if (r->name)
		r->pid = guest_named(r->name);
	if (r->qmp)
		map_from_qmp(r);
	else
		map_from_machine(r);
	if (action->run == memory_map)
		return memory_map(r);

	signal(SIGBUS, no_page);
	attach_all(r, action);
	/* So that matches are printed between two steps of the progress. */
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	status = action->run(r);
	progress_clear();
	if (fflush(stdout))
		fail("cannot write the output: %s", strerror(errno));
	finish(r, action->name);
	return status;
}

static const struct action *action_named(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
		if (!argc || strcmp(argv[0], actions[i].name))
			continue;
		if (argc - 1 != actions[i].n_arguments)
			misuse("memory: expected '%s%s' and options, see kvmfrctl(8)",
			       argv[0], actions[i].arguments);
		return &actions[i];
	}
	misuse("memory: wants map, read, write, search or core");
}

/* Options that contradict each other, or would do nothing. */
static void check_options(const struct request *r, const struct action *action)
{
	if (r->json && r->memmap)
		misuse("memory: either --json or --memmap");
	if ((r->json || r->memmap) && action->run != memory_map)
		misuse("memory: --json and --memmap go with map only");
	if (r->qmp && (r->machine || r->size))
		misuse("memory: --machine and --size say what QEMU says with --qmp: one of both");
	if (r->name && r->pid)
		misuse("memory: either --name or --pid");
}

int cmd_memory(int argc, char **argv)
{
	static const struct option options[] = {
		{ "qmp", required_argument, NULL, 'q' },
		{ "file", required_argument, NULL, 'f' },
		{ "pid", required_argument, NULL, 'p' },
		{ "name", required_argument, NULL, 'n' },
		{ "machine", required_argument, NULL, 'M' },
		{ "size", required_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "memmap", no_argument, NULL, 'm' },
		{ }
	};
	const struct action *action;
	struct request r = { };
	int c, status;

	while ((c = option_next(argc, argv, options)) != -1) {
		switch (c) {
		case 'q':
			r.qmp = optarg;
			break;
		case 'p':
			if (number(optarg) - 1 >= INT_MAX)
				misuse("memory: '%s' is not the number of a process", optarg);
			r.pid = number(optarg);
			break;
		case 'n':
			r.name = optarg;
			break;
		case 'M':
			r.machine = optarg;
			break;
		case 's':
			r.size = optarg;
			break;
		case 'j':
			r.json = true;
			break;
		case 'm':
			r.memmap = true;
			break;
		default:
			if (r.n_files == MAX_FILES)
				misuse("memory: more than %d files", MAX_FILES);
			r.files[r.n_files++] = optarg;
		}
	}
	r.arguments = argv + optind + 1;
	action = action_named(argc - optind, argv + optind);
	check_options(&r, action);
	status = run_action(&r, action);
	kvmfr_memory_close(r.memory);
	return status;
}
