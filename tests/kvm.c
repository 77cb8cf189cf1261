// SPDX-License-Identifier: GPL-2.0
/*
 * A guest whose RAM is a mapping of the device: a virtual machine monitor in 150 lines.
 *
 * The guest runs in 32-bit mode without paging, so that all it does to memory goes through the tables that KVM
 * builds from our mapping. KVM takes the size of its entries from those of the host, and counts them.
 */
#include "kvmfr_test.h"

#define RW (PROT_READ | PROT_WRITE)

#if defined(__x86_64__)
#include <linux/kvm.h>

/* The guest's memory: code, the arguments of a hypercall, and pages from DATA on to write to. */
#define CODE	0x1000
#define ARGS	0x2000
#define DATA	0x10000
#define PORT	0x5eb

struct args {
	uint32_t a, b, sum;	/* hypercall: sum = a + b */
	uint32_t seen;		/* what the guest finds in sum afterwards */
};

/*
 * for (edi = from; edi < to; edi += 4096)
 *	*edi = edi ^ 0x5a5a5a5a;
 * ARGS->a = 40; ARGS->b = 2;
 * outl(ARGS, PORT);
 * ARGS->seen = ARGS->sum;
 * hlt;
 */
static const uint8_t guest_code[] = {
	/* 00 */ 0xbf, 0, 0, 0, 0,				/* mov $from, %edi */
	/* 05 */ 0x89, 0xf8,					/* 1: mov %edi, %eax */
	/* 07 */ 0x35, 0x5a, 0x5a, 0x5a, 0x5a,			/* xor $0x5a5a5a5a, %eax */
	/* 0c */ 0x89, 0x07,					/* mov %eax, (%edi) */
	/* 0e */ 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,		/* add $4096, %edi */
	/* 14 */ 0x81, 0xff, 0, 0, 0, 0,			/* cmp $to, %edi */
	/* 1a */ 0x72, 0xe9,					/* jb 1b */
	/* 1c */ 0xbb, 0x00, 0x20, 0x00, 0x00,			/* mov $ARGS, %ebx */
	/* 21 */ 0xc7, 0x03, 40, 0, 0, 0,			/* movl $40, (%ebx) */
	/* 27 */ 0xc7, 0x43, 0x04, 2, 0, 0, 0,			/* movl $2, 4(%ebx) */
	/* 2e */ 0x89, 0xd8,					/* mov %ebx, %eax */
	/* 30 */ 0x66, 0xba, PORT & 0xff, PORT >> 8,		/* mov $PORT, %dx */
	/* 34 */ 0xef,						/* out %eax, (%dx) */
	/* 35 */ 0x8b, 0x43, 0x08,				/* mov 8(%ebx), %eax */
	/* 38 */ 0x89, 0x43, 0x0c,				/* mov %eax, 12(%ebx) */
	/* 3b */ 0xf4,						/* hlt */
};
#define FROM_AT	0x01
#define TO_AT	0x16

struct vm {
	int kvm, vm, cpu;
	struct kvm_run *run;
};

static void vm_create(struct vm *vm, void *ram, uint64_t size)
{
	struct kvm_userspace_memory_region region = {
		.memory_size = size, .userspace_addr = (uintptr_t)ram,
	};
	const struct kvm_segment flat = {
		.limit = 0xffffffff, .present = 1, .db = 1, .s = 1, .g = 1,
	};
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		SKIP("this machine has no KVM (/dev/kvm: %s)", ktap_errno(errno));
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	ASSERT_OK(vm->vm);
	ASSERT_OK(ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region));
	vm->cpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	ASSERT_OK(vm->cpu);
	vm->run = map(vm->cpu, 0, ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), RW);

	ASSERT_OK(ioctl(vm->cpu, KVM_GET_SREGS, &sregs));
	sregs.cr0 |= 1;		/* protected mode */
	sregs.ds = sregs.es = sregs.ss = sregs.cs = flat;
	sregs.cs.type = 11;	/* code */
	sregs.cs.selector = 8;
	sregs.ds.type = sregs.es.type = sregs.ss.type = 3;
	sregs.ds.selector = sregs.es.selector = sregs.ss.selector = 16;
	ASSERT_OK(ioctl(vm->cpu, KVM_SET_SREGS, &sregs));
	ASSERT_OK(ioctl(vm->cpu, KVM_SET_REGS, &regs));
}

/* What KVM counts for all guests; the names changed with 5.13. */
static uint64_t kvm_count(const char *name, const char *old_name)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s", name);
	if (!read_file(path, text, sizeof(text))) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s", old_name);
		ASSERT_TRUE(read_file(path, text, sizeof(text)));
	}
	return strtoull(text, NULL, 10);
}

/* Lets a guest with this RAM write to its pages; host is the same memory, mapped elsewhere. Huge entries made. */
static uint64_t run_guest(char *ram, char *host, uint32_t size)
{
	const uint32_t from = DATA, to = size;
	struct args *args = (struct args *)(host + ARGS);
	uint64_t huge, hypercalls = 0;
	struct vm vm;

	memset(host, 0xee, size);
	memcpy(host + CODE, guest_code, sizeof(guest_code));
	memcpy(host + CODE + FROM_AT, &from, 4);
	memcpy(host + CODE + TO_AT, &to, 4);
	vm_create(&vm, ram, size);
	huge = kvm_count("pages_2m", "largepages");
	for (;;) {
		ASSERT_OK(ioctl(vm.cpu, KVM_RUN, 0));
		if (vm.run->exit_reason == KVM_EXIT_HLT)
			break;
		ASSERT_EQ(KVM_EXIT_IO, vm.run->exit_reason);
		ASSERT_EQ(PORT, vm.run->io.port);
		ASSERT_EQ(KVM_EXIT_IO_OUT, vm.run->io.direction);
		ASSERT_EQ(ARGS, *(uint32_t *)((char *)vm.run + vm.run->io.data_offset));
		args->sum = args->a + args->b;
		hypercalls++;
	}
	huge = kvm_count("pages_2m", "largepages") - huge;

	EXPECT_EQ(1, hypercalls);
	EXPECT_EQ(42, args->seen);
	for (uint32_t at = from; at < to; at += 4096)
		ASSERT_EQ(at ^ 0x5a5a5a5a, *(uint32_t *)(host + at));
	for (uint32_t at = from; at < to; at += 4096)	/* and nothing else */
		ASSERT_EQ(0xeeeeeeee, *(uint32_t *)(host + at + 4));
	close(vm.cpu);
	close(vm.vm);
	return huge;
}

TEST_PAGED(guest_in_the_device_gets_huge_pages)
{
	char *ram = map_at(dev.fd, 0, dev.size, RW, 0);
	uint64_t huge = run_guest(ram, map(dev.fd, 0, dev.size, RW), dev.size);

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

	/* RAM from an odd offset on, at an address in step with it and at one that isn't */
	run_guest(map_at(dev.fd, 3 * page_size, size, RW, 3 * page_size), map(dev.fd, 3 * page_size, size, RW), size);
	run_guest(map_at(dev.fd, 3 * page_size, size, RW, 0), map(dev.fd, 3 * page_size, size, RW), size);
	run_guest(map_at(dev.fd, 0, size, RW, 5 * page_size), map(dev.fd, 0, size, RW), size);
}

TEST_PAGED(guest_can_have_a_dmabuf_as_ram)
{
	const uint32_t size = dev.size / 2;
	const uint64_t offset = pmd_size - 5 * page_size;
	int buf = dmabuf(dev.fd, offset, size);

	run_guest(map_at(buf, 0, size, RW, offset), map(dev.fd, offset, size, RW), size);
	run_guest(map_at(dev.fd, offset, size, RW, 0), map(buf, 0, size, RW), size);
}

/* A guest that does nothing but write to its memory; the device is pulled from under it. */
TEST_PCI(guest_loses_its_ram_when_the_device_goes)
{
	/* 1: mov $0x100000, %edi; 2: mov %edi, (%edi); add $4096, %edi; cmp $top, %edi; jb 2b; jmp 1b */
	uint8_t code[] = {
		0xbf, 0, 0, 1, 0, 0x89, 0x3f, 0x81, 0xc7, 0, 0x10, 0, 0, 0x81, 0xff, 0, 0, 0, 0, 0x72, 0xf0, 0xeb, 0xe9,
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
