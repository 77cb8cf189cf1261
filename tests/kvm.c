// SPDX-License-Identifier: GPL-2.0
/*
 * A guest whose RAM is a mapping of the device (vmm.h): what it reads, which pages KVM maps, how it
 * ends.
 */
#include "kvmfr_test.h"

#if defined(__x86_64__)
#include "vmm.h"

TEST_PAGED(guest_in_the_device_gets_huge_pages)
{
	char *ram = map_at(dev.fd, 0, dev.size, RW, 0);
	uint64_t huge = run_guest(ram, map(dev.fd, 0, dev.size, RW), dev.size).huge;

	ktap_note("%" PRIu64 " huge pages for %" PRIu64 " MiB", huge, dev.size >> 20);
	if (dev.slot[0] && !kernel_is(5, 17))
		return;		/* an IVSHMEM device has no huge pages there, but it works */
	/* the first may be in pieces: the guest's own code is in it */
	EXPECT_LE(dev.size / pmd_size - 1, huge);
	EXPECT_LE(huge, dev.size / pmd_size);
}

TEST_ANY(guest_and_host_see_the_same_at_odd_places)
{
	const uint32_t size = dev.size / 2;
	const uint64_t odd = 3 * page_size;
	char *host = map(dev.fd, odd, size, RW);

	/* RAM from an odd offset on, at an address in step with it and at one that isn't */
	run_guest(map_at(dev.fd, odd, size, RW, odd), host, size);
	run_guest(map_at(dev.fd, odd, size, RW, 0), host, size);
	host = map(dev.fd, 0, size, RW);
	run_guest(map_at(dev.fd, 0, size, RW, 5 * page_size), host, size);
}

TEST_PAGED(guest_can_have_a_dmabuf_as_ram)
{
	const uint32_t size = dev.size / 2;
	const uint64_t offset = pmd_size - 5 * page_size;
	int buf = dmabuf(dev.fd, offset, size);

	run_guest(map_at(buf, 0, size, RW, offset), map(dev.fd, offset, size, RW), size);
	run_guest(map_at(dev.fd, offset, size, RW, 0), map(buf, 0, size, RW), size);
}

/* A guest that does nothing but write to its memory, while its device is unplugged. */
TEST_PCI(guest_loses_its_ram_when_the_device_goes)
{
	uint8_t code[] = {
		0xbf, 0, 0, 1, 0,		/* 1: mov $0x10000, %edi */
		0x89, 0x3f,			/* 2: mov %edi, (%edi) */
		0x81, 0xc7, 0, 0x10, 0, 0,	/* add $4096, %edi */
		0x81, 0xff, 0, 0, 0, 0,		/* cmp $top, %edi */
		0x72, 0xf0,			/* jb 2b */
		0xeb, 0xe9,			/* jmp 1b */
	};
	const uint32_t top = dev.size;
	char *ram = map_at(dev.fd, 0, dev.size, RW, 0);
	struct vm vm;
	pid_t pid;

	memset(ram, 0, dev.size);
	memcpy(code + 15, &top, 4);
	memcpy(ram + CODE, code, sizeof(code));
	pid = fork();
	if (!pid) {
		vm_create(&vm, ram, dev.size);
		EXPECT_ERRNO(EFAULT, ioctl(vm.cpu, KVM_RUN, 0));
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);
	}
	/* until it has come round, or ended because there is no KVM */
	if (!WAIT_FOR(word(ram + dev.size - 4096) || process_state(pid) == 'Z'))
		FAIL("the guest doesn't run");
	if (!word(ram + dev.size - 4096))
		_exit(join(pid));
	ASSERT_EQ(0, pci_driver("unbind", dev.slot));
	EXPECT_EQ(KTAP_PASS, join(pid));
	ASSERT_EQ(0, pci_driver("bind", dev.slot));
}

#else

TEST(guest_in_the_device_gets_huge_pages)
{
	SKIP("the guest is x86 code");
}

#endif

TEST_UNLOADS()
