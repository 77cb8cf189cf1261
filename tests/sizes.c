// SPDX-License-Identifier: GPL-2.0
/* static_size_mb written while the module is loaded: the devices become what was written. */
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)
#define PARAMETER "/sys/module/kvmfr/parameters/static_size_mb"

static int sizes_write(const char *sizes)
{
	return write_file(PARAMETER, sizes);
}

/* The parameter reads like this, and these static devices are there: "kvmfr0=4 kvmfr2=2". */
static void expect(const char *sizes, const char *devices)
{
	char text[256] = "", have[256] = "", name[32];
	struct kvmfr_dev d;

	ASSERT_TRUE(read_file(PARAMETER, text, sizeof(text)) || !*sizes);
	if (strcmp(sizes, text))
		FAIL("the parameter reads \"%s\", expected \"%s\"", text, sizes);
	for (int i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		if (!dev_read(&d, name) || strcmp(d.type, "static"))
			continue;
		snprintf(have + strlen(have), sizeof(have) - strlen(have), "%s%s=%u",
			 *have ? " " : "", name, (unsigned int)(d.size >> 20));
	}
	if (strcmp(devices, have))
		FAIL("there are \"%s\", expected \"%s\"", have, devices);
}

/* Opens /dev/NAME and leaves a word in it. */
static int mark(const char *name, uint64_t value)
{
	struct kvmfr_dev d;
	int fd;

	ASSERT_TRUE(dev_read(&d, name));
	fd = dev_open(&d, O_RDWR);
	ASSERT_OK(fd);
	ASSERT_EQ(8, pwrite(fd, &value, 8, 4096));
	return fd;
}

static uint64_t marked(const char *name)
{
	struct kvmfr_dev d;
	uint64_t value = ~0ULL;
	int fd;

	ASSERT_TRUE(dev_read(&d, name));
	fd = dev_open(&d, O_RDONLY);
	ASSERT_OK(fd);
	ASSERT_EQ(8, pread(fd, &value, 8, 4096));
	close(fd);
	return value;
}

/* Only static devices may exist, since others would shift the numbers. */
static void without_pci(const char *variant)
{
	(void)variant;
	load_kvmfr("static_size_mb=4,2,3");
	for (unsigned int i = 0; i < 64; i++) {
		char name[32];
		struct kvmfr_dev d;

		snprintf(name, sizeof(name), "kvmfr%u", i);
		if (dev_read(&d, name) && *d.slot)
			ASSERT_EQ(0, pci_driver("unbind", d.slot));
	}
}

static const char *const once[] = { "alone", NULL };
static const struct ktap_fixture alone = { .variants = once, .setup = without_pci };
#define TEST_ALONE(name) TEST(name, .fixture = &alone)

TEST_ALONE(devices_whose_size_stays_stay)
{
	close(mark("kvmfr0", 1));
	close(mark("kvmfr2", 3));
	ASSERT_EQ(0, sizes_write("4,3"));
	expect("4,3", "kvmfr0=4 kvmfr2=3");
	EXPECT_EQ(1, marked("kvmfr0"));
	EXPECT_EQ(3, marked("kvmfr2"));
	EXPECT_ERRNO(ENOENT, access("/dev/kvmfr1", F_OK));
}

TEST_ALONE(devices_stay_wherever_their_size_is_in_the_list)
{
	close(mark("kvmfr0", 1));
	close(mark("kvmfr1", 2));
	close(mark("kvmfr2", 3));
	ASSERT_EQ(0, sizes_write("3,5,2,4"));
	expect("3,5,2,4", "kvmfr0=4 kvmfr1=2 kvmfr2=3 kvmfr3=5");
	EXPECT_EQ(1, marked("kvmfr0"));
	EXPECT_EQ(2, marked("kvmfr1"));
	EXPECT_EQ(3, marked("kvmfr2"));
}

TEST_ALONE(new_ones_get_the_lowest_free_numbers_and_zeros)
{
	close(mark("kvmfr1", 2));
	ASSERT_EQ(0, sizes_write("4,3"));
	ASSERT_EQ(0, sizes_write("4,3,5,6"));
	expect("4,3,5,6", "kvmfr0=4 kvmfr1=5 kvmfr2=3 kvmfr3=6");
	EXPECT_EQ(0, marked("kvmfr1"));
}

TEST_ALONE(another_size_replaces_a_device)
{
	close(mark("kvmfr1", 2));
	ASSERT_EQ(0, sizes_write("4,8,3"));
	expect("4,8,3", "kvmfr0=4 kvmfr1=8 kvmfr2=3");
	EXPECT_EQ(0, marked("kvmfr1"));
}

TEST_ALONE(writing_what_there_is_changes_nothing)
{
	int fd = mark("kvmfr1", 2);

	ASSERT_EQ(0, sizes_write("4,2,3\n"));
	expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
	EXPECT_EQ(2, marked("kvmfr1"));
	close(fd);
}

TEST_ALONE(empty_line_removes_all)
{
	ASSERT_EQ(0, sizes_write("\n"));
	expect("", "");
	ASSERT_EQ(0, sizes_write("7"));
	expect("7", "kvmfr0=7");
}

static void busy(const char *name)
{
	int log = log_mark();

	EXPECT_EQ(EBUSY, sizes_write("9,3,11"));
	EXPECT_EQ(1, log_count(log, ""));
	log = log_mark();
	EXPECT_EQ(EBUSY, sizes_write("9,3,11"));
	EXPECT_EQ(1, log_count(log, name));
	expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
	EXPECT_EQ(17, marked("kvmfr0"));
}

TEST_ALONE(device_that_is_open_mapped_or_a_dmabuf_is_busy_and_then_nothing_changes)
{
	int fd = mark("kvmfr1", 2), buf;
	char *p;

	close(mark("kvmfr0", 17));
	busy("kvmfr1");
	p = map(fd, 0, page_size, RW);
	close(fd);
	busy("kvmfr1");
	munmap(p, page_size);
	fd = mark("kvmfr1", 2);
	buf = dmabuf(fd, 0, page_size);
	close(fd);
	busy("kvmfr1");
	close(buf);
	ASSERT_EQ(0, sizes_write("9,3,11"));
	expect("9,3,11", "kvmfr0=9 kvmfr1=11 kvmfr2=3");
}

/* Of two devices of one size, the one in use is kept. */
TEST_ALONE(device_in_use_stays_before_others)
{
	int fd;

	ASSERT_EQ(0, sizes_write("2,2,2"));
	fd = mark("kvmfr2", 5);
	ASSERT_EQ(0, sizes_write("2"));
	expect("2", "kvmfr2=2");
	EXPECT_EQ(5, marked("kvmfr2"));
	close(fd);
}

TEST_ALONE(rules_are_those_of_loading)
{
	const char *const bad[] = { "0", "-1", "4,", ",", "x", "4,2,3,0", "1 2", "4;2" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(EINVAL, sizes_write(bad[i]));
		expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
	}
	EXPECT_EQ(ENOMEM, sizes_write("4,2,99999999"));
	expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
	EXPECT_EQ(EINVAL, sizes_write("1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"));
	expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
}

TEST_ALONE(uevents_tell_what_comes_and_goes)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	bool added = false, removed = false;
	char text[8192];
	ssize_t n;

	ASSERT_OK(fd);
	ASSERT_OK(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	ASSERT_EQ(0, sizes_write("4,6,3"));
	while ((n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
		text[n] = '\0';
		removed |= !strcmp(text, "remove@/devices/virtual/kvmfr/kvmfr1");
		added |= removed && !strcmp(text, "add@/devices/virtual/kvmfr/kvmfr1");
	}
	EXPECT_TRUE(removed);
	EXPECT_TRUE(added);
}

/* The child is killed when it has taken 0, 10, 20… MiB of 300. */
TEST_ALONE(killed_writer_leaves_what_was)
{
	unsigned int killed = 0;
	uint64_t before;

	ASSERT_EQ(0, sizes_write("4,2,3"));
	before = free_memory();
	for (uint64_t mb = 0; mb < 200; mb += 10) {
		uint64_t begin = meminfo("MemFree");
		pid_t pid = fork();
		char text[64];

		if (!pid)
			_exit(sizes_write("4,2,3,300"));
		while (meminfo("MemFree") + (mb << 20) > begin && process_state(pid) != 'Z')
			sched_yield();
		kill(pid, SIGKILL);
		killed += join(pid) == 128 + SIGKILL;
		ASSERT_TRUE(read_file(PARAMETER, text, sizeof(text)));
		if (strcmp(text, "4,2,3")) {
			ASSERT_EQ(0, strcmp(text, "4,2,3,300"));
			ASSERT_EQ(0, sizes_write("4,2,3"));
		}
	}
	EXPECT_TRUE(killed > 0);
	ktap_note("killed while it wrote: %u of 20", killed);
	expect("4,2,3", "kvmfr0=4 kvmfr1=2 kvmfr2=3");
	EXPECT_TRUE(WAIT_FOR(free_memory() + (4 << 20) > before));
}

TEST_ALONE(creating_and_removing_loses_nothing)
{
	const unsigned int rounds = how_often("SIZES_ROUNDS", 100);
	uint64_t before;

	ASSERT_EQ(0, sizes_write("4,2,3,1"));
	ASSERT_EQ(0, sizes_write("4,2,3"));
	before = free_memory();
	for (unsigned int i = 0; i < rounds; i++) {
		ASSERT_EQ(0, sizes_write("4,2,3,2,1"));
		ASSERT_EQ(0, sizes_write("4,2,3"));
	}
	EXPECT_TRUE(WAIT_FOR(free_memory() + (4 << 20) > before));
}

TEST_UNLOADS()
