// SPDX-License-Identifier: GPL-2.0
/*
 * static_size_mb at loading: devices, their attributes and contents; or an error, and nothing is
 * left.
 */
#include <sys/sysmacros.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)
#define EIGHT "1,1,1,1,1,1,1,1,"

static bool in_file(const char *path, const char *wanted)
{
	FILE *file = fopen(path, "r");
	bool found = false;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		found |= strstr(line, wanted) != NULL;
	if (file)
		fclose(file);
	return found;
}

/* Loading fails with this error, says why in one line that has the value, and leaves nothing. */
static void refused(int error, const char *parameter, const char *value)
{
	char assignment[512], quoted[64];
	int mark, lines;

	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	snprintf(assignment, sizeof(assignment), "static_size_mb=%s", parameter);
	mark = log_mark();
	EXPECT_EQ(error, module_load("kvmfr", assignment));
	lines = log_count(mark, "kvmfr");
	if (lines != 1 || ktap_failed)
		ktap_note("that was %s, %d lines in the log", assignment, lines);
	EXPECT_EQ(1, lines);
	snprintf(quoted, sizeof(quoted), "\"%s\"", value);
	if (value && !strstr(log_last, quoted)) {
		ktap_note("%s is not in: %s", quoted, log_last);
		ktap_failed++;
	}
	EXPECT_TRUE(strstr(log_last, "static_size_mb"));

	EXPECT_TRUE(!module_loaded("kvmfr"));
	EXPECT_ERRNO(ENOENT, access("/sys/class/kvmfr", F_OK));
	EXPECT_ERRNO(ENOENT, access("/dev/kvmfr0", F_OK));
	EXPECT_ERRNO(ENOENT, access("/sys/bus/pci/drivers/kvmfr", F_OK));
	EXPECT_TRUE(!in_file("/proc/devices", "kvmfr"));
	EXPECT_TRUE(!in_file("/proc/filesystems", "kvmfr"));
}

TEST(zero_is_refused)
{
	refused(EINVAL, "0", "0");
	refused(EINVAL, "32,0", "0");
	refused(EINVAL, "0,32", "0");
}

TEST(negative_is_refused)
{
	refused(EINVAL, "-1", "-1");
	refused(EINVAL, "32,-32", "-32");
}

TEST(what_is_not_a_number_is_refused)
{
	refused(EINVAL, "abc", "abc");
	refused(EINVAL, "32M", "32M");
	refused(EINVAL, "3.5", "3.5");
	refused(EINVAL, "0x", "0x");
	refused(EINVAL, "", "");
	refused(EINVAL, ",", "");
	refused(EINVAL, "1,", "");
	refused(EINVAL, ",1", "");
	refused(EINVAL, "1,,1", "");
	refused(EINVAL, "1,2,x", "x");
	refused(EINVAL, "1;2", "1;2");
}

TEST(too_many_values_are_refused)
{
	refused(EINVAL, EIGHT EIGHT EIGHT EIGHT "1", NULL);
	EXPECT_TRUE(strstr(log_last, "32"));
}

TEST(more_than_the_machine_has_is_refused)
{
	unsigned int mb = meminfo("MemTotal") >> 20;
	char value[32], twice[64];

	refused(ENOMEM, "99999999", "99999999");
	refused(ENOMEM, "1,99999999", "99999999");
	/* 2^44 MiB are 2^64 bytes, which is 0 in 64 bits; then 1 MiB */
	refused(ENOMEM, "17592186044416", "17592186044416");
	refused(ENOMEM, "17592186044417", "17592186044417");
	refused(ENOMEM, "18446744073709551615", "18446744073709551615");
	refused(ENOMEM, "18446744073709551617", "18446744073709551617");
	snprintf(value, sizeof(value), "%u", mb);
	refused(ENOMEM, value, value);
	/* each alone would fit */
	snprintf(value, sizeof(value), "%u", mb * 6 / 10);
	snprintf(twice, sizeof(twice), "%s,%s", value, value);
	refused(ENOMEM, twice, value);
}

/* 4097 once made a device of 1 MiB: now one of that size, or none. */
TEST(size_of_gigabytes_is_taken_at_its_word)
{
	struct kvmfr_dev d;

	if (meminfo("MemAvailable") >> 20 < 4200) {
		refused(ENOMEM, "4097", "4097");
		return;
	}
	load_kvmfr("static_size_mb=4097");
	ASSERT_TRUE(dev_read(&d, "kvmfr0"));
	EXPECT_EQ(4097ULL << 20, d.size);
	ASSERT_EQ(0, module_unload("kvmfr"));
}

TEST(after_an_error_loading_works)
{
	refused(EINVAL, "0", "0");
	load_kvmfr("static_size_mb=2");
	EXPECT_EQ(0, access("/dev/kvmfr0", F_OK));
}

TEST(devices_come_in_the_order_of_the_sizes)
{
	const unsigned int mb[] = { 3, 1, 32, 2 };
	char value[64], name[32];
	struct kvmfr_dev d;

	load_kvmfr("static_size_mb=3,1,32,2");
	ASSERT_TRUE(read_file("/sys/module/kvmfr/parameters/static_size_mb", value, sizeof(value)));
	EXPECT_EQ(0, strcmp("3,1,32,2", value));
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		ASSERT_TRUE(dev_read(&d, name));
		EXPECT_EQ(0, strcmp("static", d.type));
		EXPECT_EQ(mb[i] << 20, d.size);
		EXPECT_LE(d.huge_bytes, d.size);
		d.fd = dev_open(&d, O_RDWR);
		EXPECT_EQ(d.size, lseek(d.fd, 0, SEEK_END));
		EXPECT_EQ(d.size, ioctl(d.fd, KVMFR_DMABUF_GETSIZE));
	}
	/* IVSHMEM devices are numbered after them */
	for (unsigned int i = 4; i < dev_count(); i++) {
		snprintf(name, sizeof(name), "kvmfr%u", i);
		ASSERT_TRUE(dev_read(&d, name));
		EXPECT_EQ(0, strcmp("pci", d.type));
	}
}

TEST(thirty_two_static_devices_are_possible)
{
	char name[32];
	struct kvmfr_dev d;

	load_kvmfr("static_size_mb=%s", EIGHT EIGHT EIGHT "1,1,1,1,1,1,1,2");
	for (int i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		ASSERT_TRUE(dev_read(&d, name));
		EXPECT_EQ(0, strcmp("static", d.type));
		EXPECT_EQ(i == 31 ? 2 << 20 : 1 << 20, d.size);
	}
	/* and each is memory of its own */
	for (int i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		dev_read(&d, name);
		set_word(map(dev_open(&d, O_RDWR), 0, 1 << 20, RW), stamp_of(i * page_size));
	}
	for (int i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "kvmfr%d", i);
		dev_read(&d, name);
		EXPECT_EQ(stamp_of(i * page_size), word(map(dev_open(&d, O_RDWR), 0, 1 << 20, RW)));
	}
}

TEST(without_a_size_there_are_only_pci_devices)
{
	char name[32];
	struct kvmfr_dev d;

	load_kvmfr("%s", "");
	for (unsigned int i = 0; i < dev_count(); i++) {
		snprintf(name, sizeof(name), "kvmfr%u", i);
		ASSERT_TRUE(dev_read(&d, name));
		EXPECT_EQ(0, strcmp("pci", d.type));
	}
	EXPECT_TRUE(module_loaded("kvmfr"));
}

TEST_ANY(attributes_are_plain_numbers_and_words)
{
	char path[128], text[128], wanted[128];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/size", dev.name);
	fd = open(path, O_RDONLY);
	memset(text, 0, sizeof(text));
	ASSERT_GE(read(fd, text, sizeof(text) - 1), 2);
	snprintf(wanted, sizeof(wanted), "%" PRIu64 "\n", dev.size);
	EXPECT_EQ(0, strcmp(wanted, text));
	EXPECT_NE(0, write_file(path, "1"));
	EXPECT_EQ(0, dev.huge_bytes % pmd_size);
	EXPECT_LE(dev.huge_bytes, dev.size);

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/dev", dev.name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	snprintf(path, sizeof(path), "/dev/%s", dev.name);
	ASSERT_OK(stat(path, &st));
	snprintf(wanted, sizeof(wanted), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	EXPECT_EQ(0, strcmp(wanted, text));
}

TEST_ANY(parent_of_a_pci_device_is_the_pci_device)
{
	char path[128], text[64];

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/device/vendor", dev.name);
	if (!strcmp(dev.type, "static")) {
		EXPECT_TRUE(!read_file(path, text, sizeof(text)));
		return;
	}
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	EXPECT_EQ(0, strcmp("0x1af4", text));
	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/device/device", dev.name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	EXPECT_EQ(0, strcmp("0x1110", text));
}

TEST(static_memory_is_zero_at_first_and_stays_until_unloading)
{
	uint64_t size = 8 << 20;
	struct kvmfr_dev d;

	for (int round = 0; round < 3; round++) {
		uint64_t *p;

		load_kvmfr("static_size_mb=8");
		ASSERT_TRUE(dev_read(&d, "kvmfr0"));
		d.fd = dev_open(&d, O_RDWR);
		p = map(d.fd, 0, size, RW);
		for (size_t i = 0; i < size / 8; i++)
			ASSERT_EQ(0, p[i]);
		memset(p, 0xff, size);
		munmap(p, size);
		close(d.fd);
		/* nobody has it open for a moment */
		d.fd = dev_open(&d, O_RDONLY);
		p = map(d.fd, 0, size, PROT_READ);
		for (size_t i = 0; i < size / 8; i++)
			ASSERT_EQ(~0ULL, p[i]);
		munmap(p, size);
		close(d.fd);
	}
}

TEST_UNLOADS()
