/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the test programs of kvmfr share: the module, its devices, mappings, DMA-BUFs, the log,
 * the PCI bus.
 */
#ifndef KVMFR_TEST_H
#define KVMFR_TEST_H

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "../kvmfr.h"
#include "importer/kvmfr_importer.h"
#include "ktap.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

extern size_t page_size;	/* of the kernel */
extern size_t pmd_size;		/* what one huge page table entry maps */

/* --- the module --- */

/* NAME=N on the command line, or otherwise. */
unsigned int how_often(const char *name, unsigned int otherwise);

/* 0 or an errno. kvmfr is the file $KVMFR_KO, kvmfr_importer $KVMFR_IMPORTER_KO. */
int module_load(const char *name, const char *parameters);
int module_unload(const char *name);
bool module_loaded(const char *name);
long module_refs(const char *name);

/*
 * What most tests run with: static devices of default_mb() and 1 MiB. Loads it unless it is so
 * already.
 */
void need_kvmfr(void);
unsigned int default_mb(void);
/* Loads it anew with exactly these parameters. */
void load_kvmfr(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --- devices --- */

struct kvmfr_dev {
	char name[32];		/* kvmfr0 */
	char type[16];		/* static, pci */
	char slot[32];		/* PCI address of a pci device, else "" */
	uint64_t size;
	uint64_t huge_bytes;
	bool paged;		/* its memory can have struct pages */
	int fd;			/* opened O_RDWR by the fixture */
};

/*
 * "static", "pci", or "pfn": a pci device whose memory can't have struct pages, since it is
 * smaller than 2 MiB or above all that a kernel with 4-level page tables can address. False if
 * there is none.
 */
bool dev_find(struct kvmfr_dev *dev, const char *kind);
bool dev_read(struct kvmfr_dev *dev, const char *name);
/* The first kvmfrN that can be rung, from this N on. N, or -1. */
int dev_find_doorbell(struct kvmfr_dev *dev, int from);
/* The device at this PCI address, once it and its node are there. */
bool dev_wait(struct kvmfr_dev *dev, const char *slot);
int dev_open(const struct kvmfr_dev *dev, int flags);
unsigned int dev_count(void);

/* The device of the running test. */
extern struct kvmfr_dev dev;
/*
 * Tests of static; of pci and pfn; of static and pci; of all three. Skip when there is no such
 * device.
 */
extern const struct ktap_fixture static_device, pci_device, paged_device, any_device;
#define TEST_PCI(name, ...) TEST(name, .fixture = &pci_device, ##__VA_ARGS__)
#define TEST_STATIC(name, ...) TEST(name, .fixture = &static_device, ##__VA_ARGS__)
#define TEST_PAGED(name, ...) TEST(name, .fixture = &paged_device, ##__VA_ARGS__)
#define TEST_ANY(name, ...) TEST(name, .fixture = &any_device, ##__VA_ARGS__)
/* The last test of every program: nothing that the tests did keeps the module loaded. */
#define TEST_UNLOADS() TEST(module_unloads_afterwards) { unload_and_check(); }
void unload_and_check(void);

/* --- mappings --- */

void *map(int fd, uint64_t offset, size_t length, int prot);
/* At an address that is this much more than a multiple of the huge page size. */
void *map_at(int fd, uint64_t offset, size_t length, int prot, size_t misalign);
/* Moves a mapping to such an address. */
void *move(void *address, size_t length, size_t misalign);
/* An address where nothing is mapped for this length. */
char *reserve(size_t length, size_t misalign);
/* Every page begins with a word that tells its place in the device. */
uint64_t stamp_of(uint64_t offset);
uint64_t place_of(uint64_t stamp);
void stamp(void *base, uint64_t offset, size_t length);
/* The first page that doesn't have its stamp, counted from base; -1 if all have. */
long unstamped(const void *base, uint64_t offset, size_t length);
uint64_t word(const volatile void *address);
void set_word(volatile void *address, uint64_t value);
unsigned long faults(void);
/* Kilobytes of the mapping at this address that /proc/self/smaps counts under this name. */
unsigned long smaps_kb(const void *address, const char *field);

/* --- DMA-BUFs --- */

/* A new descriptor, or -1 and errno. */
int dmabuf_try(int fd, unsigned int flags, uint64_t offset, uint64_t size);
int dmabuf(int fd, uint64_t offset, uint64_t size);

/* An importer, or SKIP if the module isn't there; then 0 or an errno. */
int importer(void);
int import(int imp, int dmabuf, uint32_t max_segment);
int import_revocable(int imp, int buf);
int import_map(int imp, uint32_t direction, struct kvmfr_importer_map *result);
int import_io(int imp, uint32_t via, bool write, uint64_t offset, void *buffer, size_t length);
int import_pin(int imp, const void *address, size_t length);

/* --- the kernel's log --- */

/* A descriptor that reads what is logged from now on. */
int log_mark(void);
/* How many such lines have this word (consumes them); the last one in log_last. */
int log_count(int mark, const char *has);
bool log_wait(int mark, const char *has);
extern char log_last[1024];

/* --- the machine --- */

uint64_t meminfo(const char *field);	/* bytes */
/* In bytes and to the page: without droppable caches, and with what waits on the lists of CPUs. */
uint64_t free_memory(void);
bool kernel_is(unsigned int major, unsigned int minor);	/* at least this */
int write_file(const char *path, const char *text);	/* 0 or an errno */
bool read_file(const char *path, char *text, size_t size);
/* Makes tests/vm/boot send a QMP command to QEMU; ' stands for " in it. */
void qmp(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int pci_driver(const char *what, const char *slot);	/* bind, unbind: 0 or an errno */
/* What the child returned, or 128 and the signal. */
int join(pid_t pid);
/* The state letter of a process in /proc. */
char process_state(pid_t pid);
/* Runs code in a child, which must end normally. */
#define IN_CHILD(...) do {							\
	pid_t in_child = fork();						\
										\
	if (!in_child) {							\
		__VA_ARGS__;							\
		_exit(ktap_failed ? KTAP_FAIL : KTAP_PASS);			\
	}									\
	ASSERT_EQ(KTAP_PASS, join(in_child));					\
} while (0)

#endif
