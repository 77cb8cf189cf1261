// SPDX-License-Identifier: GPL-2.0
/*
 * The machine goes down while an unplug waits for somebody who never lets go. Each test ends the
 * VM it runs in, so it runs alone; that the VM ends is the verdict. init.c would kill the holder
 * first, so the test says itself what init.c says at the end.
 */
#include <sys/reboot.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

static void go_down(const char *name, int how)
{
	int before = log_mark();
	char tainted[16] = "";
	pid_t pid = fork();

	if (!pid)
		_exit(pci_driver("unbind", dev.slot));
	ASSERT_TRUE(log_wait(before, "waiting for"));
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	if (ktap_failed)
		return;
	ASSERT_TRUE(read_file("/proc/sys/kernel/tainted", tainted, sizeof(tainted)));
	printf("ok 1 - %s\n## end 1 exit 0\n## tainted %s\n## done\n", name, tainted);
	fflush(stdout);
	fsync(STDOUT_FILENO);
	sleep(1);	/* the serial port sends */
	ASSERT_OK(reboot(how));
	pause();
}

TEST(poweroff_comes_through_while_pinned_pages_are_waited_for)
{
	need_kvmfr();
	if (!dev_find(&dev, "pci"))
		FAIL("no IVSHMEM device");
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_EQ(0, import_pin(importer(), map(dev.fd, 0, dev.size, RW), dev.size));
	go_down(__func__ + strlen("test_"), RB_POWER_OFF);
}

TEST(reboot_comes_through_while_an_importer_is_waited_for)
{
	int imp = importer();

	need_kvmfr();
	if (!dev_find(&dev, "pci"))
		FAIL("no IVSHMEM device");
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_EQ(0, import(imp, dmabuf(dev.fd, 0, dev.size), 0));
	ASSERT_EQ(0, import_map(imp, KVMFR_IMPORTER_BIDIRECTIONAL, NULL));
	go_down(__func__ + strlen("test_"), RB_AUTOBOOT);
}
