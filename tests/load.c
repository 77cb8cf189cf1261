// SPDX-License-Identifier: GPL-2.0
/* Loading and unloading: what keeps the module loaded, what doesn't, and that nothing leaks. */
#include <sched.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static void load_use_unload(void)
{
	struct kvmfr_dev d;
	char *p;
	int buf;

	load_kvmfr("static_size_mb=%u,1", default_mb());
	for (unsigned int i = 0; i < dev_count(); i++) {
		char name[32];

		snprintf(name, sizeof(name), "kvmfr%u", i);
		ASSERT_TRUE(dev_read(&d, name));
		d.fd = dev_open(&d, O_RDWR);
		p = map(d.fd, 0, d.size, RW);
		stamp(p, 0, d.size);
		ASSERT_EQ(-1, unstamped(p, 0, d.size));
		if (d.paged) {
			buf = dmabuf(d.fd, page_size, d.size - page_size);
			ASSERT_EQ(0, probe_read(map(buf, 0, page_size, PROT_READ)));
		}
	}
}

TEST(forty_times_load_and_unload_cost_no_memory, .timeout = 300)
{
	uint64_t before = 0, after;

	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	for (int i = 0; i < 43; i++) {
		IN_CHILD(load_use_unload());
		ASSERT_EQ(0, module_unload("kvmfr"));
		ASSERT_TRUE(!module_loaded("kvmfr"));
		if (i == 2)	/* what the kernel sets up once, it has set up */
			before = free_memory();
	}
	after = free_memory();
	ktap_note("free before and after: %" PRIu64 " and %" PRIu64 " KiB",
		  before >> 10, after >> 10);
	/* The kernel's own caches grow by a few dozen pages; a leak of forty rounds is more. */
	EXPECT_LE(before, after + 120 * page_size);
}

/* Opens the node the moment it appears: by then everything behind it has to work. */
static void catch_node(const char *name)
{
	struct kvmfr_dev d;
	char path[64];
	char *p;

	snprintf(path, sizeof(path), "/dev/%s", name);
	while ((d.fd = open(path, O_RDWR | O_CLOEXEC)) < 0) {
		ASSERT_TRUE(errno == ENOENT || errno == ENXIO);
		sched_yield();
	}
	p = map(d.fd, 0, page_size, RW);
	ASSERT_EQ(0, probe_write(p));
	ASSERT_EQ(dev.size, lseek(d.fd, 0, SEEK_END));
	p = map(d.fd, 0, dev.size, RW);
	for (uint64_t at = 0; at < dev.size; at += page_size)
		ASSERT_EQ(0, probe_read(p + at));
	if (dev.paged)
		dmabuf(d.fd, 0, dev.size);
	ASSERT_TRUE(dev_read(&d, name));
	EXPECT_EQ(dev.size, d.size);
	EXPECT_EQ(0, strcmp(dev.type, d.type));
}

TEST_ANY(node_that_appears_works)
{
	close(dev.fd);
	for (int round = 0; round < 4; round++) {
		pid_t pid;

		ASSERT_EQ(0, module_unload("kvmfr"));
		pid = fork();
		if (!pid) {
			catch_node(dev.name);
			_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
		}
		need_kvmfr();
		ASSERT_EQ(KTAP_PASS, join(pid));
	}
}

/* The module is in use: unloading is refused, and what there is goes on working. */
static void still_there(char *p)
{
	struct kvmfr_dev d;
	int fd;

	for (int i = 0; i < 3; i++)
		EXPECT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
	if (p) {
		stamp(p, 2 * page_size, 4 * page_size);
		EXPECT_EQ(-1, unstamped(p, 2 * page_size, 4 * page_size));
	}
	ASSERT_TRUE(dev_read(&d, dev.name));
	fd = dev_open(&d, O_RDWR);
	ASSERT_OK(fd);
	EXPECT_EQ(d.size, lseek(fd, 0, SEEK_END));
	if (p) {
		p = map(fd, 2 * page_size, 4 * page_size, RW);
		EXPECT_EQ(-1, unstamped(p, 2 * page_size, 4 * page_size));
	}
	if (dev.paged)
		close(dmabuf(fd, 0, dev.size));
	close(fd);
}

TEST_ANY(descriptor_keeps_the_module)
{
	still_there(NULL);
	close(dev.fd);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_ANY(read_only_descriptor_keeps_the_module)
{
	int ro = dev_open(&dev, O_RDONLY);

	close(dev.fd);
	still_there(NULL);
	close(ro);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_ANY(mapping_keeps_the_module)
{
	char *p = map(dev.fd, 2 * page_size, 4 * page_size, RW);

	close(dev.fd);
	IN_CHILD(still_there(p));
	/* a piece of it is enough */
	munmap(p, 2 * page_size);
	munmap(p + 3 * page_size, page_size);
	IN_CHILD(still_there(NULL));
	munmap(p + 2 * page_size, page_size);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_PAGED(dmabuf_keeps_the_module)
{
	int buf = dmabuf(dev.fd, 2 * page_size, 4 * page_size);

	close(dev.fd);
	IN_CHILD(still_there(map(buf, 0, 4 * page_size, RW)));
	close(buf);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_PAGED(mapping_of_a_dmabuf_keeps_the_module)
{
	int buf = dmabuf(dev.fd, 2 * page_size, 4 * page_size);
	char *p = map(buf, 0, 4 * page_size, RW);

	close(dev.fd);
	close(buf);
	IN_CHILD(still_there(p));
	munmap(p, 4 * page_size);
	EXPECT_EQ(0, module_unload("kvmfr"));
}

TEST_PAGED(importer_keeps_the_module)
{
	int imp = importer();
	int buf = dmabuf(dev.fd, 2 * page_size, 4 * page_size);

	ASSERT_EQ(0, import(imp, buf, 0));
	close(dev.fd);
	close(buf);
	still_there(NULL);
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	still_there(NULL);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
	still_there(NULL);
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_UNMAP));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VUNMAP));
	ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_DETACH));
	EXPECT_EQ(0, module_unload("kvmfr"));
}

/* A process that died with everything open holds nothing. */
TEST_PAGED(killed_user_keeps_nothing)
{
	int ready[2];
	char byte;
	pid_t pid;

	ASSERT_OK(pipe(ready));
	close(dev.fd);
	pid = fork();
	if (!pid) {
		int imp = importer();
		int buf;

		dev.fd = dev_open(&dev, O_RDWR);
		buf = dmabuf(dev.fd, page_size, dev.size - page_size);
		stamp(map(dev.fd, 0, dev.size, RW), 0, dev.size);
		stamp(map(buf, 0, dev.size - page_size, RW), page_size, dev.size - page_size);
		ASSERT_EQ(0, import(imp, buf, 0));
		ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
		ASSERT_OK(ioctl(imp, KVMFR_IMPORTER_VMAP));
		ASSERT_EQ(0, import_pin(imp, map(dev.fd, 0, dev.size, RW), dev.size));
		ASSERT_EQ(1, write(ready[1], "x", 1));
		pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)	/* skipped, or failed and said so */
		_exit(join(pid));
	EXPECT_EQ(EWOULDBLOCK, module_unload("kvmfr"));
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, join(pid));
	EXPECT_EQ(0, module_unload("kvmfr"));
}

static bool module_is_coming(void)
{
	char state[16];

	return read_file("/sys/module/kvmfr/initstate", state, sizeof(state)) &&
	       !strcmp(state, "coming");
}

/* A modprobe that asked for too much memory is interrupted. */
TEST(killed_loader_leaves_nothing)
{
	uint64_t before, size = meminfo("MemAvailable") / 2;
	bool stopped = false;
	char parameters[64];
	int status;
	pid_t pid;

	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	snprintf(parameters, sizeof(parameters), "static_size_mb=%" PRIu64, size >> 20);
	before = free_memory();
	for (int tries = 0; tries < 20 && !stopped; tries++) {
		pid = fork();
		ASSERT_OK(pid);
		if (!pid)
			_exit(module_load("kvmfr", parameters));
		while (!module_is_coming() && !waitpid(pid, &status, WNOHANG))
			sched_yield();
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		stopped = WIFSIGNALED(status) && !module_loaded("kvmfr");
		if (module_loaded("kvmfr"))	/* too late */
			ASSERT_EQ(0, module_unload("kvmfr"));
	}
	ASSERT_TRUE(stopped);
	EXPECT_LE(before, free_memory() + size / 8);
	load_kvmfr("static_size_mb=1");
}

TEST_UNLOADS()
