// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in which no free piece is larger than 256 KiB ("fragment" makes it so): the module takes
 * what there is, without making the kernel search for huge pages again and again.
 */
#include "kvmfr_test.h"

static unsigned long vmstat(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "re");
	unsigned long value = 0, n;
	char line[64], key[64];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %lu", key, &n) == 2 && !strcmp(key, name))
			value = n;
	if (file)
		fclose(file);
	return value;
}

TEST(loading_into_fragmented_memory_looks_for_huge_pages_a_few_times_only, .timeout = 300)
{
	unsigned long stalls, small, mb;
	FILE *fragment;
	char line[128];

	if (module_loaded("kvmfr"))
		ASSERT_EQ(0, module_unload("kvmfr"));
	fragment = popen("exec ./fragment", "r");
	ASSERT_TRUE(fragment);
	ASSERT_TRUE(fgets(line, sizeof(line), fragment));
	ktap_note("%.*s", (int)strcspn(line, "\n"), line);
	ASSERT_EQ(0, strncmp(line, "ready", 5));

	mb = (meminfo("MemAvailable") >> 20) / 2;
	stalls = vmstat("compact_stall");
	load_kvmfr("static_size_mb=%lu", mb);
	stalls = vmstat("compact_stall") - stalls;
	ASSERT_TRUE(dev_read(&dev, "kvmfr0"));
	small = (dev.size - dev.huge_bytes) / (256 << 10);
	ktap_note("%lu MiB, %" PRIu64 " MiB of it in huge pages: %lu compaction stalls", mb,
		  dev.huge_bytes >> 20, stalls);
	ASSERT_GE(small, 400);	/* it is fragmented */
	/* Asking for each of the seven larger sizes every time would stall 30 times a block. */
	EXPECT_LE(stalls, small * 8);
}

TEST_UNLOADS()
