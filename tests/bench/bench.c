// SPDX-License-Identifier: GPL-2.0
/*
 * What the device costs, beside what else there is: hugetlb, memfd, udmabuf and the system DMA-BUF
 * heap.
 *
 * Each ROW() is one line of the table that "run" prints: what is measured, in what unit, and the
 * bound it has to keep. Rows without a bound are there to compare with. A row prints its result as
 * one line of JSON, and is "ok" if it keeps the bound; with WITHOUT_BOUNDS=1 none has one. Every
 * memory that is measured gets a pattern through the mapping in question, which must then be found
 * through another one.
 *
 * The prefix of a row's name tells where it can be measured:
 *	counted		everywhere: page faults, KVM's and the kernel's own counters
 *	instructions	where the virtual machine's clock counts instructions (boot --icount)
 *	fragmented	in a small virtual machine of its own, whose memory it spoils
 */
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <math.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <x86intrin.h>

#include "../kvmfr_test.h"
#include "../vmm.h"

#define MB		((uint64_t)1 << 20)
#define GB		((uint64_t)1 << 30)
#define LENGTH		(32 * MB)	/* what is measured, unless said */
#define ODD		(MB + 4096)	/* an offset in a device that agrees with no huge page */
#define DEVICES		"32,64"		/* LENGTH, and one with room for LENGTH at an odd offset */

struct row {
	const char *name;
	const char *group, *what;	/* the table's words */
	const char *unit;		/* "x": a ratio, of what was measured to a reference */
	double min, max;		/* the bound, unless both are 0 */
	bool bar;			/* excused where an IVSHMEM device can't have huge pages */
};

static const struct row *row;

static int rounds;	/* for what a timer may strike in: the lowest of them counts */

static void setup(const char *variant)
{
	const struct rlimit files = { 4096, 4096 };

	ASSERT_OK(setrlimit(RLIMIT_NOFILE, &files));
	rounds = strcmp(variant, "instructions") ? 1 : 6;
}

#define KIND(id) { .variants = (const char *const []){ #id, NULL }, .setup = setup }
static const struct ktap_fixture counted = KIND(counted);
static const struct ktap_fixture instructions = KIND(instructions);
static const struct ktap_fixture fragmented = KIND(fragmented);

#define ROW(fixture_, id, ...)							\
	static const struct row row_##id = { .name = #id, ##__VA_ARGS__ };	\
	static void measure_##id(void);						\
	TEST(id, .fixture = &fixture_, .timeout = 600)				\
	{									\
		row = &row_##id;						\
		measure_##id();							\
	}									\
	static void measure_##id(void)

/* The row's result, and what it was computed from. */
static void report_with(double value, const char *from)
{
	bool excused = row->bar && !kernel_is(5, 17);
	bool bounded = (row->min || row->max) && !excused && !getenv("WITHOUT_BOUNDS");

	printf("# row {\"name\": \"%s\", \"group\": \"%s\", \"what\": \"%s\", \"unit\": \"%s\"",
	       row->name, row->group, row->what, row->unit);
	printf(", \"value\": %.10g%s", value, from);
	if (bounded)
		printf(", \"min\": %.10g, \"max\": %.10g", row->min, row->max);
	if (excused)
		printf(", \"excused\": \"no huge pages for IVSHMEM memory before 5.17\"");
	puts("}");
	if (bounded && (value < row->min || value > row->max)) {
		ktap_note("%.10g is not between %.10g and %.10g: %s, %s", value, row->min, row->max,
			  row->group, row->what);
		ktap_fail(false);
	}
}

static void report(double value)
{
	report_with(value, "");
}

static void report_ratio(double measured, double reference)
{
	char from[128];

	snprintf(from, sizeof(from), ", \"measured\": %.10g, \"reference\": %.10g", measured,
		 reference);
	report_with(measured / reference, from);
}

/* --- instruments --- */

/* With -icount the time stamp counter counts the instructions of all CPUs, one by one. */
static uint64_t now(void)
{
	return __rdtsc();
}

/* What this thread alone has executed: for what takes so long that others run in between. */
static uint64_t own_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct cost {
	uint64_t instructions;	/* to map it and write to every page */
	uint64_t touching;	/* of these: to write when all is mapped */
	unsigned long faults;
	unsigned long huge_kb;	/* in huge pages afterwards, as far as smaps knows */
};

/*
 * Maps length bytes of fd and writes to every page, with all of the memory present: it has been
 * written to through the witness, which is another mapping of the same memory, like that of a
 * virtual machine. The memory begins at place in the device.
 */
static struct cost cost_to_map(int fd, size_t length, uint64_t place, char *address, char *witness)
{
	struct cost least = { .instructions = UINT64_MAX, .touching = UINT64_MAX };

	for (int round = 0; round < rounds; round++) {
		unsigned long before;
		uint64_t start, mapped, again;
		char *p;

		memset(witness, 0xa5, length);
		before = faults();
		start = now();
		p = mmap(address, length, RW, MAP_SHARED | (address ? MAP_FIXED : 0), fd, 0);
		if (p == MAP_FAILED)
			FAIL("mmap: %s", ktap_errno(errno));
		stamp(p, place, length);
		mapped = now();
		stamp(p, place, length);
		again = now();
		least.faults = faults() - before;
		least.huge_kb = smaps_kb(p, "FilePmdMapped");

		ASSERT_EQ(-1, unstamped(witness, place, length));
		for (size_t i = 8; i < length; i += page_size)	/* and nothing else */
			ASSERT_EQ(0xa5a5a5a5a5a5a5a5, word(witness + i));
		ASSERT_OK(munmap(p, length));
		least.instructions = lower(least.instructions, mapped - start);
		least.touching = lower(least.touching, again - mapped);
	}
	return least;
}

/* --- what is measured --- */

static int memfd(size_t length, unsigned int flags)
{
	int fd = memfd_create("bench", flags);

	ASSERT_OK(fd);
	ASSERT_OK(ftruncate(fd, length));
	return fd;
}

static void unload(void)
{
	if (!module_loaded("kvmfr"))
		return;
	/* KVM gives up a guest's memory some time after the guest is gone. */
	if (!WAIT_FOR(!module_refs("kvmfr")))
		FAIL("the module still has %ld users, though nobody is left", module_refs("kvmfr"));
	ASSERT_EQ(0, module_unload("kvmfr"));
}

/* On a machine that has run for a while, free memory has been page cache of large files before. */
static void use_memory(void)
{
	const size_t length = meminfo("MemFree") / 4;
	int fd = memfd(length, 0);

	ASSERT_OK(fallocate(fd, 0, 0, length));
	close(fd);
}

/* The module with these sizes, loaded if it is not yet. */
static void need(const char *sizes)
{
	char have[64];

	if (read_file("/sys/module/kvmfr/parameters/static_size_mb", have, sizeof(have)) &&
	    !strcmp(have, sizes))
		return;
	unload();
	use_memory();
	load_kvmfr("static_size_mb=%s", sizes);
}

/* One of the devices of DEVICES, or the IVSHMEM one. */
static int device(const char *name)
{
	need(DEVICES);
	if (!strcmp(name, "ivshmem")) {
		if (!dev_find(&dev, "pci"))
			FAIL("the virtual machine has no IVSHMEM device");
	} else {
		ASSERT_TRUE(dev_read(&dev, name));
	}
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
	return dev.fd;
}

static struct cost device_cost(const char *name, char *address)
{
	int fd = device(name);

	return cost_to_map(fd, LENGTH, 0, address, map(fd, 0, LENGTH, RW));
}

/* Mapped as kvmfr.h says, at an address that agrees with the place in the device. */
static struct cost dmabuf_cost(const char *name, uint64_t offset)
{
	int fd = device(name);

	return cost_to_map(dmabuf(fd, offset, LENGTH), LENGTH, offset,
			   reserve(LENGTH, offset % pmd_size), map(fd, offset, LENGTH, RW));
}

static long hugetlb_pool(const char *what)
{
	char path[96], text[32];

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%zukB/%s",
		 (size_t)pmd_size / 1024, what);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	return atol(text);
}

/* The pool has what is in use, and this. */
static int hugetlb(size_t length)
{
	long used = hugetlb_pool("nr_hugepages") - hugetlb_pool("free_hugepages");
	long want = used + length / pmd_size;
	char text[32];

	snprintf(text, sizeof(text), "%ld", want);
	ASSERT_EQ(0, write_file("/proc/sys/vm/nr_hugepages", text));
	ASSERT_EQ(want, hugetlb_pool("nr_hugepages"));
	return memfd(length, MFD_HUGETLB | MFD_ALLOW_SEALING);
}

static int open_or_skip(const char *node)
{
	int fd = open(node, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		SKIP("this kernel has no %s", node);
	return fd;
}

static int udmabuf_of(int udmabuf, int fd, size_t length)
{
	struct udmabuf_create create = {
		.memfd = fd, .flags = UDMABUF_FLAGS_CLOEXEC, .size = length,
	};
	int buf = ioctl(udmabuf, UDMABUF_CREATE, &create);

	ASSERT_OK(buf);
	return buf;
}

static int sealed_memfd(size_t length)
{
	int fd = memfd(length, MFD_ALLOW_SEALING);

	ASSERT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	return fd;
}

/* What udmabuf takes for huge pages. */
static int sealed_hugetlb(size_t length)
{
	int fd;

	if (!kernel_is(5, 14))
		SKIP("udmabuf takes no hugetlb memfd before 5.14");
	fd = hugetlb(length);
	ASSERT_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	return fd;
}

static int heap_alloc(int heap, size_t length)
{
	struct dma_heap_allocation_data data = { .len = length, .fd_flags = O_RDWR | O_CLOEXEC };

	ASSERT_OK(ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data));
	return data.fd;
}

static struct cost file_cost(int fd)
{
	return cost_to_map(fd, LENGTH, 0, NULL, map(fd, 0, LENGTH, RW));
}

static struct cost memfd_cost(void)
{
	return file_cost(memfd(LENGTH, 0));
}

static struct cost hugetlb_cost(void)
{
	return file_cost(hugetlb(LENGTH));
}

static struct cost udmabuf_cost(int fd)
{
	int udmabuf = open_or_skip("/dev/udmabuf");

	return cost_to_map(udmabuf_of(udmabuf, fd, LENGTH), LENGTH, 0, NULL,
			   map(fd, 0, LENGTH, RW));
}

static struct cost heap_cost(void)
{
	return file_cost(heap_alloc(open_or_skip("/dev/dma_heap/system"), LENGTH));
}

/* --- touching a mapping: page faults, and instructions against those for hugetlb --- */

#define FAULTS	.group = "page faults to touch 32 MiB", .unit = "faults"
#define MAP	.group = "map and touch 32 MiB again, against hugetlb", .unit = "x"

static void report_map(struct cost cost)
{
	report_ratio(cost.instructions, hugetlb_cost().instructions);
}

/* Both rows of one kind of memory. It has no fault at all if the mapping is filled in advance. */
#define MAPPING(id, words, max_faults, max_ratio, measure, ...)				\
	ROW(counted, faults_##id, FAULTS, .what = words, .min = max_faults ? 1 : 0,	\
	    .max = max_faults, ##__VA_ARGS__)						\
	{										\
		report((measure).faults);						\
	}										\
	ROW(instructions, map_##id, MAP, .what = words, .max = max_ratio, ##__VA_ARGS__) \
	{										\
		report_map(measure);							\
	}

MAPPING(static, "static device", 16, 1.5, device_cost("kvmfr0", NULL))
MAPPING(ivshmem, "IVSHMEM device", 16, 1.5, device_cost("ivshmem", NULL), .bar = true)
MAPPING(dmabuf, "DMA-BUF at 0", 16, 1.5, dmabuf_cost("kvmfr1", 0))
MAPPING(dmabuf_odd, "DMA-BUF at 1 MiB + 4 KiB", 16, 3, dmabuf_cost("kvmfr1", ODD))
MAPPING(dmabuf_ivshmem, "DMA-BUF of IVSHMEM at 0", 16, 1.5, dmabuf_cost("ivshmem", 0), .bar = true)
MAPPING(dmabuf_ivshmem_odd, "DMA-BUF of IVSHMEM at 1 MiB + 4 KiB", 16, 3,
	dmabuf_cost("ivshmem", ODD), .bar = true)
MAPPING(memfd, "memfd", 0, 0, memfd_cost())
MAPPING(udmabuf, "udmabuf", 0, 0, udmabuf_cost(sealed_memfd(LENGTH)))
MAPPING(udmabuf_hugetlb, "udmabuf of a hugetlb memfd", 0, 0, udmabuf_cost(sealed_hugetlb(LENGTH)))
MAPPING(heap, "system DMA-BUF heap", 0, 0, heap_cost())

ROW(counted, faults_hugetlb, FAULTS, .what = "hugetlb")
{
	report(hugetlb_cost().faults);
}

ROW(instructions, map_kernel, MAP, .what = "static device, without the touching itself")
{
	struct cost cost = device_cost("kvmfr0", NULL), limit = hugetlb_cost();

	report_ratio(cost.instructions - cost.touching, limit.instructions - limit.touching);
}

#define HUGE_PAGES	.group = "huge pages in such a mapping", .unit = "pages"

ROW(counted, huge_static, HUGE_PAGES, .what = "static device", .min = 16, .max = 16)
{
	report(device_cost("kvmfr0", NULL).huge_kb * 1024.0 / pmd_size);
}

ROW(counted, huge_dmabuf_odd, HUGE_PAGES, .what = "DMA-BUF at 1 MiB + 4 KiB", .min = 15, .max = 15)
{
	report(dmabuf_cost("kvmfr1", ODD).huge_kb * 1024.0 / pmd_size);
}

/* --- a KVM guest that writes to 30 MiB --- */

/* The host's own interrupts are exits, too, so the lowest of several rounds. */
static struct guest_counts guest_in(int fd)
{
	const uint32_t size = 30 * MB;
	struct guest_counts least, n;
	char *ram, *host;

	if (access("/dev/kvm", R_OK | W_OK))
		SKIP("this machine has no KVM");
	ram = map_at(fd, 0, size, RW, 0);
	host = map(fd, 0, size, RW);
	least = run_guest(ram, host, size);
	for (int round = 0; round < 2; round++) {
		n = run_guest(ram, host, size);
		least.huge = lower(least.huge, n.huge);
		least.small = lower(least.small, n.small);
		least.exits = lower(least.exits, n.exits);
	}
	return least;
}

static void report_small(struct guest_counts n)
{
	if (!kernel_is(5, 13))
		SKIP("KVM counts no small pages before 5.13");
	report(n.small);
}

#define KVM		.group = "KVM guest that touches 30 MiB of its RAM"
#define KVM_HUGE	KVM, .unit = "pages", .min = 15, .max = 16
#define KVM_SMALL	KVM, .unit = "pages", .max = 512
#define KVM_EXITS	KVM, .unit = "exits"
#define KVM_FEW_EXITS	KVM_EXITS, .min = 1, .max = 20

ROW(counted, kvm_huge_static, KVM_HUGE, .what = "static device: huge pages")
{
	report(guest_in(device("kvmfr0")).huge);
}

ROW(counted, kvm_small_static, KVM_SMALL, .what = "static device: small pages")
{
	report_small(guest_in(device("kvmfr0")));
}

ROW(counted, kvm_exits_static, KVM_FEW_EXITS, .what = "static device: exits")
{
	report(guest_in(device("kvmfr0")).exits);
}

ROW(counted, kvm_huge_ivshmem, KVM_HUGE, .what = "IVSHMEM device: huge pages", .bar = true)
{
	report(guest_in(device("ivshmem")).huge);
}

ROW(counted, kvm_exits_ivshmem, KVM_FEW_EXITS, .what = "IVSHMEM device: exits", .bar = true)
{
	report(guest_in(device("ivshmem")).exits);
}

ROW(counted, kvm_exits_hugetlb, KVM_EXITS, .what = "hugetlb: exits")
{
	report(guest_in(hugetlb(LENGTH)).exits);
}

ROW(counted, kvm_exits_memfd, KVM_EXITS, .what = "memfd: exits")
{
	report(guest_in(memfd(LENGTH, 0)).exits);
}

/* --- DMA-BUFs --- */

static int whole_device(const char *sizes)
{
	need(sizes);
	ASSERT_TRUE(dev_read(&dev, "kvmfr0"));
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
	return dev.fd;
}

static uint64_t cost_to_create(uint64_t size)
{
	int fd = whole_device("1024"), buf = dmabuf(fd, 0, size);
	uint64_t least = UINT64_MAX, start;

	/* It is a DMA-BUF of that size and of this memory. */
	ASSERT_EQ(size, lseek(buf, 0, SEEK_END));
	set_word(map(fd, 0, page_size, RW), stamp_of(size));
	ASSERT_EQ(stamp_of(size), word(map(buf, 0, page_size, PROT_READ)));
	close(buf);

	for (int round = 0; round < 10 * rounds; round++) {
		start = now();
		close(dmabuf(fd, 0, size));
		least = lower(least, now() - start);
	}
	return least;
}

#define CREATE		.group = "create and close a DMA-BUF, in instructions"
#define CREATE_COUNT	CREATE, .unit = "instructions"

ROW(instructions, create_page, CREATE_COUNT, .what = "4 KiB", .max = 20000)
{
	report(cost_to_create(4096));
}

ROW(instructions, create_gigabyte, CREATE_COUNT, .what = "1 GiB", .max = 20000)
{
	report(cost_to_create(GB));
}

ROW(instructions, create_growth, CREATE, .unit = "x", .what = "1 GiB against 4 KiB",
    .min = 0.9, .max = 1.1)
{
	report_ratio(cost_to_create(GB), cost_to_create(4096));
}

static uint64_t cost_of_udmabuf(int fd)
{
	int udmabuf = open_or_skip("/dev/udmabuf");
	uint64_t least = UINT64_MAX, start;

	stamp(map(fd, 0, LENGTH, RW), 0, LENGTH);
	for (int round = 0; round < rounds; round++) {
		start = now();
		close(udmabuf_of(udmabuf, fd, LENGTH));
		least = lower(least, now() - start);
	}
	return least;
}

ROW(instructions, create_udmabuf, CREATE_COUNT, .what = "32 MiB by udmabuf")
{
	report(cost_of_udmabuf(sealed_memfd(LENGTH)));
}

ROW(instructions, create_udmabuf_hugetlb, CREATE_COUNT,
    .what = "32 MiB by udmabuf, of a hugetlb memfd")
{
	report(cost_of_udmabuf(sealed_hugetlb(LENGTH)));
}

ROW(instructions, create_heap, CREATE_COUNT, .what = "32 MiB by the system heap, with its memory")
{
	int heap = open_or_skip("/dev/dma_heap/system");
	uint64_t least = UINT64_MAX, start;

	for (int round = 0; round < rounds; round++) {
		start = now();
		close(heap_alloc(heap, LENGTH));
		least = lower(least, now() - start);
	}
	report(least);
}

/* The table that an importer gets for the first bytes of a device. */
static struct kvmfr_importer_map table_of(int fd, uint64_t size, uint32_t max_segment)
{
	struct kvmfr_importer_map result;
	uint64_t seen, last = size - page_size;
	int imp = importer();

	ASSERT_EQ(0, import(imp, dmabuf(fd, 0, size), max_segment));
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, &result));
	ASSERT_EQ(size, result.total);
	set_word((char *)map(fd, 0, size, RW) + last, stamp_of(last));
	ASSERT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_SG, false, last, &seen, sizeof(seen)));
	ASSERT_EQ(stamp_of(last), seen);
	return result;
}

#define ENTRIES		.group = "entries in the scatter list of a whole device", .unit = "entries"

ROW(counted, entries_static, ENTRIES, .what = "static device", .min = 1, .max = 16)
{
	report(table_of(device("kvmfr0"), LENGTH, UINT32_MAX).orig_nents);
}

ROW(counted, entries_ivshmem, ENTRIES, .what = "IVSHMEM device", .min = 1, .max = 1)
{
	int fd = device("ivshmem");

	report(table_of(fd, dev.size, UINT32_MAX).orig_nents);
}

ROW(counted, entries_limited, ENTRIES,
    .what = "IVSHMEM device of 64 MiB, segments of at most 64 KiB", .min = 1024, .max = 1024)
{
	int fd = device("ivshmem");

	report(table_of(fd, 64 * MB, 64 << 10).orig_nents);
}

/* --- the kernel's own memory --- */

#define MEMORY	.group = "kernel memory"

/* The lower bounds are for other parts of the kernel, which free memory meanwhile. */
ROW(counted, memory_device, MEMORY, .what = "1 GiB device, beside itself", .unit = "%",
    .min = -0.1, .max = 0.2)
{
	uint64_t free;

	need("1");	/* what stays of the first time is not the device's */
	unload();
	need("1");
	free = free_memory();
	need("1024");
	report(((double)free - free_memory() - 1023 * MB) * 100 / GB);
}

#define BUFFERS 1000

/* What that many more DMA-BUFs take. They stay, so that no memory freed before is used again. */
static double memory_of(int fd, uint64_t size)
{
	uint64_t free = free_memory();

	for (int i = 0; i < BUFFERS; i++)
		dmabuf(fd, 0, size);
	return (double)free - free_memory();
}

ROW(counted, memory_dmabuf, MEMORY, .what = "1 GiB DMA-BUF, beyond a 4 KiB one", .unit = "bytes",
    .min = -512, .max = 512)
{
	int fd = whole_device("1024");
	double small, large;

	memory_of(fd, 4096);	/* what was free in slabs is used up first */
	small = memory_of(fd, 4096);
	large = memory_of(fd, GB);
	ktap_note("%d DMA-BUFs of 4 KiB take %.0f KiB, of 1 GiB %.0f KiB", BUFFERS, small / 1024,
		  large / 1024);
	report((large - small) / BUFFERS);
}

/* --- several threads --- */

#define THREADS		8
#define THREAD_FAULTS	512

struct thread {
	pthread_t id;
	pthread_barrier_t *barrier;
	char *base;
	size_t stride;
	uint64_t began, ended;
	unsigned long faults;
};

static void *fault_in(void *arg)
{
	struct thread *t = arg;
	unsigned long before = faults();

	pthread_barrier_wait(t->barrier);
	t->began = now();
	for (size_t i = 0; i < THREAD_FAULTS; i++)
		set_word(t->base + i * t->stride, stamp_of(i * t->stride));
	t->ended = now();
	t->faults = faults() - before;
	return NULL;
}

/*
 * When it counts instructions QEMU executes one CPU at a time and goes on to the next when a timer
 * is due. This makes one due so often that the threads are interrupted by each other everywhere,
 * holding any lock.
 */
static void *interrupt_often(void *stop)
{
	const struct timespec interval = { .tv_nsec = 20000 };

	prctl(PR_SET_TIMERSLACK, 1);
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		nanosleep(&interval, NULL);
	return NULL;
}

/* Instructions for a fault, each of n threads in a fresh mapping of its own of the same memory. */
static double cost_of_fault(int fd, size_t stride, int n)
{
	const size_t length = THREAD_FAULTS * stride;
	char *witness = map(fd, 0, length, RW);
	struct thread threads[THREADS] = { 0 };
	uint64_t began = UINT64_MAX, ended = 0;
	pthread_barrier_t barrier;
	unsigned long count = 0;
	bool stop = false;
	pthread_t timer;

	for (size_t i = 0; i < length; i += stride)
		set_word(witness + i, 0xa5);
	pthread_barrier_init(&barrier, NULL, n);
	ASSERT_EQ(0, pthread_create(&timer, NULL, interrupt_often, &stop));
	for (int i = 0; i < n; i++) {
		threads[i].barrier = &barrier;
		threads[i].stride = stride;
		threads[i].base = map(fd, 0, length, RW);
		ASSERT_EQ(0, pthread_create(&threads[i].id, NULL, fault_in, &threads[i]));
	}
	for (int i = 0; i < n; i++) {
		ASSERT_EQ(0, pthread_join(threads[i].id, NULL));
		began = lower(began, threads[i].began);
		ended = ~lower(~ended, ~threads[i].ended);
		count += threads[i].faults;
		munmap(threads[i].base, length);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(timer, NULL));
	for (size_t i = 0; i < length; i += stride)
		ASSERT_EQ(stamp_of(i), word(witness + i));
	munmap(witness, length);
	ASSERT_LE(n * THREAD_FAULTS, count);
	return (double)(ended - began) / count;
}

/* Where the threads meet is chance, so the lowest of several rounds. */
static double least_cost_of_fault(int fd, size_t stride, int n)
{
	double least = cost_of_fault(fd, stride, n);

	for (int round = 0; round < 7; round++)
		least = fmin(least, cost_of_fault(fd, stride, n));
	return least;
}

static double slowdown(int fd, size_t stride)
{
	return least_cost_of_fault(fd, stride, THREADS) / least_cost_of_fault(fd, stride, 1);
}

ROW(instructions, threads, .group = "a fault among 8 threads, against one alone",
    .what = "static device, against memfd", .unit = "x", .max = 1.1)
{
	double device = slowdown(whole_device("1024"), pmd_size);
	double file = slowdown(memfd(THREAD_FAULTS * page_size, 0), page_size);

	report_ratio(device, file);
}

/* --- loading --- */

#define LOADING	.group = "loading"

/* Populating a GiB of hugetlb. The work of filling the pool isn't counted. */
static uint64_t cost_to_populate(void)
{
	int fd = hugetlb(GB);
	uint64_t cost = own_time();
	char *p = mmap(NULL, GB, RW, MAP_SHARED | MAP_POPULATE, fd, 0);

	ASSERT_OK(p);
	cost = own_time() - cost;
	ASSERT_EQ(0, munmap(p, GB));
	close(fd);
	ASSERT_EQ(0, write_file("/proc/sys/vm/nr_hugepages", "0"));
	return cost;
}

/* Its number depends on the IVSHMEM devices that there are. */
static void find_gigabyte(void)
{
	char name[16];

	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		if (dev_read(&dev, name) && dev.size == GB)
			return;
	}
	FAIL("no device of 1 GiB");
}

/* With the device still there, so that both have fresh memory. */
static void report_gigabyte(uint64_t cost)
{
	uint64_t populate = cost_to_populate();

	find_gigabyte();
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_OK(dev.fd);
	stamp(map(dev.fd, 0, GB, RW), 0, GB);
	ASSERT_EQ(-1, unstamped(map(dev.fd, 0, GB, RW), 0, GB));
	report_ratio(cost, populate);
}

#define LOADING_RATIO	LOADING, .unit = "x", .max = 1.3

ROW(instructions, load, LOADING_RATIO,
    .what = "1 GiB device, against populating 1 GiB of hugetlb")
{
	uint64_t load;

	unload();
	load = own_time();
	ASSERT_EQ(0, module_load("kvmfr", "static_size_mb=1024"));
	report_gigabyte(own_time() - load);
}

ROW(instructions, create, LOADING_RATIO, .what = "1 GiB device, created later, against the same")
{
	uint64_t create;

	unload();
	need("1");
	create = own_time();
	ASSERT_EQ(0, write_file("/sys/module/kvmfr/parameters/static_size_mb", "1,1024"));
	report_gigabyte(own_time() - create);
}

/* --- fragmented memory --- */

/* Leaves every other page of most of the memory free, and pages that can't be moved between. */
static void fragment_memory(void)
{
	size_t length = (meminfo("MemFree") - 16 * MB) / pmd_size * pmd_size;
	int fd = memfd(length, 0);
	char *p = map(fd, 0, length, RW);

	ASSERT_EQ(0, write_file("/proc/sys/vm/compact_unevictable_allowed", "0"));
	ASSERT_OK(mlock(p, length));
	for (size_t i = 0; i < length; i += 2 * page_size)
		ASSERT_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, i, page_size));
}

ROW(fragmented, load_fragmented, LOADING, .what = "32 MiB in fragmented memory: in huge pages",
    .unit = "MiB", .max = 31)
{
	char want[64];
	int log, fd;

	need("1");
	unload();
	fragment_memory();
	log = log_mark();
	fd = whole_device("32");

	/* It says how much that is, and all of it works. */
	snprintf(want, sizeof(want), "kvmfr0: 32 MiB, %" PRIu64 " MiB of it in huge pages",
		 dev.huge_bytes / MB);
	ASSERT_TRUE(log_wait(log, want));
	ASSERT_EQ(LENGTH, dev.size);
	cost_to_map(fd, LENGTH, 0, NULL, map(fd, 0, LENGTH, RW));
	cost_to_map(dmabuf(fd, 0, LENGTH), LENGTH, 0, NULL, map(fd, 0, LENGTH, RW));
	report((double)dev.huge_bytes / MB);
}
