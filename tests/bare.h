/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by guests for QEMU's -kernel that are a single program: no operating system, no page
 * tables. The program is guest(); its wrong() ends it when a check fails.
 */
#ifndef BARE_H
#define BARE_H

#include <stdint.h>

#define PAGE		4096
#define IVSHMEM		0x11101af4

/* @info is Multiboot's: the third word says how many KiB there are above 1 MiB. */
void guest(const uint32_t *info);
static void __attribute__((noreturn)) wrong(void);

/* Multiboot's header, and a stack: it promises none. */
asm(".text\n"
    ".align 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".globl _start\n"
    "_start: mov $stack + 4096, %esp\n"
    "push %ebx\n"
    "call guest\n");
char stack[4096] __attribute__((used, aligned(16)));

static inline void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

/* --- PCI: the devices of bus 0 --- */

static inline uint32_t config_read(uint32_t slot, uint32_t reg)
{
	outl(0xcf8, 0x80000000 | slot << 11 | reg);
	return inl(0xcfc);
}

static inline void config_write(uint32_t slot, uint32_t reg, uint32_t value)
{
	outl(0xcf8, 0x80000000 | slot << 11 | reg);
	outl(0xcfc, value);
}

/* The slot of a device with this ID, with its memory and DMA enabled; -1 if there is none. */
static inline int find(uint32_t id)
{
	for (int slot = 0; slot < 32; slot++) {
		if (config_read(slot, 0) != id)
			continue;
		config_write(slot, 4, (config_read(slot, 4) & 0xffff) | 6);
		return slot;
	}
	return -1;
}

/* Where the firmware has put a BAR; a 64-bit one must be below 4 GiB. */
static inline uint32_t bar(int slot, uint32_t reg)
{
	uint32_t low = config_read(slot, reg);

	if ((low & 6) == 4 && config_read(slot, reg + 4))
		wrong();
	return low & ~0xfu;
}

#endif
