// SPDX-License-Identifier: GPL-2.0
/*
 * Long runs: devices are unplugged while they are in use, the module is loaded and unloaded with
 * users. The kernel's memory is compared before and after: a leak in each cycle adds up to more
 * than the kernel's own caches vary by.
 *
 *	soak [UNPLUGS=N] [LOADS=N]	how many times (100 and 20)
 */
#include <stdatomic.h>

#include "kvmfr_test.h"
#include "settle.h"

#define RW (PROT_READ | PROT_WRITE)
#define USERS 3
#define WARM_UP 10

/* --- what the kernel has in use --- */

#define MAX_CACHES 512

struct cache {
	char name[64];
	unsigned long objects;
	unsigned long per_slab;
};

struct memory {
	uint64_t free;
	struct cache cache[MAX_CACHES];
	unsigned int caches;
};

static void measure(struct memory *now)
{
	FILE *file = fopen("/proc/slabinfo", "re");
	char line[512];

	settle();
	now->caches = 0;
	while (file && now->caches < MAX_CACHES && fgets(line, sizeof(line), file)) {
		struct cache *cache = &now->cache[now->caches];

		/* debug_objects keeps up to 2,048 for later; what they stand for is elsewhere. */
		if (line[0] != '#' && sscanf(line, "%63s %lu %*u %*u %lu", cache->name,
					     &cache->objects, &cache->per_slab) == 3 &&
		    strcmp(cache->name, "debug_objects_cache"))
			now->caches++;
	}
	if (file)
		fclose(file);
	ASSERT_LE(20, now->caches);
	now->free = free_memory();
}

static const char *grown_name;
static long grown_by;

/*
 * By how many objects the worst slab cache has grown beyond what is allowed: half an object a cycle,
 * or two slabs a CPU, since those that a CPU allocates from count as full.
 */
static long grown(const struct memory *before, const struct memory *now, unsigned int cycles)
{
	long worst = -1, most = LONG_MIN;

	for (unsigned int i = 0; i < now->caches; i++) {
		for (unsigned int j = 0; j < before->caches; j++) {
			long allowed = 2 * now->cache[i].per_slab * sysconf(_SC_NPROCESSORS_ONLN);
			long more = now->cache[i].objects - before->cache[j].objects;

			if (strcmp(now->cache[i].name, before->cache[j].name))
				continue;
			if (allowed < cycles / 2)
				allowed = cycles / 2;
			if (more - allowed > most) {
				most = more - allowed;
				worst = i;
				grown_by = more;
			}
		}
	}
	grown_name = now->cache[worst].name;
	return most;
}

static bool lost(const struct memory *before, const struct memory *now, unsigned int cycles)
{
	/* One page lost each time is more than this, if there are many; free memory varies by less. */
	uint64_t allowed = cycles * page_size * 3 / 4;

	if (allowed < 2 << 20)
		allowed = 2 << 20;
	return grown(before, now, cycles) > 0 || before->free > now->free + allowed;
}

/*
 * A leak repeats; a kernel cache that has grown by itself doesn't grow by as much again. So only
 * memory that is lost in two runs counts.
 */
static void costs_no_memory(unsigned int cycles, const char *what, void (*repeat)(unsigned int))
{
	static struct memory before, now;
	bool is_lost = true;

	repeat(WARM_UP);
	measure(&before);
	for (int round = 0; is_lost && round < 2; round++) {
		repeat(cycles);
		ktap_note("%s cycles: %u", what, cycles);
		is_lost = !WAIT_FOR((measure(&now), !lost(&before, &now, cycles)));
		ktap_note("free memory before and after: %" PRIu64 " and %" PRIu64 " KiB; "
			  "the slab that grew most: %s, by %ld%s",
			  before.free >> 10, now.free >> 10, grown_name, grown_by,
			  is_lost ? ": memory is lost" : "");
		before = now;
	}
	EXPECT_TRUE(!is_lost);
}

/* --- users --- */

struct shared {
	atomic_uint busy[USERS];	/* how many times this one has had everything in use */
	atomic_bool quit, hold;
};

static struct shared *shared;
static pid_t users[USERS];

static struct shared *share(void)
{
	return mmap(NULL, sizeof(struct shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Everything a user does with a device, until it has gone or must be released */
static void use_once(const char *path, bool paged, uint64_t size, atomic_uint *busy)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), buf = -1;
	char *p = MAP_FAILED, *q = MAP_FAILED;
	bool counted = false;
	int sig = 0;

	if (fd < 0) {
		usleep(500);
		return;
	}
	p = mmap(NULL, size, RW, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		goto out;
	if (paged) {
		buf = dmabuf_try(fd, KVMFR_DMABUF_FLAG_CLOEXEC, page_size, size - page_size);
		if (buf < 0)
			goto out;
		q = mmap(NULL, size - page_size, RW, MAP_SHARED, buf, 0);
		if (q == MAP_FAILED)
			goto out;
	}
	while (!sig && !(counted && !atomic_load(&shared->hold))) {
		for (uint64_t i = 0; !sig && i < size - page_size; i += 7 * page_size) {
			sig = probe_write(p + i);
			if (!sig && q != MAP_FAILED)
				sig = probe_write(q + i);
		}
		if (!sig && !counted)
			atomic_fetch_add(busy, 1);
		counted = true;
	}
	if (sig) {
		EXPECT_EQ(SIGBUS, sig);
		EXPECT_ERRNO(ENODEV, ioctl(fd, KVMFR_DMABUF_GETSIZE));
	}
out:
	if (q != MAP_FAILED)
		munmap(q, size - page_size);
	if (p != MAP_FAILED)
		munmap(p, size);
	if (buf >= 0)
		close(buf);
	close(fd);
}

static void start_users(const struct kvmfr_dev *d)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", d->name);
	atomic_store(&shared->quit, false);
	atomic_store(&shared->hold, true);
	for (int i = 0; i < USERS; i++) {
		users[i] = fork();
		if (users[i])
			continue;
		while (!atomic_load(&shared->quit) && !ktap_failed)
			use_once(path, d->paged, d->size, &shared->busy[i]);
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	}
}

static bool all_busy(const unsigned int *since)
{
	for (int i = 0; i < USERS; i++)
		if (atomic_load(&shared->busy[i]) == since[i])
			return false;
	return true;
}

/* Waits until every user has had everything in use. */
static void wait_for_users(void)
{
	static unsigned int since[USERS];

	if (!WAIT_FOR(all_busy(since)))
		FAIL("users don't get at the device");
	for (int i = 0; i < USERS; i++)
		since[i] = atomic_load(&shared->busy[i]);
}

static void stop_users(void)
{
	atomic_store(&shared->quit, true);
	atomic_store(&shared->hold, false);
	for (int i = 0; i < USERS; i++)
		EXPECT_EQ(KTAP_PASS, join(users[i]));
}

/* --- the tests --- */

static void unplug(unsigned int times)
{
	start_users(&dev);
	for (unsigned int i = 1; i <= times; i++) {
		wait_for_users();
		ASSERT_EQ(0, pci_driver("unbind", dev.slot));
		ASSERT_EQ(0, pci_driver("bind", dev.slot));
		if (!(i % 100))
			ktap_note("%u of %u", i, times);
	}
	stop_users();
}

static void unplug_for_a_long_time(const char *kind)
{
	load_kvmfr("static_size_mb=2");
	if (!dev_find(&dev, kind))
		SKIP("this machine has no IVSHMEM device for it");
	shared = share();
	costs_no_memory(how_often("UNPLUGS", 100), "unplug", unplug);
}

TEST(unplugging_under_load_costs_no_memory, .timeout = 3600)
{
	unplug_for_a_long_time("pci");
}

TEST(unplugging_under_load_costs_no_memory_without_struct_pages, .timeout = 3600)
{
	unplug_for_a_long_time("pfn");
}

static void load(unsigned int times)
{
	for (unsigned int i = 0; i < times; i++) {
		ASSERT_EQ(0, module_load("kvmfr", "static_size_mb=5,2"));
		ASSERT_TRUE(dev_read(&dev, "kvmfr0"));
		start_users(&dev);
		wait_for_users();
		ASSERT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
		stop_users();
		/* The last file is let go a moment after its close(). */
		ASSERT_TRUE(WAIT_FOR(!module_unload("kvmfr")));
	}
}

TEST(loading_with_users_costs_no_memory, .timeout = 3600)
{
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	shared = share();
	costs_no_memory(how_often("LOADS", 20), "load", load);
}
