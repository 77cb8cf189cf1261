/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kvmfrctl looks at kvmfr's devices, at who uses them and at what keeps them
 * from working. It runs for a moment, so it never frees small allocations.
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

/* Prints one line on standard error and exits with 1: the request failed. */
void fail(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* Prints one line on standard error and exits with 2: wrong arguments. */
void misuse(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));
/* Prints one line on standard error and returns. */
void warn(const char *fmt, ...) PRINTF(1, 2);

/* Each returns a new string, formatted as by printf(). */
char *format(const char *fmt, va_list args);
char *text(const char *fmt, ...) PRINTF(1, 2);
/* The same, below the root directory. */
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
 * Prints a text and a newline; the cursor is already in column @indent. On a
 * terminal a long text is wrapped, and its other lines begin in that column.
 */
void print_below(int indent, const char *s);

/* How many bytes the first character has, 0 if it is not UTF-8. */
size_t utf8_length(const char *s);

/*
 * The text with "?" for each control character and what is not UTF-8, for text that
 * another user wrote.
 */
char *printable(const char *s);

/* "128 MiB", or "N bytes" if it is not a whole number of MiB. */
char *mebibytes(uint64_t bytes);

/* The same for QEMU's options: "2M", or the number of bytes. */
char *qemu_size(uint64_t bytes);

/* All of a file, with a 0 behind it; NULL and errno when it cannot be read. */
char *file_read(const char *name, size_t *len);
/* The first line of a small file, without its end. */
char *file_line(const char *name);
/* The decimal number a file holds. */
bool file_number(const char *name, uint64_t *value);

/*
 * Shows the progress of long work in a line on a terminal, and removes the line
 * when all is done or by progress_clear(). @done and @total are in bytes; less than
 * PROGRESS_FROM shows nothing.
 */
void progress(const char *what, uint64_t done, uint64_t total);
void progress_clear(void);
#define PROGRESS_FROM	(64 * MIB)

/* getopt_long() that calls misuse() for wrong options; -1 after the last one. */
int option_next(int argc, char **argv, const struct option *options);

/* Runs a program and waits for it. Returns its exit status, 127 if it isn't there. */
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
	int numa;		/* NUMA node of its first page, -1: not known */
	dev_t number;
	const char *node;	/* /dev/kvmfr0 */
	const char *link;	/* its name in BY_NAME, or NULL */
	enum node_state state;
	struct stat st;		/* of the node, when there is one */
};

/*
 * Where 99-kvmfr.rules makes udev create links to devices that have a name. Not
 * below /dev/kvmfr*, since programs take everything there for a device.
 */
#define BY_NAME	"/dev/ivshmem/by-name/"

/* Fills in all devices in numerical order; returns how many there are. */
int devices_find(struct device *devices, int max);
/*
 * Finds a device by its name, as /dev/kvmfr0 or kvmfr0, or by its link, with or
 * without BY_NAME.
 */
bool device_find(const char *name, struct device *dev);
/* The same, but calls fail() if there is no such device, or none that can be opened. */
void device_named(const char *name, struct device *dev);
enum node_state node_look(const char *node, dev_t number, struct stat *st);
bool module_loaded(void);
/* The end of an error message: how to get a device. */
const char *device_remedy(void);
/* Bytes in a huge page (a PMD) of this machine, 0 if its kernel maps none. */
uint64_t huge_page_size(void);
/*
 * What QEMU's "align" option must be for this device, in bytes, so that the guest
 * gets huge pages. 0 if the device has none.
 */
uint64_t device_align(const struct device *dev);

/* Is the system an image (ostree), where packages and DKMS change nothing? */
bool system_is_image(void);

/* create.c */

/*
 * Makes a device: of memory of a NUMA node, unless @node is -1; with a link in
 * BY_NAME, unless @name is NULL. Returns its path. If that fails, changes nothing
 * and calls fail().
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
/* May they access the file (R_OK | W_OK | X_OK)? Judged by mode and ACL. */
bool person_may(const struct person *person, const char *node,
		const struct stat *st, int want);
/* May they open the node for reading and writing? */
bool person_may_open(const struct person *person, const char *node,
		     const struct stat *st);
/* The first directory on the way to the file that they may not search, or NULL. */
const char *person_is_kept_out(const struct person *person, const char *file);

/* users.c */

struct user {
	pid_t pid;
	uid_t uid;
	const char *command;
	bool open;		/* has a descriptor of the node */
	uint64_t dmabufs;	/* bytes in DMA-BUFs it has a descriptor of */
	uint64_t mapped;	/* bytes mapped, of the node and of DMA-BUFs */
	uint64_t resident;	/* of these, in its page table (Rss) */
	uint64_t huge;		/* of these, in huge pages (FilePmdMapped) */
	bool huge_known;
	bool huge_missed;	/* has only small pages where huge ones were possible */
};

/*
 * Finds the processes that have the device open or mapped; returns how many.
 * *@hidden counts the processes that this user may not look into.
 */
int users_find(const struct device *dev, struct user **users, int *hidden);
/* The name and the owner of a process; false if it has ended. */
bool process_look(pid_t pid, const char **command, uid_t *uid);

/* servers.c */

#define MAX_SERVERS	64
#define SERVER_PEERS_MAX	64	/* as kvmfrd has it */

/* A socket of a kvmfrd, which may not run yet. */
struct server {
	const char *socket;
	const char *name;	/* of kvmfrd@NAME.socket, NULL for another socket */
	bool exists;		/* something is at that path: st */
	bool listens;		/* it is a socket, and connections are accepted */
	struct stat st;
	/* From the status file; valid if runs. */
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

/* Looks at one socket and its server, whether they exist or not. */
void server_look(const char *socket, struct server *server);
/* "vm1" for /run/kvmfr/vm1.sock, NULL for another path. */
char *server_instance(const char *socket);
/*
 * Finds the servers with a socket in /run/kvmfr, and any other kvmfrd with a status
 * file beside its socket, ordered by path; returns how many.
 */
int servers_find(struct server servers[MAX_SERVERS]);

/* kvmfrctl without a command: how this machine stands. */
int summary(void);

/* The commands: argv[0] is the command's name. Each returns the exit status. */
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
