// SPDX-License-Identifier: GPL-2.0
/*
 * A machine of several nodes: the memory comes from where the loader's memory policy says, as in
 * "numactl --membind=1 modprobe kvmfr static_size_mb=64".
 */
#include <linux/mempolicy.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

#define PARAMETER "/sys/module/kvmfr/parameters/static_size_mb"

static void bind_to(int node)
{
	unsigned long nodes = 1UL << node;

	ASSERT_OK(syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8 * sizeof(nodes)));
}

static void unbind(void)
{
	ASSERT_OK(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
}

static void check_memory(const char *name, int node)
{
	unsigned int wrong = 0;
	char path[64], text[16];
	char *p;

	snprintf(path, sizeof(path), "/sys/class/kvmfr/%s/node", name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	EXPECT_EQ(node, atoi(text));
	ASSERT_TRUE(dev_read(&dev, name));
	dev.fd = dev_open(&dev, O_RDWR);
	p = map(dev.fd, 0, dev.size, RW);
	stamp(p, 0, dev.size);
	for (uint64_t i = 0; i < dev.size; i += page_size) {
		void *page = p + i;
		int status = -1;

		ASSERT_OK(syscall(SYS_move_pages, 0, 1, &page, NULL, &status, 0));
		wrong += status != node;
	}
	EXPECT_EQ(0, wrong);
	close(dev.fd);
	munmap(p, dev.size);
}

static void check_loading(int node)
{
	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	bind_to(node);
	ASSERT_EQ(0, module_load("kvmfr", "static_size_mb=64"));
	unbind();
	check_memory("kvmfr0", node);
}

TEST(memory_is_of_the_node_that_the_loader_is_bound_to)
{
	ASSERT_EQ(0, access("/sys/devices/system/node/node1", F_OK));
	check_loading(0);
	check_loading(1);
}

TEST(memory_is_of_the_node_that_the_writer_of_the_parameter_is_bound_to)
{
	load_kvmfr("static_size_mb=1");
	for (int node = 0; node < 2; node++) {
		bind_to(node);
		ASSERT_EQ(0, write_file(PARAMETER, node ? "1,64,65" : "1,64"));
		unbind();
	}
	check_memory("kvmfr1", 0);
	check_memory("kvmfr2", 1);
}

/* The machine has enough memory, so it is tried; the kernel log shows no OOM kill. */
TEST(node_that_is_too_small_is_an_error)
{
	char text[16];

	load_kvmfr("static_size_mb=1");
	for (int i = 0; i < 3; i++) {
		bind_to(1);
		EXPECT_EQ(ENOMEM, write_file(PARAMETER, "1,520"));
		unbind();
	}
	ASSERT_TRUE(read_file(PARAMETER, text, sizeof(text)));
	EXPECT_EQ(0, strcmp(text, "1"));
}

TEST_UNLOADS()
