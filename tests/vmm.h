/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtual machine monitor in 150 lines, for a guest whose RAM is a mapping of the device.
 *
 * The guest runs in 32-bit mode without paging, so that all it does to memory goes through the tables that KVM
 * builds from the mapping. KVM takes the size of its entries from those of the host, and counts them.
 */
#ifndef VMM_H
#define VMM_H

#include <linux/kvm.h>

#include "kvmfr_test.h"


/* The guest's memory: code, the arguments of a hypercall, and pages from DATA on to write to. */
#define RW (PROT_READ | PROT_WRITE)
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

/* What KVM counted while the guest ran. */
struct guest_counts {
	uint64_t huge, small;	/* entries that it made */
	uint64_t exits;
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

/* KVM's counters for all guests. 5.13 renamed them; what older kernels don't count is 0. */
static uint64_t kvm_count(const char *name, const char *old_name)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s", name);
	if (read_file(path, text, sizeof(text)))
		return strtoull(text, NULL, 10);
	ASSERT_TRUE(!kernel_is(5, 13));
	if (!old_name)
		return 0;
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s", old_name);
	ASSERT_TRUE(read_file(path, text, sizeof(text)));
	return strtoull(text, NULL, 10);
}

/* Lets a guest with this RAM write to its pages; host is the same memory, mapped elsewhere. */
static struct guest_counts run_guest(char *ram, char *host, uint32_t size)
{
	const uint32_t from = DATA, to = size;
	struct args *args = (struct args *)(host + ARGS);
	struct guest_counts n;
	uint64_t hypercalls = 0;
	struct vm vm;

	memset(host, 0xee, size);
	memcpy(host + CODE, guest_code, sizeof(guest_code));
	memcpy(host + CODE + FROM_AT, &from, 4);
	memcpy(host + CODE + TO_AT, &to, 4);
	vm_create(&vm, ram, size);
	n.huge = kvm_count("pages_2m", "largepages");
	n.small = kvm_count("pages_4k", NULL);
	n.exits = kvm_count("exits", "exits");
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
	n.exits = kvm_count("exits", "exits") - n.exits;
	n.small = kvm_count("pages_4k", NULL) - n.small;
	n.huge = kvm_count("pages_2m", "largepages") - n.huge;

	EXPECT_EQ(1, hypercalls);
	EXPECT_EQ(42, args->seen);
	for (uint32_t at = from; at < to; at += 4096)
		ASSERT_EQ(at ^ 0x5a5a5a5a, *(uint32_t *)(host + at));
	for (uint32_t at = from; at < to; at += 4096)	/* and nothing else */
		ASSERT_EQ(0xeeeeeeee, *(uint32_t *)(host + at + 4));
	close(vm.cpu);
	close(vm.vm);
	return n;
}

#endif
