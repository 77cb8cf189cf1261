// SPDX-License-Identifier: GPL-2.0
/* doctor: who may open the devices? */
#include "doctor.h"
#include "rule.h"

#include <ctype.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIGGER	"udevadm control --reload && udevadm trigger --settle --action=add --subsystem-match=kvmfr"

/* Is a line a rule on who may open the devices? (kvmfrd's rule only starts kvmfrd.) */
static bool is_rule(const char *line)
{
	static const char * const says[] = { "OWNER", "GROUP", "MODE", "\"uaccess\"" };

	if (*line == '#' || (!strstr(line, "SUBSYSTEM==\"kvmfr") &&
			     !strstr(line, "KERNEL==\"kvmfr")))
		return false;
	for (size_t i = 0; i < sizeof(says) / sizeof(*says); i++)
		if (strstr(line, says[i]))
			return true;
	return false;
}

/* The first line of a file that is such a rule, or NULL. */
static char *rule_in(const char *file)
{
	char *lines = file_read(file, NULL), *line;

	while ((line = strsep(&lines, "\n"))) {
		line += strspn(line, " \t");
		if (is_rule(line))
			return line;
	}
	return NULL;
}

/* A file in an earlier directory overrides one of the same name in a later one. */
static bool hidden(const char *file, const char * const *dirs, int before)
{
	for (int i = 0; i < before; i++)
		if (!access(path("%s%s", dirs[i], strrchr(file, '/')), F_OK))
			return true;
	return false;
}

/* The rule that udev applies last, and its file. */
static char *rule_find(const char **file)
{
	static const char * const dirs[] = {
		"/etc/udev/rules.d", "/run/udev/rules.d",
		"/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
		"/lib/udev/rules.d",
	};
	const char *last = "";
	char *rule = NULL;
	glob_t found;

	for (int i = 0; i < 5; i++) {
		if (glob(path("%s/*.rules", dirs[i]), 0, NULL, &found))
			continue;
		for (size_t j = 0; j < found.gl_pathc; j++) {
			const char *name = found.gl_pathv[j];
			char *candidate = rule_in(name);

			if (!candidate || hidden(name, dirs, i) ||
			    strcmp(strrchr(name, '/'), last) <= 0)
				continue;
			rule = candidate;
			*file = name;
			last = strrchr(name, '/');
		}
	}
	return rule;
}

/* The value of OWNER= in a rule if that is not a system user, else NULL. */
static const char *ordinary_owner(const char *rule)
{
	static const char key[] = "OWNER=\"";
	const char *owner = strstr(rule, key);
	struct person person;

	if (!owner)
		return NULL;
	owner += strlen(key);
	owner = strndup(owner, strcspn(owner, "\""));
	if (person_by_name(owner, &person) && person.uid < 1000)
		return NULL;
	return owner;
}

/* The user can be a number, with or without "+". */
bool qemu_person(const char *conf, struct person *person)
{
	char *user = qemu_conf_setting(conf, "user");

	if (!user)
		return person_by_name("libvirt-qemu", person) ||
		       person_by_name("qemu", person);
	user += *user == '+';
	if (isdigit(*user))
		user = user_name(strtoul(user, NULL, 10));
	return person_by_name(user, person);
}

/*
 * The group for the rule: kvm, or qemu where libvirt runs its guests in group qemu
 * and not in kvm.
 */
static const char *rule_group(void)
{
	char *conf = file_read(path("/etc/libvirt/qemu.conf"), NULL);
	struct person person;
	gid_t kvm, qemu;

	if (!group_by_name("qemu", &qemu))
		return "kvm";
	if (!group_by_name("kvm", &kvm))
		return "qemu";
	if (conf && qemu_person(conf, &person) && in_group(&person, qemu) &&
	    !in_group(&person, kvm))
		return "qemu";
	return "kvm";
}

static const char *rule_text(void)
{
	static const char key[] = "GROUP=\"kvm\"";
	const char *group = strstr(RULE, key);

	return text("%.*sGROUP=\"%s\"%s", (int)(group - RULE), RULE,
		    rule_group(), group + strlen(key));
}

static void write_rule(struct finding *finding)
{
	const char *file = path("/etc/udev/rules.d/99-kvmfr.rules");

	/* A link to /dev/null may be there, which hides the packaged rule. */
	mend_file(finding, file, "rm -f %s && echo %s > %s%s", quoted(file),
		  quoted(rule_text()), quoted(file), here(" && " TRIGGER));
}

/* Are owner, group and mode as the kernel made the node? */
static bool untouched(const struct device *dev)
{
	return !dev->st.st_uid && !dev->st.st_gid &&
	       (dev->st.st_mode & 0777) == 0600;
}

void check_udev(struct report *r)
{
	const char *file = NULL, *owner;
	char *rule = rule_find(&file);
	struct finding *finding;

	if (!rule) {
		finding = wrong(r, "no udev rule says who may open the devices");
		write_rule(finding);
		return;
	}
	for (int i = 0; i < n_devices; i++) {
		struct device *dev = &devices[i];

		if (dev->state != NODE_OK || !untouched(dev))
			continue;
		owner = ordinary_owner(rule);
		if (owner) {
			finding = wrong(r, "%s: '%s' is no system user, so newer systemd leaves out the whole rule",
					file, owner);
			mend_file(finding, file, "sed -i 's/OWNER=\"%s\"/GROUP=\"%s\", MODE=\"0660\"/' %s%s",
				  owner, rule_group(), quoted(file), here(" && " TRIGGER));
		} else if (!strstr(rule, "MODE") && !strstr(rule, "GROUP") &&
			   !strstr(rule, "OWNER")) {
			finding = wrong(r, "%s: its rule lets nobody open %s",
					file, dev->node);
			write_rule(finding);
		} else {
			finding = wrong(r, "%s: its rule was not applied to %s",
					file, dev->node);
			mend(finding, TRIGGER);
		}
	}
	if (!r->n)
		right(r, "%s says who may open the devices%s", file,
		      n_devices ? ", and it was applied" : "");
}

void mend_group(struct finding *finding, const struct stat *st,
		const char *user)
{
	const char *group = group_name(st->st_gid), *copy = "";

	if ((st->st_mode & 060) != 060 || !st->st_gid)
		return;
	/* An image has its groups in /usr/lib/group, which usermod ignores. */
	if (system_is_image())
		copy = text("{ grep -q '^%s:' /etc/group || getent group %s >> /etc/group; } && ",
			    group, group);
	mend(finding, "%susermod -aG %s %s", copy, quoted(group), quoted(user));
}

const char *access_text(const char *node, const struct stat *st)
{
	return text("%s belongs to %s:%s, mode %04o", node,
		    user_name(st->st_uid), group_name(st->st_gid),
		    st->st_mode & 07777);
}

/* Checks every device for one person; false if there is no device. */
static bool check_person(struct report *r, const struct person *person,
			 const struct person *next_login, const char *what)
{
	bool any = false;

	for (int i = 0; i < n_devices; i++) {
		struct device *dev = &devices[i];
		struct finding *finding;

		if (dev->state != NODE_OK)
			continue;
		any = true;
		if (person_may_open(person, dev->node, &dev->st)) {
			right(r, "%s%s may open %s", what, person->name,
			      dev->node);
		} else if (next_login &&
			   person_may_open(next_login, dev->node, &dev->st)) {
			wrong(r, "%s%s may open %s after the next login: log out and in again",
			      what, person->name, dev->node);
		} else {
			finding = wrong(r, "%s%s may not open it: %s", what,
					person->name,
					access_text(dev->node, &dev->st));
			mend_group(finding, &dev->st, person->name);
		}
	}
	return any;
}

void check_user(struct report *r)
{
	struct person person, listed;
	bool known;

	if (doctor_user) {
		person_by_name(doctor_user, &person);
		known = false;
	} else {
		person_current(&person);
		known = person_by_name(person.name, &listed);
	}
	if (!check_person(r, &person, known ? &listed : NULL, ""))
		elsewhere(r, "there is no device to open");
}

void check_qemu_user(struct report *r)
{
	char *conf = qemu_conf(r);
	struct person person;

	if (!conf)
		return;
	if (!qemu_person(conf, &person))
		elsewhere(r, "libvirt's QEMU has no user of its own here");
	else if (!check_person(r, &person, NULL, "libvirt's QEMU: "))
		elsewhere(r, "there is no device to open");
}
