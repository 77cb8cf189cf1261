// SPDX-License-Identifier: GPL-2.0
/* Who may do what: "Permissions" of docs/guide/loading.rst, tried by a user who wants more. */
#include <limits.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)
#define NOBODY 65534

static char node[64];

static void become_nobody(void)
{
	ASSERT_OK(setresgid(NOBODY, NOBODY, NOBODY));
	ASSERT_OK(setresuid(NOBODY, NOBODY, NOBODY));
	/* After the change of user a process may not look at itself otherwise. */
	ASSERT_OK(prctl(PR_SET_DUMPABLE, 1));
}

/* A user without permission, by every way to the memory there is. */
static void knock(void)
{
	char path[PATH_MAX];

	become_nobody();
	EXPECT_ERRNO(EACCES, open(node, O_RDONLY));
	EXPECT_ERRNO(EACCES, open(node, O_WRONLY));
	EXPECT_ERRNO(EACCES, open(node, O_RDWR));
	EXPECT_ERRNO(EPERM, chmod(node, 0666));
	EXPECT_EQ(EPERM, module_unload("kvmfr"));
	EXPECT_EQ(EACCES, write_file("/sys/module/kvmfr/parameters/static_size_mb", "1"));
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/size", dev.name);
	EXPECT_EQ(EACCES, write_file(path, "4096"));
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/uevent", dev.name);
	EXPECT_EQ(EACCES, write_file(path, "add"));
	if (dev.slot[0]) {
		EXPECT_EQ(EACCES, pci_driver("unbind", dev.slot));
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", dev.slot);
		EXPECT_ERRNO(EACCES, open(path, O_RDONLY));
	}
}

TEST_ANY(others_have_no_way_in)
{
	snprintf(node, sizeof(node), "/dev/%s", dev.name);
	IN_CHILD(knock());
}

/* The sizes are what the module was loaded with: nobody can change them, not even root. */
TEST_ANY(attributes_are_for_reading)
{
	static const char *const attributes[] = { "size", "type", "huge_bytes" };
	char path[128];
	struct stat st;

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/%s", dev.name, attributes[i]);
		ASSERT_OK(stat(path, &st));
		EXPECT_EQ(S_IFREG | 0444, st.st_mode);
	}
	ASSERT_OK(stat("/sys/module/kvmfr/parameters/static_size_mb", &st));
	EXPECT_EQ(S_IFREG | 0644, st.st_mode);
}

/* A user whom the node's mode permits only to read tries to write. */
static void only_read(void)
{
	static uint64_t mine = 0xbad;
	int fd, mem, pipes[2];
	struct iovec from = { &mine, 8 }, to = { NULL, 8 };
	char path[64];
	char *p;

	become_nobody();
	EXPECT_ERRNO(EACCES, open(node, O_RDWR));
	EXPECT_ERRNO(EACCES, open(node, O_WRONLY));
	fd = open(node, O_RDONLY);
	ASSERT_OK(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT_ERRNO(EACCES, open(path, O_RDWR));
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, RW, MAP_SHARED, fd, 0));
	EXPECT_ERRNO(EACCES, mmap(NULL, page_size, PROT_WRITE, MAP_SHARED, fd, 0));
	EXPECT_ERRNO(EACCES, dmabuf_try(fd, 0, 0, page_size));

	p = map(fd, 0, page_size, PROT_READ);
	EXPECT_EQ(stamp_of(0), word(p));
	EXPECT_ERRNO(EACCES, mprotect(p, page_size, RW));
	EXPECT_EQ(SIGSEGV, probe_write(p));
	/* What may write to text of a program, as a debugger does, may not write here. */
	mem = open("/proc/self/mem", O_RDWR);
	ASSERT_OK(mem);
	EXPECT_EQ(-1, pwrite(mem, &mine, 8, (uintptr_t)p));
	to.iov_base = p;
	EXPECT_ERRNO(EFAULT, process_vm_writev(getpid(), &from, 1, &to, 1, 0));
	ASSERT_OK(pipe(pipes));
	ASSERT_EQ(8, write(pipes[1], &mine, 8));
	EXPECT_ERRNO(EFAULT, read(pipes[0], p, 8));
	EXPECT_EQ(stamp_of(0), word(p));
}

TEST_ANY(reader_cannot_write)
{
	char *p = map(dev.fd, 0, page_size, RW);

	stamp(p, 0, page_size);
	snprintf(node, sizeof(node), "/dev/%s", dev.name);
	ASSERT_OK(chmod(node, 0444));
	IN_CHILD(only_read());
	ASSERT_OK(chmod(node, 0600));
	EXPECT_EQ(stamp_of(0), word(p));
}

/* A pin of a read-only mapping for writing, as a device would take one */
TEST_PAGED(reader_cannot_have_a_device_write)
{
	int fd = dev_open(&dev, O_RDONLY), imp = importer();

	EXPECT_EQ(EFAULT, import_pin(imp, map(fd, 0, page_size, PROT_READ), page_size));
	/* the same with permission, so that was the reason */
	EXPECT_EQ(0, import_pin(imp, map(dev.fd, 0, dev.size, RW), page_size));
}

/* Nor by calls that map another part of a mapping's file */
static void only_the_window(int buf, uint64_t offset, uint64_t size)
{
	char *p = map(buf, 0, size, RW);

	EXPECT_EQ(-1, unstamped(p, offset, size));
	EXPECT_ERRNO(EINVAL, mmap(NULL, size + page_size, PROT_READ, MAP_SHARED, buf, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, page_size, PROT_READ, MAP_SHARED, buf, size));
	EXPECT_ERRNO(EFAULT, mremap(p, size, size + page_size, MREMAP_MAYMOVE));
	for (uint64_t page = 0; page < dev.size / page_size; page++) {
		bool inside = false;

		if (syscall(SYS_remap_file_pages, p, page_size, 0, page, 0)) {
			EXPECT_EQ(EINVAL, errno);
			continue;
		}
		for (uint64_t i = 0; i < size; i += page_size)
			inside = inside || word(p) == stamp_of(offset + i);
		EXPECT_TRUE(inside);
	}
}

TEST_PAGED(dmabuf_gives_its_part_alone)
{
	const uint64_t offset = 5 * page_size, size = 3 * page_size;
	char *p = map(dev.fd, 0, dev.size, RW);
	int buf;

	stamp(p, 0, dev.size);
	buf = dmabuf(dev.fd, offset, size);
	munmap(p, dev.size);
	close(dev.fd);
	IN_CHILD(become_nobody(); only_the_window(buf, offset, size));
}

/* --- contents --- */

static uint64_t random_word(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state ^ *state >> 32;
}

/* Zeros, ones, random words, and words that look like pointers */
static void garbage(char *p, int kind, uint64_t *state)
{
	for (uint64_t i = 0; i < dev.size; i += 8) {
		uint64_t r = random_word(state);
		uint64_t kinds[] = { 0, ~0ULL, r, 0xffff888000000000 | (r & 0xffffff8) };

		set_word(p + i, kinds[kind]);
	}
}

static void use_everything(void)
{
	char *copy = malloc(page_size);
	int buf, imp;

	EXPECT_EQ(dev.size, lseek(dev.fd, 0, SEEK_END));
	EXPECT_EQ(dev.size > INT32_MAX ? -1 : (long)dev.size, ioctl(dev.fd, KVMFR_DMABUF_GETSIZE));
	EXPECT_EQ(0, probe_read(map(dev.fd, 0, dev.size, RW)));
	if (!dev.paged) {
		EXPECT_ERRNO(EOPNOTSUPP, dmabuf_try(dev.fd, 0, 0, page_size));
		return;
	}
	buf = dmabuf(dev.fd, page_size, dev.size - page_size);
	EXPECT_EQ(0, probe_write(map(buf, 0, dev.size - page_size, RW)));
	imp = importer();
	EXPECT_EQ(0, import(imp, buf, page_size));
	EXPECT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	EXPECT_EQ(0, ioctl(imp, KVMFR_IMPORTER_VMAP));
	EXPECT_EQ(0, ioctl(imp, KVMFR_IMPORTER_BEGIN_CPU, KVMFR_IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, ioctl(imp, KVMFR_IMPORTER_END_CPU, KVMFR_IMPORTER_BIDIRECTIONAL));
	EXPECT_EQ(0, import_io(imp, KVMFR_IMPORTER_VIA_VMAP, false, 0, copy, page_size));
	close(imp);
	close(buf);
	free(copy);
}

/* Whatever the memory contains (a guest may write anything), every call returns the same. */
TEST_ANY(what_the_memory_holds_makes_no_difference)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	uint64_t state = 0x6b766d6672;

	for (int kind = 0; kind < 4; kind++) {
		garbage(p, kind, &state);
		IN_CHILD(use_everything());
	}
}

/* And while it changes: the other processor writes without a pause. */
TEST_ANY(memory_that_changes_all_the_time_makes_no_difference)
{
	char *p = map(dev.fd, 0, dev.size, RW);
	pid_t writer = fork();
	uint64_t state = 1;

	if (!writer)
		for (int kind = 2;; kind ^= 1)
			garbage(p, kind, &state);
	for (int i = 0; i < 20; i++)
		IN_CHILD(use_everything());
	kill(writer, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, join(writer));
}

static void leave(uint64_t value)
{
	char *p = map(dev.fd, 0, dev.size, RW);

	for (uint64_t i = 0; i < dev.size; i += 8)
		set_word(p + i, value ^ i);
	munmap(p, dev.size);
	close(dev.fd);
}

/* 0, 1: none or all of the memory is as leave() left it; else neither */
static int is_left(uint64_t value)
{
	uint64_t same = 0, zero = 0;
	char *p;

	dev.fd = dev_open(&dev, O_RDWR);
	p = map(dev.fd, 0, dev.size, RW);
	for (uint64_t i = 0; i < dev.size; i += 8) {
		same += word(p + i) == (value ^ i);
		zero += word(p + i) == 0;
	}
	munmap(p, dev.size);
	close(dev.fd);
	return same == dev.size / 8 ? 1 : zero == dev.size / 8 ? 0 : -1;
}

TEST_STATIC(contents_last_until_the_module_is_unloaded)
{
	IN_CHILD(leave(0x1ef7));
	close(dev.fd);
	EXPECT_EQ(1, is_left(0x1ef7));
	load_kvmfr("static_size_mb=%u,1", default_mb());
	ASSERT_TRUE(dev_read(&dev, "kvmfr0"));
	EXPECT_EQ(0, is_left(0x1ef7));
}

TEST_ANY(contents_last_while_nobody_has_it_open)
{
	IN_CHILD(leave(0x2ef7));
	close(dev.fd);
	EXPECT_EQ(1, is_left(0x2ef7));
	if (!dev.slot[0])
		return;
	/* The hypervisor's memory is not the driver's to clear. */
	ASSERT_EQ(0, pci_driver("unbind", dev.slot));
	ASSERT_EQ(0, pci_driver("bind", dev.slot));
	ASSERT_TRUE(dev_wait(&dev, dev.slot));
	EXPECT_EQ(1, is_left(0x2ef7));
}

/* "kvmfrctl clear", as docs/guide/loading.rst says. The program is $KVMFRCTL. */
TEST_ANY(kvmfrctl_clears_the_contents)
{
	const char *kvmfrctl = getenv("KVMFRCTL");
	char command[PATH_MAX];

	if (!kvmfrctl || access(kvmfrctl, X_OK))
		SKIP("no kvmfrctl in this machine (KVMFRCTL)");
	IN_CHILD(leave(0x3ef7));
	close(dev.fd);
	ASSERT_EQ(1, is_left(0x3ef7));
	snprintf(command, sizeof(command), "%s clear /dev/%s >&2", kvmfrctl, dev.name);
	ASSERT_EQ(0, system(command));
	EXPECT_EQ(0, is_left(0x3ef7));
}

TEST_UNLOADS()
