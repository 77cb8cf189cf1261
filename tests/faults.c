// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation of an operation fails once: the first, then the second, and so on, until the
 * operation completes without a failure (/proc/thread-self/fail-nth, which makes kmalloc(), page
 * allocations and copies from and to user space fail). Each time the operation either returns an
 * error and leaves nothing behind, or did without the allocation and its result works entirely. The
 * next, undisturbed attempt works. For kernels with fault injection.
 */
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include "kvmfr_test.h"
#include "settle.h"

#define RW (PROT_READ | PROT_WRITE)

struct operation {
	int (*run)(void);		/* 0 or an errno */
	void (*works)(void);		/* what it made is complete */
	void (*undo)(void);
	void (*nothing)(void);		/* nothing is left of it */
	const int *errors;		/* that it may return; ends with 0 */
};

static const int no_memory[] = { ENOMEM, EFAULT, 0 };

#define VECTORS 4	/* of the ivshmem-doorbell */

/* --- failing --- */

static int nth = -1;

static void need_fault_injection(void)
{
	static const char *const knobs[][2] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "failslab/cache-filter", "N" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/verbose", "0" },
		{ "fail_usercopy/verbose", "0" },
	};
	char path[64];

	nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth < 0)
		SKIP("this kernel has no fault injection (CONFIG_FAULT_INJECTION)");
	for (unsigned int i = 0; i < sizeof(knobs) / sizeof(knobs[0]); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", knobs[i][0]);
		ASSERT_EQ(0, write_file(path, knobs[i][1]));
	}
}

static void arm(unsigned int n)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", n);

	ASSERT_EQ(length, pwrite(nth, text, length, 0));
}

/* Whether something failed since arm() */
static bool disarm(void)
{
	char text[16] = "";

	/* Reading copies to user space, which may be what fails; or then writing does. */
	if (pread(nth, text, sizeof(text) - 1, 0) < 0)
		ASSERT_EQ(EFAULT, errno);
	while (pwrite(nth, "0", 1, 0) < 0)
		ASSERT_EQ(EFAULT, errno);
	return !strcmp(text, "0\n");
}

static bool is_one_of(int error, const int *errors)
{
	while (*errors && *errors != error)
		errors++;
	return *errors;
}

static unsigned int sweep(const struct operation *op)
{
	unsigned int points = 0, refused = 0;
	int error;

	ASSERT_EQ(0, op->run());	/* so that one-time allocations are done */
	op->works();
	op->undo();
	op->nothing();

	for (unsigned int n = 1;; n++) {
		bool failed;

		arm(n);
		error = op->run();
		failed = disarm();
		if (error) {
			if (!failed || !is_one_of(error, op->errors))
				FAIL("with allocation %u failing: %s", n, ktap_errno(error));
			refused++;
		} else {
			op->works();
			op->undo();
		}
		op->nothing();
		if (ktap_failed)
			FAIL("that was with allocation %u failing, which gave %s", n,
			     ktap_errno(error));
		if (!failed)
			break;
		points++;

		error = op->run();
		if (error)
			FAIL("after allocation %u failed, another try: %s", n, ktap_errno(error));
		op->works();
		op->undo();
		if (ktap_failed)
			FAIL("that was another try, after allocation %u had failed", n);
	}
	ktap_note("fault points: %u, an error from %u of them", points, refused);
	return points;
}

/* --- loading --- */

static int load_run(void)
{
	return module_load("kvmfr", "static_size_mb=4,3");
}

/* Not by the kernel's own node, which devtmpfs may not make when memory is short. */
static int open_by_number(struct kvmfr_dev *d, int flags)
{
	unsigned int major, minor;
	char path[64], text[32];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/dev", d->name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	ASSERT_EQ(2, sscanf(text, "%u:%u", &major, &minor));
	unlink("/tmp/node");
	ASSERT_OK(mknod("/tmp/node", S_IFCHR | 0600, makedev(major, minor)));
	fd = open("/tmp/node", flags | O_CLOEXEC);
	ASSERT_OK(fd);
	return fd;
}

static void check_mapping(int fd, uint64_t offset, uint64_t size)
{
	char *p = map(fd, offset, size, RW);

	stamp(p, offset, size);
	EXPECT_EQ(-1, unstamped(p, offset, size));
	munmap(p, size);
}

/* Everything works with this device, at its beginning and at its end. */
static void check_device(const char *name, uint64_t size, bool paged)
{
	struct kvmfr_dev d;
	int buf;

	ASSERT_TRUE(dev_read(&d, name));
	EXPECT_EQ(size, d.size);
	d.fd = open_by_number(&d, O_RDWR);
	EXPECT_EQ(size, lseek(d.fd, 0, SEEK_END));
	check_mapping(d.fd, 0, 8 * page_size);
	check_mapping(d.fd, size - 8 * page_size, 8 * page_size);
	if (paged) {
		buf = dmabuf(d.fd, 0, size);
		check_mapping(buf, size - 8 * page_size, 8 * page_size);
		close(buf);
	}
	close(d.fd);
}

static void load_works(void)
{
	EXPECT_EQ(2, dev_count());
	check_device("kvmfr0", 4 << 20, true);
	check_device("kvmfr1", 3 << 20, true);
}

static void load_undo(void)
{
	ASSERT_TRUE(WAIT_FOR(!module_unload("kvmfr")));
}

static unsigned int lines_with(const char *path, const char *what)
{
	FILE *file = fopen(path, "re");
	char line[256];
	unsigned int n = 0;

	while (file && fgets(line, sizeof(line), file))
		n += !!strstr(line, what);
	if (file)
		fclose(file);
	return n;
}

/*
 * Since the last time not one block of 2 MiB was lost. What the kernel keeps for good of each
 * allocation that failed (KASAN and kmemleak its stack) is less, but adds up over hundreds.
 */
static void expect_no_block_lost(void)
{
	const uint64_t mb = 1 << 20;
	static uint64_t before;
	uint64_t now = 0;

	EXPECT_TRUE(WAIT_FOR((settle(), (now = free_memory()) + mb >= before)));
	ktap_note("free memory: %" PRIu64 " KiB", now >> 10);
	before = now;
}

static void load_nothing(void)
{
	static unsigned int times;

	if (!(++times % 32))
		expect_no_block_lost();
	EXPECT_TRUE(!module_loaded("kvmfr"));
	EXPECT_ERRNO(ENOENT, access("/sys/class/kvmfr", F_OK));
	EXPECT_ERRNO(ENOENT, access("/sys/bus/pci/drivers/kvmfr", F_OK));
	EXPECT_ERRNO(ENOENT, access("/dev/kvmfr0", F_OK));
	EXPECT_EQ(0, lines_with("/proc/devices", "kvmfr"));
	EXPECT_EQ(0, lines_with("/proc/iomem", "kvmfr"));
}

/* The loader of modules itself has more to say: a symbol or a name that it could not copy. */
static const int load_errors[] = { ENOMEM, EFAULT, ENOENT, ENOEXEC, EINVAL, EINTR, 0 };

TEST(load_survives_every_failing_allocation, .timeout = 1800)
{
	const struct operation load = { load_run, load_works, load_undo, load_nothing,
					load_errors };

	need_fault_injection();
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	/* PCI devices have their own turn below. */
	ASSERT_EQ(0, write_file("/sys/bus/pci/drivers_autoprobe", "0"));
	ASSERT_EQ(0, load_run());
	load_undo();
	expect_no_block_lost();
	ASSERT_LE(1, sweep(&load));
	expect_no_block_lost();
}

/* --- sizes that are written while it is loaded --- */

#define SIZES "/sys/module/kvmfr/parameters/static_size_mb"

static const char *sizes_before;	/* "4": the device of 4 MiB is there all the time */

static int sizes_run(void)
{
	return write_file(SIZES, strcmp(sizes_before, "4") ? "4" : "4,3,2");
}

static void sizes_undo(void)
{
	ASSERT_TRUE(WAIT_FOR(!write_file(SIZES, sizes_before)));
}

/* There is what the list says, in MiB. */
static void check_sizes(const char *sizes)
{
	char list[64], name[32], *rest = list, *mb;
	unsigned int n = 0;

	snprintf(list, sizeof(list), "%s", sizes);
	while ((mb = strsep(&rest, ","))) {
		snprintf(name, sizeof(name), "kvmfr%u", n++);
		check_device(name, strtoull(mb, NULL, 10) << 20, true);
	}
	EXPECT_EQ(n, dev_count());
}

/*
 * A device that could not be registered is missing after an error, and the parameter says so.
 * Whatever else fails, all are as before.
 */
static void sizes_nothing(void)
{
	char text[64];

	ASSERT_TRUE(read_file(SIZES, text, sizeof(text)));
	check_sizes(text);
	if (!strcmp(text, sizes_before))
		return;
	EXPECT_TRUE(!strcmp(sizes_before, "4") && (!strcmp(text, "4,3") || !strcmp(text, "4,2")));
	sizes_undo();
	check_sizes(sizes_before);
}

static void sizes_works(void)
{
	check_sizes(strcmp(sizes_before, "4") ? "4" : "4,3,2");
}

static const int sizes_errors[] = { ENOMEM, EFAULT, EINTR, 0 };

static void sweep_sizes(const char *before)
{
	const struct operation op = { sizes_run, sizes_works, sizes_undo, sizes_nothing,
				      sizes_errors };

	need_fault_injection();
	/* PCI devices have their own turn below. */
	ASSERT_EQ(0, write_file("/sys/bus/pci/drivers_autoprobe", "0"));
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	load_kvmfr("static_size_mb=%s", before);
	sizes_before = before;
	ASSERT_LE(1, sweep(&op));
}

TEST(more_devices_survive_every_failing_allocation, .timeout = 1800)
{
	sweep_sizes("4");
}

TEST(fewer_devices_survive_every_failing_allocation, .timeout = 1200)
{
	sweep_sizes("4,3,2");
}

/* --- probing --- */

static char slot[32];
static bool slot_paged, slot_rings;
static unsigned int silent;	/* how often it was bound without its doorbell */
static unsigned int others, regions;
static uint64_t slot_size;

static int bind_run(void)
{
	return pci_driver("bind", slot);
}

/* Its doorbell works, if with fewer vectors, or it is as if it had none. */
static void check_doorbell(const char *name)
{
	struct kvmfr_doorbell_ring ring = { .vector = 0 };
	struct kvmfr_doorbell_eventfd listen;
	struct kvmfr_doorbell_info info;
	struct kvmfr_dev d;
	uint64_t count;

	ASSERT_TRUE(dev_read(&d, name));
	d.fd = open_by_number(&d, O_RDWR);
	if (ioctl(d.fd, KVMFR_DOORBELL_INFO, &info)) {
		EXPECT_EQ(EOPNOTSUPP, errno);
		EXPECT_ERRNO(EOPNOTSUPP, ioctl(d.fd, KVMFR_DOORBELL_RING, &ring));
		EXPECT_EQ(0, lines_with("/proc/interrupts", slot));
		silent++;
	} else {
		EXPECT_LE(1, info.vectors);
		EXPECT_LE(info.vectors, VECTORS);
		EXPECT_EQ(info.vectors, lines_with("/proc/interrupts", slot));
		listen.vector = ring.vector = info.vectors - 1;
		ring.peer = info.id;
		ASSERT_OK(listen.fd = eventfd(0, 0));
		ASSERT_OK(ioctl(d.fd, KVMFR_DOORBELL_EVENTFD, &listen));
		ASSERT_OK(ioctl(d.fd, KVMFR_DOORBELL_RING, &ring));
		ASSERT_EQ(sizeof(count), read(listen.fd, &count, sizeof(count)));
		close(listen.fd);
	}
	close(d.fd);
}

static void bind_works(void)
{
	char path[128], name[32];

	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/kvmfr/%s", slot, name);
		if (!access(path, F_OK)) {
			check_device(name, slot_size, slot_paged);
			if (slot_rings)
				check_doorbell(name);
			return;
		}
	}
	FAIL("bound, and no device");
}

static void bind_undo(void)
{
	ASSERT_EQ(0, pci_driver("unbind", slot));
}

static void bind_nothing(void)
{
	char path[96];

	EXPECT_EQ(others, dev_count());
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", slot);
	EXPECT_ERRNO(ENOENT, access(path, F_OK));
	EXPECT_EQ(regions, lines_with("/proc/iomem", "kvmfr"));
	EXPECT_EQ(0, lines_with("/proc/interrupts", slot));
}

/* Without memory for it, a region of addresses is "busy". */
static const int bind_errors[] = { ENOMEM, EFAULT, EBUSY, 0 };

/* Also "bell": an ivshmem-doorbell. */
static bool find_device(struct kvmfr_dev *d, const char *kind)
{
	char path[64], name[32];

	if (strcmp(kind, "bell"))
		return dev_find(d, kind);
	for (int i = 0; i < 64; i++) {
		snprintf(path, sizeof(path), "/sys/class/kvmfr/kvmfr%d/peer_id", i);
		snprintf(name, sizeof(name), "kvmfr%d", i);
		if (!access(path, F_OK))
			return dev_read(d, name);
	}
	return false;
}

static void sweep_bind(const char *kind)
{
	const struct operation bind = { bind_run, bind_works, bind_undo, bind_nothing,
					bind_errors };
	struct kvmfr_dev d, other;
	bool neighbour = false;
	char name[32];

	need_fault_injection();
	ASSERT_EQ(0, write_file("/sys/bus/pci/drivers_autoprobe", "1"));
	load_kvmfr("static_size_mb=1");
	if (!find_device(&d, kind))
		SKIP("this machine has no IVSHMEM device for it");
	/*
	 * x86 itself does not survive it when memory for the page tables of the kernel's own
	 * mapping is short (phys_pud_init() does not look at what alloc_low_pages() gives). A
	 * device nearby keeps that table.
	 */
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		if (strcmp(name, d.name) && dev_read(&other, name) && other.slot[0] && other.paged)
			neighbour = true;
	}
	if (d.paged && !neighbour)
		SKIP("no second IVSHMEM device of 2 MiB or more, to keep a page table");
	strcpy(slot, d.slot);
	slot_paged = d.paged;
	slot_rings = !strcmp(kind, "bell");
	silent = 0;
	slot_size = d.size;
	ASSERT_EQ(0, pci_driver("unbind", slot));
	others = dev_count();
	regions = lines_with("/proc/iomem", "kvmfr");
	ASSERT_LE(1, sweep(&bind));
}

TEST(probe_survives_every_failing_allocation, .timeout = 1200)
{
	sweep_bind("pci");
}

TEST(probe_without_struct_pages_survives_every_failing_allocation, .timeout = 1200)
{
	sweep_bind("pfn");
}

/* Without its interrupts a device still works as memory. */
TEST(probe_with_a_doorbell_survives_every_failing_allocation, .timeout = 1200)
{
	sweep_bind("bell");
	ktap_note("without its doorbell: %u times", silent);
	EXPECT_LE(1, silent);
}

/* --- files, mappings and DMA-BUFs, of one device --- */

static void nothing_here(void)
{
}

static char node[64];
static int fd, buf, imp;
static char *mapping;
static uint64_t length;
static long refs;
static unsigned int exported;

static unsigned int count_fds(void)
{
	unsigned int n = 0;

	for (int i = 0; i < 64; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* DMA-BUFs that the kernel knows of; they are freed a moment after the last close(). */
static unsigned int count_dmabufs(void)
{
	FILE *file = fopen("/sys/kernel/debug/dma_buf/bufinfo", "re");
	unsigned int n = 0;
	char line[256];

	ASSERT_TRUE(file);
	while (fgets(line, sizeof(line), file))
		n += !!strstr(line, "kvmfr");
	fclose(file);
	return n;
}

static unsigned int fds;

static void set_base(void)
{
	fds = count_fds();
	exported = count_dmabufs();
	refs = module_refs("kvmfr");
}

static void base_holds(void)
{
	EXPECT_EQ(fds, count_fds());
	EXPECT_TRUE(WAIT_FOR(count_dmabufs() == exported));
	EXPECT_TRUE(WAIT_FOR(module_refs("kvmfr") == refs));
}

static void setup(const char *kind)
{
	need_fault_injection();
	ASSERT_EQ(0, write_file("/sys/bus/pci/drivers_autoprobe", "1"));
	load_kvmfr("static_size_mb=3");
	if (!find_device(&dev, kind))
		SKIP("this machine has no IVSHMEM device for it");
	snprintf(node, sizeof(node), "/dev/%s", dev.name);
	length = dev.size - page_size;
	fd = open(node, O_RDWR | O_CLOEXEC);
	ASSERT_OK(fd);
}

static const char *const any_kind[] = { "static", "pci", "pfn", NULL };
static const char *const paged_kind[] = { "static", "pci", NULL };
static const struct ktap_fixture any = { any_kind, setup };
static const struct ktap_fixture paged = { paged_kind, setup };

#define ANY(name) TEST(name, .fixture = &any, .timeout = 600)
#define PAGED(name) TEST(name, .fixture = &paged, .timeout = 600)

static int opened;

static int open_run(void)
{
	opened = open(node, O_RDWR | O_CLOEXEC);
	return opened < 0 ? errno : 0;
}

static void open_works(void)
{
	check_mapping(opened, 0, page_size);
}

static void open_undo(void)
{
	ASSERT_OK(close(opened));
}

ANY(open_survives_every_failing_allocation)
{
	const struct operation op = { open_run, open_works, open_undo, base_holds, no_memory };

	set_base();
	ASSERT_LE(1, sweep(&op));
}

/* Misaligned, so that there are as many page tables as can be. */
static int mapped_fd;

static int mmap_run(void)
{
	mapping = mmap(reserve(length, page_size), length, RW, MAP_SHARED | MAP_FIXED, mapped_fd,
		       0);
	return mapping == MAP_FAILED ? errno : 0;
}

static void mapping_works(void)
{
	stamp(mapping, 0, length);
	EXPECT_EQ(-1, unstamped(mapping, 0, length));
}

static void mmap_undo(void)
{
	munmap(mapping, length);
}

static void sweep_mmap(int of)
{
	const struct operation op = { mmap_run, mapping_works, mmap_undo, base_holds, no_memory };

	mapped_fd = of;
	set_base();
	ASSERT_LE(1, sweep(&op));
}

ANY(mmap_survives_every_failing_allocation)
{
	sweep_mmap(fd);
}

PAGED(mmap_of_a_dmabuf_survives_every_failing_allocation)
{
	sweep_mmap(dmabuf(fd, page_size, length));
}

/* Faults: as an error that is told, and as one after which the processor has another try. */
static bool by_touching;

static int fault_run(void)
{
	if (!by_touching)
		return madvise(mapping, length, MADV_POPULATE_WRITE) ? errno : 0;
	/* No system calls here, whose copies from user space would be what fails. */
	for (uint64_t i = 0; i < length; i += page_size)
		*(volatile char *)(mapping + i) = 0;
	return 0;
}

/* Without page tables again: where nothing was, one huge page further on each time */
static void fault_undo(void)
{
	static char *space;
	static uint64_t used;
	const uint64_t all = 512 * pmd_size;

	if (!space || used + length + 2 * pmd_size > all) {
		space = reserve(all, 0);
		used = 0;
	}
	if (mapping)
		munmap(mapping, length);
	mapping = mmap(space + used, length, RW, MAP_SHARED | MAP_FIXED, mapped_fd, 0);
	ASSERT_OK(mapping);
	used += (length + 2 * pmd_size - 1) / pmd_size * pmd_size;
}

static void sweep_fault(void)
{
	const struct operation op = { fault_run, mapping_works, fault_undo, fault_undo, no_memory };

	mapped_fd = fd;
	mapping = NULL;
	fault_undo();
	sweep(&op);	/* There may be nothing left for it to allocate. */
}

PAGED(populating_survives_every_failing_allocation)
{
	by_touching = false;
	sweep_fault();
}

ANY(faults_survive_every_failing_allocation)
{
	by_touching = true;
	sweep_fault();
}

static int create_run(void)
{
	buf = dmabuf_try(fd, KVMFR_DMABUF_FLAG_CLOEXEC, page_size, length);
	return buf < 0 ? errno : 0;
}

static void create_works(void)
{
	check_mapping(buf, length - page_size, page_size);
}

static void create_undo(void)
{
	ASSERT_OK(close(buf));
}

PAGED(dmabuf_create_survives_every_failing_allocation)
{
	const struct operation op = { create_run, create_works, create_undo, base_holds,
				      no_memory };

	set_base();
	ASSERT_LE(1, sweep(&op));
}

/* --- read and write --- */

static bool writes;
static char *buffer;
static uint64_t rw_size;

static int rw_run(void)
{
	ssize_t n = writes ? pwrite(fd, buffer, rw_size, page_size) :
			     pread(fd, buffer, rw_size, page_size);

	/* What could be copied before a copy failed counts, as read(2) says. */
	if (n >= 0 && (uint64_t)n < rw_size)
		return EFAULT;
	return n < 0 ? errno : 0;
}

static void rw_works(void)
{
	char *p = map(fd, page_size, rw_size, RW);

	EXPECT_EQ(-1, unstamped(writes ? p : buffer, page_size, rw_size));
	memset(writes ? p : buffer, 0, rw_size);
	munmap(p, rw_size);
}

static void sweep_rw(bool writing)
{
	const struct operation op = { rw_run, rw_works, nothing_here, base_holds, no_memory };
	char *all = map(fd, 0, dev.size, RW);

	writes = writing;
	rw_size = 8 * page_size;
	buffer = malloc(rw_size);
	stamp(writing ? buffer : all + page_size, page_size, rw_size);
	set_base();
	sweep(&op);	/* There may be nothing for it to allocate. */
}

ANY(read_survives_every_failing_allocation)
{
	sweep_rw(false);
}

ANY(write_survives_every_failing_allocation)
{
	sweep_rw(true);
}

/* --- doorbells --- */

static int heard;

static int listen_run(void)
{
	struct kvmfr_doorbell_eventfd listen = { .vector = VECTORS - 1, .fd = heard };

	return ioctl(fd, KVMFR_DOORBELL_EVENTFD, &listen) ? errno : 0;
}

/* How often one ring is heard: once for each time that it was registered. */
static uint64_t ring_is_heard(void)
{
	struct kvmfr_doorbell_eventfd listen = { .vector = VECTORS - 1 };
	struct kvmfr_doorbell_ring ring = { .vector = VECTORS - 1 };
	struct kvmfr_doorbell_info info;
	uint64_t n = 0;

	/* This one is signalled last: then the other one has been signalled, too. */
	ASSERT_OK(listen.fd = eventfd(0, 0));
	ASSERT_OK(ioctl(fd, KVMFR_DOORBELL_INFO, &info));
	ASSERT_OK(ioctl(fd, KVMFR_DOORBELL_EVENTFD, &listen));
	ring.peer = info.id;
	ASSERT_OK(ioctl(fd, KVMFR_DOORBELL_RING, &ring));
	ASSERT_EQ(sizeof(n), read(listen.fd, &n, sizeof(n)));
	close(listen.fd);
	if (read(heard, &n, sizeof(n)) < 0)
		n = 0;
	listen.fd = -1;
	ASSERT_OK(ioctl(fd, KVMFR_DOORBELL_EVENTFD, &listen));
	return n;
}

static void listen_works(void)
{
	EXPECT_EQ(1, ring_is_heard());
}

static void listen_nothing(void)
{
	EXPECT_EQ(0, ring_is_heard());
	base_holds();
}

static const char *const bell_kind[] = { "bell", NULL };
static const struct ktap_fixture bell = { bell_kind, setup };

TEST(eventfd_survives_every_failing_allocation, .fixture = &bell, .timeout = 600)
{
	/* ring_is_heard() takes away what was registered. */
	const struct operation op = { listen_run, listen_works, nothing_here, listen_nothing,
				      no_memory };

	ASSERT_OK(heard = eventfd(0, EFD_NONBLOCK));
	set_base();
	ASSERT_LE(1, sweep(&op));
}

static struct kvmfr_doorbell_info told;

static int info_run(void)
{
	struct kvmfr_doorbell_ring ring = { .peer = 65535 };

	memset(&told, 0xaa, sizeof(told));
	if (ioctl(fd, KVMFR_DOORBELL_INFO, &told))
		return errno;
	return ioctl(fd, KVMFR_DOORBELL_RING, &ring) ? errno : 0;
}

static void info_works(void)
{
	EXPECT_EQ(VECTORS, told.vectors);
}

TEST(info_and_ring_survive_every_failing_copy, .fixture = &bell, .timeout = 600)
{
	const struct operation op = { info_run, info_works, nothing_here, base_holds, no_memory };

	set_base();
	ASSERT_LE(1, sweep(&op));
}

/* --- importers --- */

static void setup_import(void)
{
	char *all = map(fd, 0, dev.size, RW);

	stamp(all, 0, dev.size);
	buf = dmabuf(fd, page_size, length);
	imp = importer();
}

static void check_import(uint32_t via)
{
	char *copy = malloc(length);

	memset(copy, 0xaa, length);
	EXPECT_EQ(0, import_io(imp, via, false, 0, copy, length));
	EXPECT_EQ(-1, unstamped(copy, page_size, length));
	free(copy);
}

static int attach_run(void)
{
	return import(imp, buf, 0);
}

static void attach_works(void)
{
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	check_import(KVMFR_IMPORTER_VIA_SG);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNMAP));
}

static void attach_undo(void)
{
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_DETACH));
}

static void attach_nothing(void)
{
	EXPECT_ERRNO(ENOENT, ioctl(imp, KVMFR_IMPORTER_DETACH));
}

PAGED(attach_survives_every_failing_allocation)
{
	const struct operation op = { attach_run, attach_works, attach_undo, attach_nothing,
				      no_memory };

	setup_import();
	ASSERT_LE(1, sweep(&op));
}

/* 64 KiB a segment: the table of the scatter list has several parts. */
static int map_run(void)
{
	return import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL);
}

static void map_works(void)
{
	check_import(KVMFR_IMPORTER_VIA_SG);
}

static void map_undo(void)
{
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNMAP));
}

static void map_nothing(void)
{
	EXPECT_ERRNO(ENOENT, ioctl(imp, KVMFR_IMPORTER_UNMAP));
}

PAGED(dma_map_survives_every_failing_allocation)
{
	const struct operation op = { map_run, map_works, map_undo, map_nothing, no_memory };

	setup_import();
	ASSERT_EQ(0, import(imp, buf, page_size));
	ASSERT_LE(1, sweep(&op));
}

static int vmap_run(void)
{
	return ioctl(imp, KVMFR_IMPORTER_VMAP) ? errno : 0;
}

static void vmap_works(void)
{
	check_import(KVMFR_IMPORTER_VIA_VMAP);
}

static void vmap_undo(void)
{
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VUNMAP));
}

PAGED(vmap_survives_every_failing_allocation)
{
	const struct operation op = { vmap_run, vmap_works, vmap_undo, nothing_here, no_memory };

	setup_import();
	ASSERT_EQ(0, import(imp, buf, 0));
	ASSERT_LE(1, sweep(&op));
}

TEST_UNLOADS()
