// SPDX-License-Identifier: GPL-2.0
/*
 * A guest for QEMU's -kernel that counts with all its CPUs, in all of its RAM from FIRST on and in its
 * IVSHMEM device, if it has one. Each CPU has pages of its own, and goes through them round by round:
 * a page has to hold the number of the round before. So it finds out by itself when a page or a register
 * goes back, gets lost or comes from another memory.
 *
 * The host reads how it goes at REPORT, an address below 1 MiB, where the RAM's file has the same offset.
 */
#include "../bare.h"

#define MAX_CPUS	8
#define FIRST		(4u << 20)
#define REPORT		0x6000
#define TRAMPOLINE	0x7000	/* where further CPUs start, in real mode */
#define LAPIC_ICR	(*(volatile uint32_t *)0xfee00300)

struct report {
	uint32_t cpus;		/* that count */
	uint32_t pages;		/* of RAM that they go through */
	uint32_t shmem;		/* address of the IVSHMEM device or 0 */
	uint32_t wrong;		/* address of a word that is not as it was left */
	uint32_t count[MAX_CPUS];
};

static volatile struct report *const report = (void *)REPORT;
static volatile uint32_t here, go;
/* The first is not used: bare.h has a stack for that CPU. */
char stacks[MAX_CPUS][4096] __attribute__((used, aligned(16)));
uint32_t numbers __attribute__((used)) = 1;
extern const char trampoline[], trampoline_end[];

asm(".text\n"
    ".code16\n"
    "trampoline: cli\n"
    "mov %cs, %ax\n"
    "mov %ax, %ds\n"
    "lgdtl gdtr - trampoline\n"
    "mov %cr0, %eax\n"
    "or $1, %al\n"
    "mov %eax, %cr0\n"
    "ljmpl $8, $protected\n"
    "gdtr: .word 23\n"
    ".long gdt\n"
    "trampoline_end:\n"
    ".code32\n"
    "protected: mov $16, %ax\n"
    "mov %ax, %ds\n"
    "mov %ax, %es\n"
    "mov %ax, %ss\n"
    "mov $1, %ebx\n"
    "lock xadd %ebx, numbers\n"
    "mov %ebx, %eax\n"
    "inc %eax\n"
    "shl $12, %eax\n"
    "lea stacks(%eax), %esp\n"
    "push %ebx\n"
    "call further_cpu\n"
    ".align 8\n"
    "gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n");

static void __attribute__((noreturn)) wrong_at(const volatile uint32_t *word)
{
	report->wrong = (uint32_t)word;
	for (;;)
		asm volatile("cli; hlt");
}

static void __attribute__((noreturn)) wrong(void)
{
	wrong_at((uint32_t *)REPORT);
}

/* The word held what the round before has left there, and gets this round's. */
static void next(volatile uint32_t *word, uint32_t round)
{
	const uint32_t key = (uint32_t)word;

	if (round > 1 && *word != (key ^ (round - 1)))
		wrong_at(word);
	*word = key ^ round;
}

static void __attribute__((noreturn)) count_on(uint32_t cpu)
{
	volatile uint32_t *shmem = (uint32_t *)report->shmem;
	uint32_t count = 0;

	for (uint32_t round = 1;; round++) {
		for (uint32_t i = cpu; i < report->pages; i += report->cpus) {
			next((uint32_t *)(FIRST + i * PAGE), round);
			if (report->count[cpu] != count)
				wrong_at(&report->count[cpu]);
			report->count[cpu] = ++count;
		}
		if (shmem)
			next(shmem + cpu * PAGE / sizeof(*shmem), round);
	}
}

void __attribute__((noreturn)) further_cpu(uint32_t cpu)
{
	asm volatile("lock incl %0" : "+m"(here));
	while (!go)
		asm volatile("pause");
	count_on(cpu);
}

static void outw(uint16_t port, uint16_t value)
{
	asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static uint8_t inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

void guest(const uint32_t *info)
{
	const uint32_t ram = (info[2] << 10) + (1u << 20);
	int slot = find(IVSHMEM);
	uint32_t cpus;

	outw(0x510, 5);		/* of QEMU's fw_cfg: how many CPUs there are */
	cpus = inb(0x511);
	if (cpus > MAX_CPUS)
		wrong();
	for (unsigned int i = 0; i < sizeof(*report); i++)
		((volatile char *)report)[i] = 0;
	report->cpus = cpus;
	report->shmem = slot < 0 ? 0 : bar(slot, 0x18);
	/* the firmware's tables are at the end */
	report->pages = (ram - FIRST - (2u << 20)) / PAGE;

	for (const char *from = trampoline; from < trampoline_end; from++)
		((volatile char *)TRAMPOLINE)[from - trampoline] = *from;
	if (cpus > 1) {
		LAPIC_ICR = 0xc4500;				/* INIT to all others */
		for (volatile int i = 0; i < 1000000; i++)
			;
		LAPIC_ICR = 0xc4600 | TRAMPOLINE / PAGE;	/* and where to start */
	}
	while (here < cpus - 1)
		asm volatile("pause");
	go = 1;
	count_on(0);
}
