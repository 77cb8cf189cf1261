// SPDX-License-Identifier: GPL-2.0
/*
 * A guest for QEMU's -kernel that is a single program: no operating system, no page tables. So
 * what KVM counts while it runs comes from the memory that it touches.
 *
 * It fills its IVSHMEM device, or its RAM from 16 MiB on if it has no such device, checks that again
 * and again, and between the steps has QEMU pause it by the pvpanic device (-device pvpanic -action
 * panic=pause); QMP's "cont" is for the next step:
 *	GUEST_PANICKED 1	the memory is found, nothing of it was touched yet
 *	GUEST_PANICKED 2	every page has its pattern, and a network card wrote to it by DMA, if any
 *	GUEST_PANICKED 3, …	all of it is as it was before this "cont"
 *	GUEST_CRASHLOADED	something is wrong, and the guest has stopped for good
 */
#include "bare.h"

#define PVPANIC		0x505
#define PANICKED	1
#define CRASHLOADED	2

#define E1000E		0x10d38086
#define RAM_BEGIN	(16u << 20)	/* this program and all of the firmware's is below */

/* Pauses until "cont". */
static void step_done(void)
{
	outb(PVPANIC, PANICKED);
}

static void __attribute__((noreturn)) wrong(void)
{
	outb(PVPANIC, CRASHLOADED);
	for (;;)
		asm volatile("cli; hlt");
}

static uint32_t bar_size(int slot, uint32_t reg)
{
	uint32_t command = config_read(slot, 4) & 0xffff, low = config_read(slot, reg), mask;

	config_write(slot, 4, command & ~2u);	/* not decoded meanwhile */
	config_write(slot, reg, ~0u);
	mask = config_read(slot, reg) & ~0xfu;
	config_write(slot, reg, low);
	config_write(slot, 4, command);
	return -mask;
}

/* --- the network card --- */

#define TCTL	0x400
#define TDBAL	0x3800
#define TDBAH	0x3804
#define TDLEN	0x3808
#define TDH	0x3810
#define TDT	0x3818

struct tx {
	uint64_t address;
	uint16_t length;
	uint8_t checksum, command, status, css;
	uint16_t special;
};

/*
 * Has the card send one frame, whose descriptor and data are in the page: it reads both by DMA, and
 * writes to the descriptor that it is done. The page gets its content back.
 */
static void send_frame(uint32_t card, volatile uint32_t *page)
{
	volatile struct tx *tx = (volatile struct tx *)page;
	uint32_t before[sizeof(*tx) / 4];

	for (unsigned int i = 0; i < sizeof(*tx) / 4; i++)
		before[i] = page[i];
	tx->address = (uint32_t)page + 256;
	tx->length = 64;
	tx->command = 0x0b;	/* end of packet, insert FCS, report status */
	tx->checksum = tx->status = tx->css = tx->special = 0;

#define REG(reg) (*(volatile uint32_t *)(card + (reg)))
	REG(TCTL) = 0;
	REG(TDBAL) = (uint32_t)page;
	REG(TDBAH) = 0;
	REG(TDLEN) = 128;
	REG(TDH) = 0;
	REG(TDT) = 0;
	REG(TCTL) = 2;		/* enable */
	REG(TDT) = 1;
	for (uint32_t i = 0; !(tx->status & 1); i++)
		if (i == 1u << 28)
			wrong();
	REG(TCTL) = 0;
	for (unsigned int i = 0; i < sizeof(*tx) / 4; i++)
		page[i] = before[i];
}

static uint32_t pattern(uint32_t offset)
{
	return offset ^ 0x5a5a5a5a;
}

void guest(const uint32_t *info)
{
	int slot = find(IVSHMEM), card = find(E1000E);
	uint32_t memory = RAM_BEGIN, size = (info[2] << 10) + (1u << 20) - RAM_BEGIN;

	if (slot >= 0) {
		memory = bar(slot, 0x18);
		size = bar_size(slot, 0x18);
	}
#define WORD(offset) ((volatile uint32_t *)(memory + (offset)))
	step_done();

	for (uint32_t i = 0; i < size; i += PAGE)
		*WORD(i) = pattern(i);
	if (card >= 0)
		send_frame(bar(card, 0x10), WORD(size - PAGE));

	for (;;) {
		step_done();
		for (uint32_t i = 0; i < size; i += PAGE)
			if (*WORD(i) != pattern(i))
				wrong();
	}
}
