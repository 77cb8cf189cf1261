/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A check answers one question about the system. It reports one or more findings
 * by right(), wrong(), unseen() and elsewhere().
 */
#ifndef KVMFR_DOCTOR_H
#define KVMFR_DOCTOR_H

#include "kvmfrctl.h"

enum verdict {
	RIGHT,
	WRONG,
	UNSEEN,		/* this user is not allowed to look */
	ELSEWHERE,	/* does not apply here: no libvirt, no device yet, ... */
};

struct finding {
	enum verdict verdict;
	const char *text;
	const char *command;	/* that repairs it, or NULL */
	const char *file;	/* that the command edits, or NULL */
	bool anywhere;		/* the command also works on another root directory */
};

/* What all checks together have found. */
struct diagnosis {
	int count[ELSEWHERE + 1];
	struct finding first_wrong;	/* all zero if nothing is wrong */
};
void diagnose(struct diagnosis *diagnosis);

#define MAX_FINDINGS	256

struct report {
	struct finding findings[MAX_FINDINGS];
	int n;
};

/*
 * The size that modprobe will give to the module, as it is written, and where that
 * is ("modprobe.d"). NULL if no size is set.
 */
const char *size_configured(const char **source);

void right(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void unseen(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void elsewhere(struct report *r, const char *fmt, ...) PRINTF(2, 3);
/* Reports what is wrong. mend() or mend_file() adds the command that repairs it. */
struct finding *wrong(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void mend(struct finding *finding, const char *fmt, ...) PRINTF(2, 3);
void mend_file(struct finding *finding, const char *file, const char *fmt, ...)
	PRINTF(3, 4);

/* The devices, read again before each check. */
extern struct device devices[MAX_DEVICES];
extern int n_devices;

/* The user of --user, or who called sudo; NULL: the user of this process. */
extern const char *doctor_user;

/*
 * A part of a command that applies to the running system only: the empty string if
 * --root names another directory.
 */
const char *here(const char *command);
/* Loads the module again, so that its options are read again. */
#define RELOAD	"modprobe -r kvmfr && modprobe kvmfr"

/* check_module.c */
void check_built(struct report *r);
void check_signature(struct report *r);
void check_node(struct report *r);
void check_loaded(struct report *r);
void check_devices(struct report *r);

/* check_huge.c */
void check_huge(struct report *r);
void check_mappings(struct report *r);

/* check_access.c */
void check_udev(struct report *r);
void check_user(struct report *r);
void check_qemu_user(struct report *r);
/* The user libvirt runs QEMU as, by its qemu.conf. */
bool qemu_person(const char *conf, struct person *person);
/* Adds the command that lets the user in, if joining the file's group does. */
void mend_group(struct finding *finding, const struct stat *st,
		const char *user);
/* "/dev/kvmfr0 belongs to root:kvm, mode 0660" */
const char *access_text(const char *node, const struct stat *st);

/* check_libvirt.c */
/* A setting in qemu.conf, as it is written there; NULL if it is not set. */
char *qemu_conf_setting(const char *conf, const char *name);
/* All of qemu.conf, or NULL after reporting why not. */
char *qemu_conf(struct report *r);
void check_apparmor(struct report *r);
void check_cgroup(struct report *r);
void check_selinux(struct report *r);

/* check_domains.c */
void check_domains(struct report *r);
/* A domain of libvirt's. */
struct domain {
	const char *file;
	const char *name;
	const char *uri;	/* of the libvirt that runs it */
	const char *xml;
	char **args;		/* what its <qemu:arg> give to QEMU */
	int n_args;
};
/*
 * Calls the function for each of the system's domains and of this user's own.
 * Those whose files can't be read are reported as unseen.
 */
void domains_each(struct report *r,
		  void (*visit)(struct report *r, const struct domain *domain));
/* Fills in the arguments from the XML. */
void domain_parse(struct domain *domain);
/*
 * The device that one of QEMU's arguments has as memory (its "mem-path", /dev/kvmfrN
 * or in BY_NAME), or NULL; and the "size" beside it in bytes, or 0.
 */
const char *domain_memory(const char *argument);
uint64_t domain_size(const char *argument);
/*
 * The value of an option in one of QEMU's arguments, as it is written there: after
 * ",size=" in the older syntax, after "size": in JSON. NULL if it isn't there.
 */
char *option_in(const char *argument, const char *option);

/* check_libvirt.c */
/* " && systemctl …", which restarts libvirt where systemd runs it, or "". */
const char *restart_libvirt(void);

/* check_servers.c */
void check_servers(struct report *r);
/*
 * Finds the sockets of the doorbells in a domain's <qemu:arg>, which libvirt doesn't
 * know of; returns how many.
 */
int domain_sockets(const struct domain *domain, const char **sockets, int max);

#endif
