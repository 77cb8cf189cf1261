// SPDX-License-Identifier: GPL-2.0
/*
 * The IVSHMEM device goes away and comes back. Afterwards nothing may reach its memory; what can't
 * be revoked is waited for.
 *
 * It goes by unbinding the driver, by removing the PCI device, and by being unplugged from the
 * machine. For the last, QMP_ID=ID tells what QEMU calls the device (behind root port rp-ID),
 * QMP_FILE=PATH where its memory is. ROUNDS=N tells how often importers come and go at the same
 * time (1000).
 */
#include <dirent.h>
#include <limits.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* --- ways to do it --- */

static const char *way;		/* unbind, remove, device_del */
static char slot_path[64];	/* of the PCI device in sysfs */
static int before;		/* the log before unplugging */

/*
 * Unplugs it from the machine. QEMU (7.2) fails an assertion when a memory backend is used by a
 * second device, and names are free again only some time after the guest has let go: so all names
 * are used once. The current one is in a file, since each test is a process of its own.
 */
#define ID_FILE "/tmp/unplug-id"

/* When the kernel has released the card, it ejects whatever is in the slot by then. */
static bool slot_is_empty(void)
{
	DIR *slots = opendir("/sys/bus/pci/slots");
	char path[PATH_MAX], text[32];
	struct dirent *entry;
	bool empty = true;

	while (slots && (entry = readdir(slots))) {
		snprintf(path, sizeof(path), "/sys/bus/pci/slots/%s/address", entry->d_name);
		if (!read_file(path, text, sizeof(text)) || strncmp(text, dev.slot, strlen(text)))
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/slots/%s/adapter", entry->d_name);
		empty = !read_file(path, text, sizeof(text)) || !strcmp(text, "0");
	}
	if (slots)
		closedir(slots);
	return empty;
}

static void qmp_del(void)
{
	char id[64];

	if (!read_file(ID_FILE, id, sizeof(id)))
		snprintf(id, sizeof(id), "%s", getenv("QMP_ID"));
	qmp("{'execute': 'device_del', 'arguments': {'id': '%s'}}", id);
	while (!access(slot_path, F_OK))
		usleep(2000);
	/* This takes the lock under which the slot is emptied: afterwards it is empty. */
	write_file("/sys/bus/pci/rescan", "1");
	while (!slot_is_empty())
		usleep(2000);
}

static void qmp_add(void)
{
	int fd = open(ID_FILE, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	static int times;
	char id[64];

	snprintf(id, sizeof(id), "shm-%d-%d", getpid(), times++);
	ASSERT_EQ(strlen(id), write(fd, id, strlen(id)));
	close(fd);
	qmp("{'execute': 'object-add', 'arguments': {'qom-type': 'memory-backend-file', "
	    "'id': '%s-mem', 'mem-path': '%s', 'size': %" PRIu64 ", 'share': true}}",
	    id, getenv("QMP_FILE"), dev.size);
	qmp("{'execute': 'device_add', 'arguments': {'driver': 'ivshmem-plain', "
	    "'id': '%s', 'memdev': '%s-mem', 'bus': 'rp-%s'}}", id, id, getenv("QMP_ID"));
}

/* Starts to unplug the device. The child ends when that is done. */
static pid_t start_unplug(void)
{
	char path[96];
	pid_t pid;

	before = log_mark();
	fflush(stdout);
	pid = fork();
	if (pid)
		return pid;
	syscall(SYS_close_range, 3, ~0U, 0);	/* or it would wait for itself */
	if (!strcmp(way, "unbind"))
		_exit(pci_driver("unbind", dev.slot));
	if (!strcmp(way, "remove")) {
		snprintf(path, sizeof(path), "%s/remove", slot_path);
		_exit(write_file(path, "1"));
	}
	qmp_del();
	_exit(0);
}

/* Nobody has to be waited for. */
static void unplug(void)
{
	pid_t pid = start_unplug();
	struct kvmfr_dev gone;
	bool ended;

	do {
		ended = process_state(pid) == 'Z';
		if (log_count(before, "waiting for"))
			FAIL("for whom? %s", log_last);
		usleep(1000);
	} while (!ended);
	ASSERT_EQ(0, join(pid));
	for (unsigned int i = 0; i < 64; i++) {
		char name[32];

		snprintf(name, sizeof(name), "kvmfr%u", i);
		EXPECT_TRUE(!dev_read(&gone, name) || strcmp(gone.slot, dev.slot));
	}
}

/* Brings it back; it may have got another number. */
static void plug_in(struct kvmfr_dev *back)
{
	if (!strcmp(way, "unbind")) {
		ASSERT_EQ(0, pci_driver("bind", dev.slot));
	} else if (!strcmp(way, "remove")) {
		ASSERT_EQ(0, write_file("/sys/bus/pci/rescan", "1"));
	} else {
		qmp_add();
	}
	ASSERT_TRUE(dev_wait(back, dev.slot));
	EXPECT_EQ(dev.size, back->size);
	back->fd = dev_open(back, O_RDWR);
	ASSERT_OK(back->fd);
}

/* A failed test may have left the device unplugged; that must not fail the next one. */
static void bring_back(void)
{
	module_unload("kvmfr");
	write_file("/sys/bus/pci/rescan", "1");
	need_kvmfr();
}

static void setup(const char *variant)
{
	char kind[8];

	snprintf(kind, sizeof(kind), "%.3s", variant);
	way = strchr(variant, '.') + 1;
	need_kvmfr();
	if (!dev_find(&dev, kind)) {
		bring_back();
		if (!dev_find(&dev, kind))
			SKIP("this machine has no IVSHMEM device %s", !strcmp(kind, "pci") ?
			     "of 2 MiB or more" : "too small or too high for struct pages");
	}
	if (!strcmp(way, "device_del") && !(getenv("QMP_ID") && getenv("QMP_FILE")))
		SKIP("needs QMP_ID= and QMP_FILE= to know the device in QEMU and its memory");
	snprintf(slot_path, sizeof(slot_path), "/sys/bus/pci/devices/%s", dev.slot);
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
}

static const char *const every_way[] = {
	"pci.unbind", "pci.remove", "pci.device_del", "pfn.unbind", "pfn.remove", NULL
};
static const char *const pci_ways[] = { "pci.unbind", "pci.remove", "pci.device_del", NULL };
static const struct ktap_fixture any_unplug = { .variants = every_way, .setup = setup };
static const struct ktap_fixture pci_unplug = { .variants = pci_ways, .setup = setup };
#define TEST_UNPLUG(name, ...) TEST(name, .fixture = &any_unplug, ##__VA_ARGS__)
#define TEST_UNPLUG_PAGED(name, ...) TEST(name, .fixture = &pci_unplug, ##__VA_ARGS__)

/* --- mappings --- */

static void all_gone(char *p, size_t size)
{
	const size_t step = (size / page_size / 64 + 1) * page_size;

	for (size_t i = 0; i < size; i += step) {
		EXPECT_EQ(SIGBUS, probe_read(p + i));
		EXPECT_EQ(SIGBUS, probe_write(p + i));
	}
	EXPECT_EQ(SIGBUS, probe_read(p + size - page_size));
}

TEST_UNPLUG(mappings_give_sigbus)
{
	char *touched = map(dev.fd, 0, dev.size, RW);
	char *untouched = map(dev.fd, 0, dev.size, RW);
	char *aligned = map_at(dev.fd, 0, dev.size, RW, 0);
	char *odd = map_at(dev.fd, 5 * page_size, 8 * page_size, RW, 3 * page_size);
	char *locked = map(dev.fd, 0, dev.size / 2, RW);
	char *populated = mmap(NULL, dev.size, RW, MAP_SHARED | MAP_POPULATE, dev.fd, 0);
	char *read_only = map(dev_open(&dev, O_RDONLY), 0, dev.size, PROT_READ);
	char *moved = map(dev.fd, 0, 8 * page_size, RW);
	char *pieces = map(dev.fd, 0, 8 * page_size, RW);
	struct kvmfr_dev back;
	int pipes[2];

	stamp(touched, 0, dev.size);
	EXPECT_EQ(-1, unstamped(aligned, 0, dev.size));
	EXPECT_EQ(-1, unstamped(odd, 5 * page_size, 8 * page_size));
	EXPECT_EQ(-1, unstamped(read_only, 0, dev.size));
	ASSERT_OK(mlock(locked, dev.size / 2));
	stamp(moved, 0, 8 * page_size);
	moved = move(moved, 8 * page_size, 0);
	stamp(pieces, 0, 8 * page_size);
	ASSERT_OK(munmap(pieces + 3 * page_size, page_size));
	ASSERT_OK(mprotect(pieces, page_size, PROT_READ));

	unplug();
	all_gone(touched, dev.size);
	all_gone(untouched, dev.size);
	all_gone(aligned, dev.size);
	all_gone(odd, 8 * page_size);
	all_gone(locked, dev.size / 2);
	all_gone(populated, dev.size);
	EXPECT_EQ(SIGBUS, probe_read(read_only));
	all_gone(moved, 8 * page_size);
	EXPECT_EQ(SIGBUS, probe_read(pieces));
	all_gone(pieces + page_size, 2 * page_size);
	all_gone(pieces + 4 * page_size, 4 * page_size);
	/* nor can the kernel access it for us */
	ASSERT_OK(pipe(pipes));
	EXPECT_ERRNO(EFAULT, write(pipes[1], touched, 8));
	ASSERT_EQ(8, write(pipes[1], "12345678", 8));
	EXPECT_ERRNO(EFAULT, read(pipes[0], touched, 8));
	/* and tidying up works */
	ASSERT_OK(munlock(locked, dev.size / 2));
	if (dev.paged)
		ASSERT_OK(madvise(aligned, dev.size, MADV_DONTNEED));
	ASSERT_OK(mprotect(aligned, page_size, PROT_READ));
	ASSERT_OK(munmap(touched, dev.size));
	plug_in(&back);
}

TEST_UNPLUG_PAGED(mappings_of_dmabufs_give_sigbus)
{
	const uint64_t offset = pmd_size - 3 * page_size, size = pmd_size + 7 * page_size;
	int buf = dmabuf(dev.fd, offset, size);
	int imp = importer();
	char *touched = map(buf, 0, size, RW);
	char *untouched = map(buf, page_size, size - page_size, RW);
	char *whole = map_at(dmabuf(dev.fd, 0, dev.size), 0, dev.size, RW, 0);
	char *of_importer;
	struct kvmfr_dev back;

	stamp(whole, 0, dev.size);
	EXPECT_EQ(-1, unstamped(touched, offset, size));
	ASSERT_EQ(0, import(imp, buf, 0));
	of_importer = map(imp, 0, size, RW);
	EXPECT_EQ(-1, unstamped(of_importer, offset, size));
	close(dev.fd);

	unplug();
	all_gone(touched, size);
	all_gone(untouched, size - page_size);
	all_gone(whole, dev.size);
	all_gone(of_importer, size);
	plug_in(&back);
}

/* Others write during the unplug; their last write is in the memory or nowhere. */
TEST_UNPLUG(processes_that_write_get_sigbus)
{
	enum { N = 4 };
	struct kvmfr_dev back;
	pid_t pid[N];
	char *p;

	p = map(dev.fd, 0, dev.size, RW);
	memset(p, 0, dev.size);
	for (int n = 0; n < N; n++) {
		pid[n] = fork();
		if (!pid[n]) {
			char *mine = n % 2 ? p : map(dev.fd, 0, dev.size, RW);

			for (uint64_t i = 0; ; i++) {
				char *word = mine + (i * N + n) * 8 * 131 % dev.size / 8 * 8;

				if (probe_write(word) == SIGBUS)
					_exit(KTAP_PASS);
				if (i == 100)	/* tell that we are at it */
					set_word(mine + n * page_size, 1);
			}
		}
	}
	for (int n = 0; n < N; n++)
		ASSERT_TRUE(WAIT_FOR(word(p + n * page_size)));
	unplug();
	for (int n = 0; n < N; n++)
		EXPECT_EQ(KTAP_PASS, join(pid[n]));
	plug_in(&back);
}

/* --- descriptors --- */

TEST_UNPLUG(descriptors_answer_enodev)
{
	int ro = dev_open(&dev, O_RDONLY);
	int place = dev_open(&dev, O_PATH);
	int buf = dev.paged ? dmabuf(dev.fd, page_size, 2 * page_size) : -1;
	struct dma_buf_sync sync = { .flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW };
	struct kvmfr_dev back;
	char path[64];

	unplug();
	for (int i = 0; i < 2; i++) {
		int fd = i ? ro : dev.fd;

		EXPECT_ERRNO(ENODEV, ioctl(fd, KVMFR_DMABUF_GETSIZE));
		EXPECT_ERRNO(ENODEV, dmabuf_try(fd, 0, 0, page_size));
		EXPECT_ERRNO(ENODEV, ioctl(fd, _IO('u', 0x45)));
		EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0));
		EXPECT_ERRNO(ENODEV, lseek(fd, 0, SEEK_END));
		EXPECT_ERRNO(ENODEV, lseek(fd, 0, SEEK_SET));
	}
	if (dev.paged) {
		EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, RW, MAP_SHARED, buf, 0));
		EXPECT_ERRNO(ENODEV, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
		sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;	/* of one begun before */
		EXPECT_EQ(0, ioctl(buf, DMA_BUF_IOCTL_SYNC, &sync));
	}
	/* it can't be opened by its old name, nor by its number */
	snprintf(path, sizeof(path), "/dev/%s", dev.name);
	EXPECT_ERRNO(ENOENT, open(path, O_RDWR));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	EXPECT_ERRNO(ENODEV, open(path, O_RDWR));
	EXPECT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
	plug_in(&back);
}

TEST_UNPLUG(memory_is_intact_when_it_comes_back)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	struct kvmfr_dev back;

	stamp(p, 0, dev.size);
	unplug();
	plug_in(&back);
	EXPECT_EQ(-1, unstamped(map(back.fd, 0, back.size, PROT_READ), 0, back.size));
	/* with everything it had */
	EXPECT_EQ(dev.huge_bytes, back.huge_bytes);
	EXPECT_EQ(dev.paged, dmabuf_try(back.fd, 0, 0, page_size) >= 0);
}

TEST_UNPLUG(old_descriptor_never_reaches_the_new_device)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int buf = dev.paged ? dmabuf(dev.fd, 0, dev.size) : -1;
	char *q = dev.paged ? map(buf, 0, dev.size, RW) : p;
	struct kvmfr_dev back;
	char *fresh;

	memset(p, 0, dev.size);
	unplug();
	for (int round = 0; round < 2; round++) {
		plug_in(&back);
		fresh = map(back.fd, 0, back.size, RW);
		stamp(fresh, 0, back.size);
		all_gone(p, dev.size);
		all_gone(q, dev.size);
		EXPECT_ERRNO(ENODEV, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
		EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, RW, MAP_SHARED, dev.fd, 0));
		EXPECT_ERRNO(ENODEV, dmabuf_try(dev.fd, 0, 0, page_size));
		if (dev.paged) {
			EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, RW, MAP_SHARED, buf, 0));
			EXPECT_EQ(ENODEV, import(importer(), buf, 0));
		}
		EXPECT_EQ(-1, unstamped(fresh, 0, back.size));
		munmap(fresh, back.size);
		close(back.fd);
		if (!round)
			unplug();
	}
}

/* Maps it over and over until it has gone; then no mapping may be readable. */
static void map_until_gone(int told)
{
	char *recent[64] = { 0 }, **p = recent, c;
	const size_t size = 8 * page_size;

	for (unsigned int n = 0;; n++) {
		p = &recent[n % ARRAY_SIZE(recent)];
		if (*p)
			munmap(*p, size);
		*p = mmap(NULL, size, RW, MAP_SHARED, dev.fd, 0);
		if (*p == MAP_FAILED)
			break;
	}
	ASSERT_EQ(ENODEV, errno);
	*p = NULL;
	ASSERT_EQ(1, read(told, &c, 1));
	for (size_t i = 0; i < ARRAY_SIZE(recent); i++)
		if (recent[i])
			all_gone(recent[i], size);
}

TEST_UNPLUG(mappings_made_during_the_unplug_give_sigbus, .timeout = 300)
{
	enum { N = 4 };
	const unsigned int rounds = strstr(way, "device_del") ? 1 : how_often("UNPLUGS", 5);
	struct kvmfr_dev back;
	int pipes[2];
	pid_t pid[N];

	ASSERT_OK(pipe(pipes));
	for (unsigned int round = 0; round < rounds; round++) {
		for (int n = 0; n < N; n++) {
			pid[n] = fork();
			if (!pid[n]) {
				map_until_gone(pipes[0]);
				_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
			}
		}
		usleep(round * 100);
		unplug();
		ASSERT_EQ(N, write(pipes[1], "gone", N));
		for (int n = 0; n < N; n++)
			EXPECT_EQ(KTAP_PASS, join(pid[n]));
		close(dev.fd);
		plug_in(&back);
		dev = back;
	}
}

/* --- importers and pins --- */

TEST_UNPLUG_PAGED(imports_are_refused)
{
	int buf = dmabuf(dev.fd, page_size, 4 * page_size);
	int attached = importer(), late = importer();
	struct kvmfr_dev back;

	ASSERT_EQ(0, import(attached, buf, 0));
	unplug();	/* an importer that is only attached holds nothing up */
	EXPECT_EQ(ENODEV, import_map(attached, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	EXPECT_ERRNO(ENODEV, ioctl(attached, KVMFR_IMPORTER_BEGIN_CPU, 0));
	EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, RW, MAP_SHARED, attached, 0));
	EXPECT_EQ(ENODEV, import(late, buf, 0));
	ASSERT_OK(ioctl(attached, KVMFR_IMPORTER_DETACH));
	plug_in(&back);
}

static void begin_wait(pid_t *pid, char *p)
{
	*pid = start_unplug();
	ASSERT_TRUE(log_wait(before, "waiting for"));
	ktap_note("%s", log_last);
	/* What can be revoked has been. */
	all_gone(p, dev.size);
	EXPECT_ERRNO(ENODEV, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_ERRNO(ENODEV, mmap(NULL, page_size, RW, MAP_SHARED, dev.fd, 0));
}

/* The unplug still waits; the kernel doesn't report it as a hung task. */
static void still_waits(pid_t pid)
{
	char state = process_state(pid);

	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	if (strcmp(way, "device_del"))
		EXPECT_TRUE(state == 'I' || state == 'R' || state == 'S' || state == 'D');
	EXPECT_EQ(0, access(slot_path, F_OK));
}

static void end_wait(pid_t pid)
{
	struct kvmfr_dev back;

	ASSERT_EQ(0, join(pid));
	EXPECT_EQ(0, log_count(before, "waiting for"));	/* beside the one line that was read */
	plug_in(&back);
	EXPECT_EQ(0, probe_write(map(back.fd, 0, back.size, RW)));
}

TEST_UNPLUG_PAGED(removal_waits_for_an_importer_and_says_so)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	uint64_t value = 0, poison = 0x5a5a;
	int imp = importer();
	pid_t pid;

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, page_size, dev.size - page_size), 0));
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	begin_wait(&pid, p);
	EXPECT_TRUE(strstr(log_last, dev.name) || strstr(log_last, dev.slot));
	/* for the importer the memory is still there */
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, page_size, &value, 8));
	EXPECT_EQ(stamp_of(2 * page_size), value);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, true, page_size, &poison, 8));
	still_waits(pid);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNMAP));
	end_wait(pid);
}

/* Two of them, and one that can't let go of the DMA-BUF that one of them has, too */
TEST_UNPLUG_PAGED(importers_that_can_let_go_are_told_to)
{
	int buf = dmabuf(dev.fd, page_size, dev.size - page_size);
	int willing[] = { importer(), importer() }, unwilling = importer();
	struct kvmfr_dev back;
	uint64_t value;

	before = log_mark();
	for (int i = 0; i < 2; i++) {
		int err = import_revocable(willing[i], i ? dmabuf(dev.fd, 0, page_size) : buf);

		if (err == EOPNOTSUPP)
			SKIP("no importer of this kernel can be told to let go (before 7.0)");
		ASSERT_EQ(0, err);
		ASSERT_EQ(0, import_map(willing[i], KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
		ASSERT_EQ(0, import_io(willing[i], KVMFR_IMPORTER_VIA_SG, false, 0, &value, 8));
	}
	ASSERT_EQ(0, import(unwilling, buf, 0));

	unplug();
	EXPECT_EQ(0, log_count(before, "waiting for"));
	for (int i = 0; i < 2; i++) {
		EXPECT_ERRNO(ENOENT, ioctl(willing[i], KVMFR_IMPORTER_UNMAP));
		EXPECT_EQ(ENODEV, import_map(willing[i], KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	}
	EXPECT_EQ(ENODEV, import_map(unwilling, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	plug_in(&back);
}

TEST_UNPLUG_PAGED(removal_waits_for_a_vmap_and_says_so)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	uint64_t value = 0;
	int imp = importer();
	pid_t pid;

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, page_size, dev.size - page_size), 0));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
	begin_wait(&pid, p);
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, false, page_size, &value, 8));
	EXPECT_EQ(stamp_of(2 * page_size), value);
	still_waits(pid);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VUNMAP));
	end_wait(pid);
}

TEST_UNPLUG_PAGED(removal_waits_for_pinned_pages_and_says_so)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	uint64_t value = 0;
	int imp = importer();
	pid_t pid;

	stamp(p, 0, dev.size);
	/* one page only, in the middle of everything */
	ASSERT_EQ(0, import_pin(imp, p + dev.size / 2 + 3 * page_size, page_size));
	begin_wait(&pid, p);
	EXPECT_TRUE(strstr(log_last, "pinned"));
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_PIN, false, 0, &value, 8));
	EXPECT_EQ(stamp_of(dev.size / 2 + 3 * page_size), value);
	still_waits(pid);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNPIN));
	end_wait(pid);
}

/* The last of several lets it go on; one of them simply dies. */
TEST_UNPLUG_PAGED(removal_waits_for_all_of_them)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	int mapped = importer(), vmapped = importer(), pinned = importer();
	int buf = dmabuf(dev.fd, 0, dev.size);
	pid_t pid;

	stamp(p, 0, dev.size);
	ASSERT_EQ(0, import(mapped, buf, 0));
	ASSERT_EQ(0, import_map(mapped, KVMFR_IMPORTER_TO_DEVICE, NULL));
	ASSERT_EQ(0, import(vmapped, buf, 0));
	ASSERT_OK(ioctl(vmapped, KVMFR_IMPORTER_VMAP));
	ASSERT_EQ(0, import_pin(pinned, p, dev.size));
	begin_wait(&pid, p);
	close(mapped);
	still_waits(pid);
	close(pinned);
	still_waits(pid);
	close(vmapped);
	end_wait(pid);
}

/* --- under load --- */

static void write_or_sigbus(char *p, size_t at)
{
	int sig = probe_write(p + at);

	ASSERT_TRUE(!sig || sig == SIGBUS);
}

/*
 * Uses the device in every way, over and over; fails only where it is allowed to. Not by vmap:
 * when that is refused, the DMA-BUF core warns, whoever the exporter is.
 */
static void use_until_told(volatile uint32_t *stop, int n)
{
	struct kvmfr_dev d;
	char path[64];

	while (!*stop) {
		char *p, *q = MAP_FAILED;
		int fd, buf, imp;

		if (!dev_find(&d, "pci"))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", d.name);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			ASSERT_TRUE(errno == ENOENT || errno == ENXIO || errno == ENODEV);
			continue;
		}
		p = mmap(NULL, d.size, RW, MAP_SHARED, fd, 0);
		buf = dmabuf_try(fd, KVMFR_DMABUF_FLAG_CLOEXEC, page_size, pmd_size);
		if (p == MAP_FAILED || buf < 0)
			ASSERT_EQ(ENODEV, errno);
		if (buf >= 0)
			q = mmap(NULL, pmd_size, RW, MAP_SHARED, buf, 0);
		for (int i = 0; i < 50; i++) {
			if (p != MAP_FAILED)
				write_or_sigbus(p, i * 997 * page_size % d.size);
			if (q != MAP_FAILED)
				write_or_sigbus(q, i * 97 * page_size % pmd_size);
		}
		imp = open("/dev/kvmfr_importer", O_RDWR | O_CLOEXEC);
		ASSERT_OK(imp);
		if (buf >= 0 && !import(imp, buf, 0)) {
			int error = import_map(imp, n % 3, NULL);

			ASSERT_TRUE(!error || error == ENODEV);
		}
		if (p != MAP_FAILED) {
			int error = import_pin(imp, p, pmd_size);

			ASSERT_TRUE(!error || error == EFAULT);
			if (n % 2)
				munmap(p, d.size / 2);
			munmap(p, d.size);
		}
		close(imp);
		close(fd);
		if (buf >= 0) {
			munmap(q, pmd_size);
			close(buf);
		}
	}
}

TEST(unplugging_under_load, .timeout = 300)
{
	enum { N = 4, ROUNDS = 20 };
	volatile uint32_t *stop = mmap(NULL, page_size, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvmfr_dev back;
	pid_t pid[N];

	ASSERT_OK(stop);
	setup("pci.unbind");
	close(dev.fd);
	close(importer());
	for (int n = 0; n < N; n++) {
		pid[n] = fork();
		if (!pid[n]) {
			use_until_told(stop, n);
			_exit(KTAP_PASS);
		}
	}
	for (int round = 0; round < ROUNDS; round++) {
		way = round % 4 == 3 ? "remove" : "unbind";
		ASSERT_EQ(0, join(start_unplug()));
		plug_in(&back);
		EXPECT_EQ(0, probe_write(map(back.fd, 0, back.size, RW)));
		munmap(map(back.fd, 0, back.size, RW), back.size);
		close(back.fd);
	}
	*stop = 1;
	for (int n = 0; n < N; n++)
		EXPECT_EQ(KTAP_PASS, join(pid[n]));
}

/*
 * Importers that come and go at the same moment are counted one by one, and none is lost from the
 * list of a DMA-BUF that they have in common: the unplug that follows has nobody to wait for.
 */
TEST(importers_at_the_same_time_are_all_counted, .timeout = 300)
{
	enum { N = 4 };
	const unsigned int rounds = how_often("ROUNDS", 1000);
	pid_t pid[N];
	int common;

	setup("pci.unbind");
	close(importer());
	common = dmabuf(dev.fd, 0, page_size);
	for (int n = 0; n < N; n++) {
		pid[n] = fork();
		if (!pid[n]) {
			int own = importer(), shared = importer();

			ASSERT_EQ(0, import(own, dmabuf(dev.fd, n * page_size, page_size), 0));
			ASSERT_EQ(0, import(shared, common, 0));
			for (unsigned int i = 0; i < rounds; i++) {
				ASSERT_EQ(0, import_map(own, n % 3, NULL));
				ASSERT_EQ(0, import_map(shared, n % 3, NULL));
				ASSERT_OK(ioctl(shared, KVMFR_IMPORTER_BEGIN_CPU, 0));
				ASSERT_OK(ioctl(shared, KVMFR_IMPORTER_END_CPU, 0));
				ASSERT_OK(ioctl(shared, KVMFR_IMPORTER_UNMAP));
				ASSERT_OK(ioctl(own, KVMFR_IMPORTER_UNMAP));
			}
			_exit(KTAP_PASS);
		}
	}
	for (int n = 0; n < N; n++)
		EXPECT_EQ(KTAP_PASS, join(pid[n]));
	unplug();
	ASSERT_EQ(0, pci_driver("bind", dev.slot));
}

TEST_UNLOADS()
