/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A check asks one question and reports what it found: at least one of right,
 * wrong, unseen and elsewhere.
 */
#ifndef KVMFR_DOCTOR_H
#define KVMFR_DOCTOR_H

#include "kvmfrctl.h"

enum verdict {
	RIGHT,
	WRONG,
	UNSEEN,		/* this user may not look */
	ELSEWHERE,	/* no question here: no libvirt, no device yet, ... */
};

struct finding {
	enum verdict verdict;
	const char *text;
	const char *command;	/* mends it; NULL if no command can */
	const char *file;	/* that the command edits */
	bool anywhere;		/* it may be done below another root */
};

/* What all checks found together. */
struct diagnosis {
	int count[ELSEWHERE + 1];
	struct finding first_wrong;	/* zero if nothing is */
};
void diagnose(struct diagnosis *diagnosis);

#define MAX_FINDINGS	256

struct report {
	struct finding findings[MAX_FINDINGS];
	int n;
};

/* The size that modprobe uses, and who says so; NULL if nobody does. */
const char *size_configured(const char **source);

void right(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void unseen(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void elsewhere(struct report *r, const char *fmt, ...) PRINTF(2, 3);
/* What is wrong; then with one of the others the command for it. */
struct finding *wrong(struct report *r, const char *fmt, ...) PRINTF(2, 3);
void mend(struct finding *finding, const char *fmt, ...) PRINTF(2, 3);
void mend_file(struct finding *finding, const char *file, const char *fmt, ...)
	PRINTF(3, 4);

/* The devices as they are at this moment. */
extern struct device devices[MAX_DEVICES];
extern int n_devices;

/* --user, or who called sudo, or this process. */
extern const char *doctor_user;

/*
 * The part of a command that can only be for the running system: nothing when
 * another root directory is looked at.
 */
const char *here(const char *command);
/* Makes the module let go of what it has, and read its options again. */
#define RELOAD	"modprobe -r kvmfr && modprobe kvmfr"

/* check_module.c */
void check_built(struct report *r);
void check_signature(struct report *r);
void check_node(struct report *r);
void check_loaded(struct report *r);
void check_devices(struct report *r);
void check_huge(struct report *r);
void check_mappings(struct report *r);

/* check_access.c */
void check_udev(struct report *r);
void check_user(struct report *r);
void check_qemu_user(struct report *r);

/* check_libvirt.c */
/* A setting in qemu.conf, as it is written there; NULL if it is not set. */
char *qemu_conf_setting(const char *conf, const char *name);
/* All of qemu.conf, or NULL after reporting why not. */
char *qemu_conf(struct report *r);
void check_apparmor(struct report *r);
void check_cgroup(struct report *r);
void check_selinux(struct report *r);
void check_domains(struct report *r);

#endif
