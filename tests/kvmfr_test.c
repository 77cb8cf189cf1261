// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

#include "kvmfr_test.h"

#define CLASS "/sys/class/kvmfr"

size_t page_size, pmd_size;
struct kvmfr_dev dev;
char log_last[1024];

unsigned int how_often(const char *name, unsigned int otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

bool read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, text, size - 1);
	close(fd);
	if (got < 0)
		return false;
	text[got] = 0;
	text[strcspn(text, "\n")] = 0;
	return true;
}

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		error = errno;
	close(fd);
	return error;
}

static uint64_t read_number(const char *path)
{
	char text[64];

	return read_file(path, text, sizeof(text)) ? strtoull(text, NULL, 0) : 0;
}

__attribute__((constructor)) static void learn_sizes(void)
{
	page_size = sysconf(_SC_PAGESIZE);
	pmd_size = read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
	if (!pmd_size)	/* no huge pages in this kernel: a table of 8-byte entries fills a page */
		pmd_size = page_size / 8 * page_size;
}

/* --- the module --- */

bool module_loaded(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	return !access(path, F_OK);
}

long module_refs(const char *name)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	return read_file(path, text, sizeof(text)) ? atol(text) : -1;
}

int module_load(const char *name, const char *parameters)
{
	const char *file = getenv(strcmp(name, "kvmfr") ? "KVMFR_IMPORTER_KO" : "KVMFR_KO");
	int fd = open(file ? file : "", O_RDONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, parameters, 0))
		error = errno;
	close(fd);
	return error;
}

int module_unload(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

unsigned int default_mb(void)
{
	return pmd_size * 4 < 32 << 20 ? 32 : pmd_size * 4 >> 20;
}

void load_kvmfr(const char *fmt, ...)
{
	char parameters[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(parameters, sizeof(parameters), fmt, ap);
	va_end(ap);
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	ASSERT_EQ(0, module_load("kvmfr", parameters));
}

void need_kvmfr(void)
{
	char want[64], have[256];

	snprintf(want, sizeof(want), "%u,1", default_mb());
	if (!read_file("/sys/module/kvmfr/parameters/static_size_mb", have, sizeof(have)) ||
	    strcmp(want, have))
		load_kvmfr("static_size_mb=%s", want);
}

void unload_and_check(void)
{
	if (module_loaded("kvmfr_importer"))
		EXPECT_EQ(0, module_unload("kvmfr_importer"));
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	EXPECT_ERRNO(ENOENT, access(CLASS, F_OK));
	EXPECT_ERRNO(ENOENT, access("/dev/kvmfr0", F_OK));
}

/* --- devices --- */

bool dev_read(struct kvmfr_dev *d, const char *name)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t length;

	memset(d, 0, sizeof(*d));
	d->fd = -1;
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(path, sizeof(path), CLASS "/%s/type", name);
	if (!read_file(path, d->type, sizeof(d->type)))
		return false;
	snprintf(path, sizeof(path), CLASS "/%s/size", name);
	d->size = read_number(path);
	snprintf(path, sizeof(path), CLASS "/%s/huge_bytes", name);
	d->huge_bytes = read_number(path);
	d->paged = true;
	snprintf(path, sizeof(path), CLASS "/%s/device", name);
	length = readlink(path, target, sizeof(target) - 1);
	if (length > 0) {
		uint64_t bar = 0;
		char line[256];
		FILE *file;

		target[length] = 0;
		snprintf(d->slot, sizeof(d->slot), "%s", strrchr(target, '/') + 1);
		snprintf(path, sizeof(path), CLASS "/%s/device/resource", name);
		file = fopen(path, "r");
		for (int i = 0; file && i <= 2 && fgets(line, sizeof(line), file); i++)
			bar = strtoull(line, NULL, 0);
		if (file)
			fclose(file);
		d->paged = d->size >= 2 << 20 && !(bar >> 46);
	}
	return true;
}

static bool is_kind(const struct kvmfr_dev *d, const char *kind)
{
	if (strcmp(d->type, "pci"))
		return !strcmp(d->type, kind);
	return !strcmp(kind, d->paged ? "pci" : "pfn");
}

/*
 * The first of the static devices, the smallest of the others: a number says nothing after a
 * rebind.
 */
bool dev_find(struct kvmfr_dev *d, const char *kind)
{
	struct kvmfr_dev found;
	char name[32];

	d->size = 0;
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		if (!dev_read(&found, name) || !is_kind(&found, kind))
			continue;
		if (!d->size || (found.slot[0] && found.size < d->size))
			*d = found;
	}
	return d->size;
}

unsigned int dev_count(void)
{
	unsigned int n = 0;
	struct dirent *entry;
	DIR *dir = opendir(CLASS);

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static bool dev_at(struct kvmfr_dev *d, const char *slot)
{
	char name[32], path[64];

	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		snprintf(path, sizeof(path), "/dev/%s", name);
		if (dev_read(d, name) && !strcmp(d->slot, slot) && !access(path, F_OK))
			return true;
	}
	return false;
}

int dev_find_doorbell(struct kvmfr_dev *dev, int from)
{
	char path[64];

	for (int i = from; i < 64; i++) {
		snprintf(path, sizeof(path), "/sys/class/kvmfr/kvmfr%d/peer_id", i);
		if (access(path, F_OK))
			continue;
		snprintf(path, sizeof(path), "kvmfr%d", i);
		return dev_read(dev, path) ? i : -1;
	}
	return -1;
}

bool dev_wait(struct kvmfr_dev *d, const char *slot)
{
	return WAIT_FOR(dev_at(d, slot));
}

int dev_open(const struct kvmfr_dev *d, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", d->name);
	if (!WAIT_FOR(!access(path, F_OK)))
		FAIL("%s does not appear", path);
	return open(path, flags | O_CLOEXEC);
}

static void device_setup(const char *kind)
{
	need_kvmfr();
	if (!dev_find(&dev, kind)) {
		if (!strcmp(kind, "static"))
			FAIL("no static device, though the module is loaded with sizes");
		SKIP("this machine has no IVSHMEM device %s", !strcmp(kind, "pci") ?
		     "of 2 MiB or more" : "too small or too high for struct pages");
	}
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
}

static const char *const kinds[] = { "static", "pci", "pfn", NULL };
static const char *const paged_kinds[] = { "static", "pci", NULL };
static const char *const static_kind[] = { "static", NULL };
const struct ktap_fixture any_device = { .variants = kinds, .setup = device_setup };
const struct ktap_fixture static_device = { .variants = static_kind, .setup = device_setup };
const struct ktap_fixture pci_device = { .variants = kinds + 1, .setup = device_setup };
const struct ktap_fixture paged_device = { .variants = paged_kinds, .setup = device_setup };

/* --- mappings --- */

char *reserve(size_t length, size_t misalign)
{
	char *base = mmap(NULL, length + misalign + pmd_size, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ASSERT_OK(base);
	return (char *)(((uintptr_t)base + pmd_size - 1) / pmd_size * pmd_size) + misalign;
}

void *map(int fd, uint64_t offset, size_t length, int prot)
{
	void *base = mmap(NULL, length, prot, MAP_SHARED, fd, offset);

	ASSERT_OK(base);
	return base;
}

void *map_at(int fd, uint64_t offset, size_t length, int prot, size_t misalign)
{
	void *base = mmap(reserve(length, misalign), length, prot, MAP_SHARED | MAP_FIXED,
			  fd, offset);

	ASSERT_OK(base);
	return base;
}

void *move(void *address, size_t length, size_t misalign)
{
	address = mremap(address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
			 reserve(length, misalign));
	ASSERT_OK(address);
	return address;
}

uint64_t word(const volatile void *address)
{
	return *(const volatile uint64_t *)address;
}

void set_word(volatile void *address, uint64_t value)
{
	*(volatile uint64_t *)address = value;
}

uint64_t stamp_of(uint64_t offset)
{
	return (offset / page_size + 1) * 0x9e3779b97f4a7c15;
}

uint64_t place_of(uint64_t stamp)
{
	return (stamp * 0xf1de83e19937733d - 1) * page_size;	/* the inverse of that factor */
}

void stamp(void *base, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i += page_size)
		set_word((char *)base + i, stamp_of(offset + i));
}

long unstamped(const void *base, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i += page_size)
		if (word((const char *)base + i) != stamp_of(offset + i))
			return i / page_size;
	return -1;
}

unsigned long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

unsigned long smaps_kb(const void *address, const char *field)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long kb = 0;
	bool inside = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (unsigned long)address && (unsigned long)address < end;
		else if (inside && !strncmp(line, field, strlen(field)) &&
			 line[strlen(field)] == ':')
			kb = strtoul(line + strlen(field) + 1, NULL, 10);
	}
	if (file)
		fclose(file);
	return kb;
}

/* --- DMA-BUFs --- */

int dmabuf_try(int fd, unsigned int flags, uint64_t offset, uint64_t size)
{
	struct kvmfr_dmabuf_create create;

	memset(&create, 0xa5, sizeof(create));	/* padding must not matter */
	create.flags = flags;
	create.offset = offset;
	create.size = size;
	return ioctl(fd, KVMFR_DMABUF_CREATE, &create);
}

int dmabuf(int fd, uint64_t offset, uint64_t size)
{
	int buf = dmabuf_try(fd, KVMFR_DMABUF_FLAG_CLOEXEC, offset, size);

	ASSERT_OK(buf);
	return buf;
}

int importer(void)
{
	const char *file = getenv("KVMFR_IMPORTER_KO");
	int imp;

	if (!module_loaded("kvmfr_importer")) {
		if (!file || access(file, R_OK))
			SKIP("no importer module in this machine (KVMFR_IMPORTER_KO)");
		ASSERT_EQ(0, module_load("kvmfr_importer", ""));
	}
	WAIT_FOR(!access("/dev/kvmfr_importer", F_OK));
	imp = open("/dev/kvmfr_importer", O_RDWR | O_CLOEXEC);
	ASSERT_OK(imp);
	return imp;
}

int import(int imp, int buf, uint32_t max_segment)
{
	struct kvmfr_importer_attach attach = { .fd = buf, .max_segment = max_segment };

	return ioctl(imp, KVMFR_IMPORTER_ATTACH, &attach) ? errno : 0;
}

int import_revocable(int imp, int buf)
{
	struct kvmfr_importer_attach attach = { .fd = buf, .revocable = 1 };

	return ioctl(imp, KVMFR_IMPORTER_ATTACH, &attach) ? errno : 0;
}

int import_map(int imp, uint32_t direction, struct kvmfr_importer_map *result)
{
	struct kvmfr_importer_map unused;

	if (!result)
		result = &unused;
	memset(result, 0xa5, sizeof(*result));
	result->direction = direction;
	return ioctl(imp, KVMFR_IMPORTER_MAP, result) ? errno : 0;
}

int import_io(int imp, uint32_t via, bool write, uint64_t offset, void *buffer, size_t length)
{
	struct kvmfr_importer_io io = {
		.via = via, .write = write,
		.offset = offset, .length = length, .buffer = (uintptr_t)buffer,
	};

	return ioctl(imp, KVMFR_IMPORTER_IO, &io) ? errno : 0;
}

int import_pin(int imp, const void *address, size_t length)
{
	struct kvmfr_importer_pin pin = {
		.address = (uintptr_t)address, .pages = length / page_size,
	};

	return ioctl(imp, KVMFR_IMPORTER_PIN, &pin) ? errno : 0;
}

/* --- the kernel's log --- */

int log_mark(void)
{
	int mark = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	ASSERT_OK(mark);
	ASSERT_OK(lseek(mark, 0, SEEK_END));
	return mark;
}

int log_count(int mark, const char *has)
{
	char record[sizeof(log_last)];
	ssize_t got;
	int n = 0;

	/* EPIPE: records were overwritten before they were read; what is left comes next. */
	while ((got = read(mark, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		char *text;

		if (got <= 0)
			continue;
		record[got] = 0;
		text = strchr(record, ';');	/* "priority,number,time,flags;text" */
		if (!text || !strstr(text, has))
			continue;
		/* What the kernel says of every module from outside is not of this one's making. */
		if (strstr(text, "taints kernel") || strstr(text, "verification failed"))
			continue;
		text[strcspn(text, "\n")] = 0;
		snprintf(log_last, sizeof(log_last), "%s", text + 1);
		n++;
	}
	return n;
}

bool log_wait(int mark, const char *has)
{
	return WAIT_FOR(log_count(mark, has));
}

/* --- the machine --- */

uint64_t meminfo(const char *field)
{
	FILE *file = fopen("/proc/meminfo", "r");
	uint64_t bytes = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':')
			bytes = strtoull(line + strlen(field) + 1, NULL, 10) << 10;
	if (file)
		fclose(file);
	return bytes;
}

uint64_t free_memory(void)
{
	uint64_t pages = 0, n;
	char line[256];
	FILE *file;

	sync();
	write_file("/proc/sys/vm/drop_caches", "3");
	file = fopen("/proc/zoneinfo", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " nr_free_pages %" SCNu64, &n) == 1 ||
		    sscanf(line, " count: %" SCNu64, &n) == 1)
			pages += n;
	if (file)
		fclose(file);
	return pages * page_size;
}

bool kernel_is(unsigned int major, unsigned int minor)
{
	unsigned int have_major = 0, have_minor = 0;
	struct utsname uts;

	uname(&uts);
	sscanf(uts.release, "%u.%u", &have_major, &have_minor);
	return have_major > major || (have_major == major && have_minor >= minor);
}

void qmp(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if (*c == '\'')
			*c = '"';
	printf("# @qmp %s\n", text);
	fflush(stdout);
}

int pci_driver(const char *what, const char *slot)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/kvmfr/%s", what);
	return write_file(path, slot);
}

int join(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

char process_state(pid_t pid)
{
	char path[64], text[512], *end;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (!read_file(path, text, sizeof(text)))
		return 0;
	end = strrchr(text, ')');
	return end && end[1] ? end[2] : 0;
}
