// SPDX-License-Identifier: GPL-2.0
/*
 * The machine goes down while an unplug waits for a process that never lets go. Each test ends the
 * VM it runs in, so it runs alone, and passes if the VM ends. init.c would kill that process first,
 * so the test itself prints what init.c prints at the end.
 */
#include <linux/reboot.h>
#include <sys/reboot.h>
#include <sys/syscall.h>

#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

/* As PID 1: says that the kernel that kexec has started is up, and ends. */
__attribute__((constructor)) static void second_kernel(void)
{
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
}

/* Adds a file to a cpio archive ("newc"), which is what an initramfs is. */
static void cpio_add(int archive, const char *name, int mode, const char *data, size_t size)
{
	static const char zeros[4];
	int head = dprintf(archive, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x%s", 1,
			   mode, 0, 0, 1, 0, size, 0, 0, 0, 0, strlen(name) + 1, 0, name) + 1;

	ASSERT_OK(write(archive, zeros, 1 + -head % 4u));
	ASSERT_EQ(size, write(archive, data, size));
	ASSERT_OK(write(archive, zeros, -size % 4));
}

/* This kernel once more, with this program as its init */
static int load_second_kernel(void)
{
	static const char line[] = "panic=-1";
	int kernel = open("vmlinuz", O_RDONLY), self = open("/proc/self/exe", O_RDONLY);
	int archive = memfd_create("initramfs", 0);
	size_t size = lseek(self, 0, SEEK_END);

	ASSERT_OK(kernel);
	cpio_add(archive, "init", 0100755, mmap(NULL, size, PROT_READ, MAP_PRIVATE, self, 0), size);
	cpio_add(archive, "TRAILER!!!", 0, NULL, 0);
	return syscall(SYS_kexec_file_load, kernel, archive, sizeof(line), line, 0UL) ? errno : 0;
}

static void go_down(const char *name, unsigned int how)
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
	printf("ok 1 - %s\n## end 1 exit 0\n## tainted %s\n## done\n%s", name, tainted,
	       how == RB_HALT_SYSTEM ? "## halts\n" : "");
	fflush(stdout);
	fsync(STDOUT_FILENO);
	sleep(1);	/* the serial port sends */
	ASSERT_OK(reboot(how));
	pause();
}

/* Pins the whole IVSHMEM device for as long as this process lives. */
static void pin_device(void)
{
	need_kvmfr();
	if (!dev_find(&dev, "pci"))
		FAIL("no IVSHMEM device");
	dev.fd = dev_open(&dev, O_RDWR);
	ASSERT_EQ(0, import_pin(importer(), map(dev.fd, 0, dev.size, RW), dev.size));
}

TEST(poweroff_comes_through_while_pinned_pages_are_waited_for)
{
	pin_device();
	go_down(__func__ + strlen("test_"), RB_POWER_OFF);
}

TEST(halt_comes_through_while_pinned_pages_are_waited_for)
{
	pin_device();
	go_down(__func__ + strlen("test_"), RB_HALT_SYSTEM);
}

TEST(kexec_comes_through_while_pinned_pages_are_waited_for)
{
	int err = load_second_kernel();

	if (err == ENOSYS || err == ENOEXEC)
		SKIP("kexec_file_load() doesn't take this kernel's image");
	ASSERT_EQ(0, err);
	pin_device();
	go_down(__func__ + strlen("test_"), RB_KEXEC);
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
