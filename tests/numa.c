// SPDX-License-Identifier: GPL-2.0
/*
 * A machine of several nodes: the memory comes from where the loader's memory policy says, as in
 * "numactl --membind=1 modprobe kvmfr static_size_mb=64".
 */
#include <linux/mempolicy.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static void check_node(int node)
{
	unsigned long nodes = 1UL << node;
	unsigned int wrong = 0;
	char *p;

	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	ASSERT_OK(syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8 * sizeof(nodes)));
	ASSERT_EQ(0, module_load("kvmfr", "static_size_mb=64"));
	ASSERT_OK(syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));

	ASSERT_TRUE(dev_read(&dev, "kvmfr0"));
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

TEST(memory_is_of_the_node_that_the_loader_is_bound_to)
{
	ASSERT_EQ(0, access("/sys/devices/system/node/node1", F_OK));
	check_node(0);
	check_node(1);
}

TEST_UNLOADS()
