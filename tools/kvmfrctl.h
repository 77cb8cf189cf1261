/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kvmfrctl looks at kvmfr's devices, at who uses them and at what keeps them
 * from working. It runs for a moment, so what it allocates lives until it ends.
 */
#ifndef KVMFRCTL_H
#define KVMFRCTL_H

#define _GNU_SOURCE
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define MIB		(1024ULL * 1024)
#define MAX_DEVICES	64
#define PRINTF(f, a)	__attribute__((format(printf, f, a)))

/* util.c */

/* "" for this system, or the directory that --root looks at instead of "/". */
extern const char *root;

/* One line on standard error, exit 1: the world is not as it has to be. */
void fail(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* One line on standard error, exit 2: the arguments make no sense. */
void misuse(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* One line on standard error, and on with it. */
void warn(const char *fmt, ...) PRINTF(1, 2);

/* A new string. */
char *format(const char *fmt, va_list args);
char *text(const char *fmt, ...) PRINTF(1, 2);
/* The same, below the root directory. */
char *path(const char *fmt, ...) PRINTF(1, 2);
/* A word for the shell: as it is when that is safe, else in quotes. */
char *quoted(const char *word);
/*
 * On a terminal the text in a colour, padded to so many columns; elsewhere only
 * padded. NO_COLOR and TERM=dumb switch colours off.
 */
enum colour { PLAIN, BOLD, DIM, RED, GREEN, YELLOW };
char *column(enum colour colour, int width, const char *s);
/*
 * Prints a text that begins in this column, and ends the line. On a terminal
 * what does not fit continues below its beginning.
 */
void print_below(int indent, const char *s);

/* "128 MiB", or the bytes where that would not be exact. */
char *mebibytes(uint64_t bytes);

/* The same for QEMU's older syntax: "2M", or the bytes. */
char *qemu_size(uint64_t bytes);

/* All of a file, with a 0 behind it; NULL and errno when it cannot be read. */
char *file_read(const char *name, size_t *len);
/* The first line of a small file, without its end. */
char *file_line(const char *name);
/* The decimal number a file holds. */
bool file_number(const char *name, uint64_t *value);

/* getopt_long() that calls misuse(); -1 at the end of the options. */
int option_next(int argc, char **argv, const struct option *options);

/* device.c */

enum node_state {
	NODE_OK,		/* the device's own character device */
	NODE_MISSING,
	NODE_REGULAR,		/* a regular file, the work of an early QEMU */
	NODE_FOREIGN,		/* something else */
};

struct device {
	const char *name;	/* kvmfr0 */
	const char *type;	/* static, pci */
	const char *pci;	/* 0000:00:04.0, empty for static memory */
	uint64_t size;
	uint64_t huge_bytes;	/* of the size, in pages as large as a PMD */
	bool huge_known;
	dev_t number;
	const char *node;	/* /dev/kvmfr0 */
	enum node_state state;
	struct stat st;		/* of the node, when there is one */
};

/* All devices in numerical order; how many there are. */
int devices_find(struct device *devices, int max);
/* The device a user names as /dev/kvmfr0 or kvmfr0; calls fail() if none. */
void device_named(const char *name, struct device *dev);
enum node_state node_look(const char *node, dev_t number, struct stat *st);
bool module_loaded(void);
/* How to get a device, for the end of an error message. */
const char *device_remedy(void);
/* Bytes in a huge page (a PMD) of this machine, 0 if its kernel maps none. */
uint64_t huge_page_size(void);
/*
 * What QEMU's "align" option has to be for this device, in bytes: with less the
 * guest gets no huge page. 0 if the device has no huge pages to give.
 */
uint64_t device_align(const struct device *dev);

/* Is the system an image (ostree), where packages and DKMS change nothing? */
bool system_is_image(void);

/* people.c */

struct person {
	char *name;
	uid_t uid;
	gid_t *groups;
	int n_groups;
};

bool person_by_name(const char *name, struct person *person);
void person_current(struct person *person);
char *user_name(uid_t uid);
char *group_name(gid_t gid);
bool group_by_name(const char *name, gid_t *gid);
bool in_group(const struct person *person, gid_t gid);
/* May they open the node for reading and writing? By mode and by ACL. */
bool person_may_open(const struct person *person, const char *node,
		     const struct stat *st);

/* users.c */

struct user {
	pid_t pid;
	uid_t uid;
	const char *command;
	bool open;		/* has a descriptor of it */
	uint64_t dmabufs;	/* bytes in DMA-BUFs it has a descriptor of */
	uint64_t mapped;	/* bytes, through DMA-BUFs too */
	uint64_t resident;	/* of these, touched */
	uint64_t huge;		/* of these, in entries as large as a PMD */
	bool huge_known;
	bool huge_missed;	/* maps huge pages of the device, all as small ones */
};

/*
 * The processes that have the device open or mapped. Those that may not be
 * looked into are counted in hidden.
 */
int users_find(const struct device *dev, struct user **users, int *hidden);


/* What kvmfrctl says without a command: how this machine stands. */
int summary(void);

/* The commands: argv[0] is the command's name, the result the exit status. */
int cmd_list(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_size(int argc, char **argv);
int cmd_qemu(int argc, char **argv);
int cmd_libvirt(int argc, char **argv);
int cmd_clear(int argc, char **argv);

#endif
