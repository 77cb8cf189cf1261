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

/* Prints one line on standard error and exits with 1: it cannot be done. */
void fail(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* Prints one line on standard error and exits with 2: wrong arguments. */
void misuse(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* Prints one line on standard error and returns. */
void warn(const char *fmt, ...) PRINTF(1, 2);

/* A new string, as printf() would print it. */
char *format(const char *fmt, va_list args);
char *text(const char *fmt, ...) PRINTF(1, 2);
/* The same with the root directory before it. */
char *path(const char *fmt, ...) PRINTF(1, 2);
/* A word for the shell, in quotes where it needs them. */
char *quoted(const char *word);
/*
 * The text padded with spaces to a width, in a colour if standard output is a
 * terminal. The environment variables NO_COLOR and TERM=dumb switch colours off.
 */
enum colour { PLAIN, BOLD, DIM, RED, GREEN, YELLOW };
char *column(enum colour colour, int width, const char *s);
/*
 * Prints a text and a newline, where the cursor is in column @indent already. On
 * a terminal a long text is wrapped, and its other lines begin in that column.
 */
void print_below(int indent, const char *s);

/* The text with a "?" for each control character: another user has written it. */
char *printable(const char *s);

/* "128 MiB", or "N bytes" if it is not a whole number of MiB. */
char *mebibytes(uint64_t bytes);

/* The same as QEMU's options have it: "2M", or the number of bytes. */
char *qemu_size(uint64_t bytes);

/* All of a file, with a 0 behind it; NULL and errno when it cannot be read. */
char *file_read(const char *name, size_t *len);
/* The first line of a small file, without its end. */
char *file_line(const char *name);
/* The decimal number a file holds. */
bool file_number(const char *name, uint64_t *value);

/*
 * Says on a terminal how far long work is, in a line that is gone when all is
 * done or after progress_clear(). Small work is passed over. @done and @total are
 * bytes.
 */
void progress(const char *what, uint64_t done, uint64_t total);
void progress_clear(void);
#define PROGRESS_FROM	(64 * MIB)

/* getopt_long() that calls misuse() for wrong options; -1 after the last one. */
int option_next(int argc, char **argv, const struct option *options);

/* Runs a program and waits for it; its exit status, 127 if there is none such. */
int program_run(const char *program, const char *const argv[]);

/* device.c */

enum node_state {
	NODE_OK,		/* the device's own character device */
	NODE_MISSING,
	NODE_REGULAR,		/* a regular file; QEMU makes one without the module */
	NODE_FOREIGN,		/* something else */
};

struct device {
	const char *name;	/* kvmfr0 */
	const char *type;	/* static, pci */
	const char *pci;	/* 0000:00:04.0, empty for static memory */
	uint64_t size;
	uint64_t huge_bytes;	/* how much of the size is in huge pages (PMD) */
	bool huge_known;
	int numa;		/* the NUMA node of its first page, -1: not known */
	dev_t number;
	const char *node;	/* /dev/kvmfr0 */
	const char *link;	/* its name in BY_NAME, NULL without one */
	enum node_state state;
	struct stat st;		/* of the node, when there is one */
};

/*
 * Where udev makes links for devices that have a name, as 99-kvmfr.rules says.
 * Programs list /dev/kvmfr* and take all of it for devices, so it is not there.
 */
#define BY_NAME	"/dev/ivshmem/by-name/"

/* Fills in all devices in numerical order; returns how many there are. */
int devices_find(struct device *devices, int max);
/*
 * The device that is named as /dev/kvmfr0, kvmfr0, or by its link with or without
 * BY_NAME.
 */
bool device_find(const char *name, struct device *dev);
/* The same of a device that a program can open; calls fail() if there is none. */
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

/* create.c */

/*
 * Makes a device of memory of a NUMA node, if that is not -1, with a link in
 * BY_NAME if @name is not NULL. Returns its path, or calls fail() and has changed
 * nothing.
 */
const char *device_create(uint64_t mib, int node, const char *name);
/* Removes a static device; calls fail() if it is in use. */
void device_remove(const char *name);

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
/* May they do that (R_OK | W_OK | X_OK) with the file? By mode and by ACL. */
bool person_may(const struct person *person, const char *node,
		const struct stat *st, int want);
/* May they open the node for reading and writing? */
bool person_may_open(const struct person *person, const char *node,
		     const struct stat *st);
/* The first directory above the file that they may not pass; NULL: none. */
const char *person_is_kept_out(const struct person *person, const char *file);

/* users.c */

struct user {
	pid_t pid;
	uid_t uid;
	const char *command;
	bool open;		/* has a descriptor of it */
	uint64_t dmabufs;	/* bytes in DMA-BUFs it has a descriptor of */
	uint64_t mapped;	/* bytes mapped, of the node and of DMA-BUFs */
	uint64_t resident;	/* bytes of these in its page table (Rss) */
	uint64_t huge;		/* bytes of these in huge pages (FilePmdMapped) */
	bool huge_known;
	bool huge_missed;	/* could have huge pages, but all it has are small */
};

/*
 * The processes that have the device open or mapped. Those that may not be
 * looked into are counted in hidden.
 */
int users_find(const struct device *dev, struct user **users, int *hidden);
/* What a process is called, and whose it is; false if it has ended. */
bool process_look(pid_t pid, const char **command, uid_t *uid);

/* servers.c */

#define MAX_SERVERS	64
#define SERVER_PEERS_MAX	64	/* as kvmfrd has it */

/* A socket that kvmfrd serves, or will. */
struct server {
	const char *socket;
	const char *name;	/* of kvmfrd@NAME.socket, NULL for another socket */
	bool exists;		/* something is at that path: st */
	bool listens;		/* it is a socket, and connections are accepted */
	struct stat st;
	/* What the status file says, if runs; else nothing is known. */
	bool runs;
	pid_t pid;
	const char *memory;	/* /dev/kvmfr0 or memfd */
	uint64_t size;
	unsigned int vectors;
	struct server_peer {
		int id;
		pid_t pid;	/* 0: unknown */
	} peers[SERVER_PEERS_MAX];
	int n_peers;
};

/* Looks at the server of one socket; there may be nothing. */
void server_look(const char *socket, struct server *server);
/* "vm1" for /run/kvmfr/vm1.sock, NULL for another path. */
char *server_instance(const char *socket);
/*
 * Those with sockets in /run/kvmfr, and any other kvmfrd with a status file
 * beside its socket, in the order of their paths; returns how many.
 */
int servers_find(struct server servers[MAX_SERVERS]);

/* What kvmfrctl says without a command: how this machine stands. */
int summary(void);

/* The commands: argv[0] is the command's name, the result the exit status. */
int cmd_list(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_size(int argc, char **argv);
int cmd_qemu(int argc, char **argv);
int cmd_libvirt(int argc, char **argv);
int cmd_clear(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_hook(int argc, char **argv);
int cmd_memory(int argc, char **argv);
int cmd_channel(int argc, char **argv);

#endif
