// SPDX-License-Identifier: GPL-2.0
/* Users, their groups, and what a node's mode and ACL grant them. */
#include "kvmfrctl.h"

#include <endian.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/*
 * With --root, users and groups come from the files there; otherwise from this
 * system's name service.
 */
static struct passwd *find_user(const char *name, uid_t uid)
{
	struct passwd *pw;
	FILE *f;

	if (!*root)
		return name ? getpwnam(name) : getpwuid(uid);

	f = fopen(path("/etc/passwd"), "re");
	if (!f)
		return NULL;
	while ((pw = fgetpwent(f)))
		if (name ? !strcmp(pw->pw_name, name) : pw->pw_uid == uid)
			break;
	fclose(f);
	return pw;
}

static int groups_of(const struct passwd *pw, gid_t *groups, int max)
{
	struct group *gr;
	int n = 0;
	FILE *f;

	if (!*root) {
		n = max;
		return getgrouplist(pw->pw_name, pw->pw_gid, groups, &n) < 0 ?
		       max : n;
	}

	groups[n++] = pw->pw_gid;
	f = fopen(path("/etc/group"), "re");
	if (!f)
		return n;
	while (n < max && (gr = fgetgrent(f)))
		for (char **member = gr->gr_mem; *member; member++)
			if (!strcmp(*member, pw->pw_name)) {
				groups[n++] = gr->gr_gid;
				break;
			}
	fclose(f);
	return n;
}

bool person_by_name(const char *name, struct person *person)
{
	static const int max = 4096;
	struct passwd *pw = find_user(name, 0);

	if (!pw)
		return false;
	person->name = text("%s", pw->pw_name);
	person->uid = pw->pw_uid;
	person->groups = calloc(max, sizeof(*person->groups));
	if (!person->groups)
		fail("out of memory");
	person->n_groups = groups_of(pw, person->groups, max);
	return true;
}

/* The user and groups of this process. A change of /etc/group doesn't affect them. */
void person_current(struct person *person)
{
	int n = getgroups(0, NULL);

	person->uid = geteuid();
	person->name = user_name(person->uid);
	person->groups = calloc(n + 1, sizeof(*person->groups));
	if (!person->groups)
		fail("out of memory");
	n = getgroups(n, person->groups);
	person->groups[n] = getegid();
	person->n_groups = n + 1;
}

char *user_name(uid_t uid)
{
	struct passwd *pw = find_user(NULL, uid);

	return pw ? text("%s", pw->pw_name) : text("%u", uid);
}

static struct group *find_group(const char *name, gid_t gid)
{
	struct group *gr;
	FILE *f;

	if (!*root)
		return name ? getgrnam(name) : getgrgid(gid);

	f = fopen(path("/etc/group"), "re");
	if (!f)
		return NULL;
	while ((gr = fgetgrent(f)))
		if (name ? !strcmp(gr->gr_name, name) : gr->gr_gid == gid)
			break;
	fclose(f);
	return gr;
}

char *group_name(gid_t gid)
{
	struct group *gr = find_group(NULL, gid);

	return gr ? text("%s", gr->gr_name) : text("%u", gid);
}

bool group_by_name(const char *name, gid_t *gid)
{
	struct group *gr = find_group(name, 0);

	if (gr)
		*gid = gr->gr_gid;
	return gr;
}

bool in_group(const struct person *person, gid_t gid)
{
	for (int i = 0; i < person->n_groups; i++)
		if (person->groups[i] == gid)
			return true;
	return false;
}

/*
 * The kernel's rules for an ACL: the first that matches of owner, named user, groups
 * and others decides. Of several matching groups, one that grants all is enough. The
 * mask limits all but owner and others.
 */
enum { ACL_USER_OBJ = 1, ACL_USER = 2, ACL_GROUP_OBJ = 4, ACL_GROUP = 8,
       ACL_MASK = 16, ACL_OTHER = 32 };

struct acl_entry {
	uint16_t tag;
	uint16_t perm;
	uint32_t id;
};

static bool acl_grants(const struct person *person, const struct stat *st,
		       const struct acl_entry *acl, int n, int want)
{
	int mask = 7, other = 0;
	bool group_matches = false, group_grants = false;

	for (int i = 0; i < n; i++)
		if (le16toh(acl[i].tag) == ACL_MASK)
			mask = le16toh(acl[i].perm);

	for (int i = 0; i < n; i++) {
		int perm = le16toh(acl[i].perm);
		uint32_t id = le32toh(acl[i].id);
		bool matches = false;

		switch (le16toh(acl[i].tag)) {
		case ACL_USER_OBJ:
			if (person->uid == st->st_uid)
				return (perm & want) == want;
			break;
		case ACL_USER:
			if (person->uid == id)
				return (perm & mask & want) == want;
			break;
		case ACL_GROUP_OBJ:
			matches = in_group(person, st->st_gid);
			break;
		case ACL_GROUP:
			matches = in_group(person, id);
			break;
		case ACL_OTHER:
			other = perm;
			break;
		}
		if (matches) {
			group_matches = true;
			if ((perm & mask & want) == want)
				group_grants = true;
		}
	}
	return group_matches ? group_grants : (other & want) == want;
}

bool person_may(const struct person *person, const char *node,
		const struct stat *st, int want)
{
	struct {
		uint32_t version;
		struct acl_entry entry[256];
	} acl;
	ssize_t len;
	int perm;

	if (!person->uid)
		return true;

	len = getxattr(node, "system.posix_acl_access", &acl, sizeof(acl));
	if (len > 4 && le32toh(acl.version) == 2)
		return acl_grants(person, st, acl.entry,
				  (len - 4) / sizeof(acl.entry[0]), want);

	if (person->uid == st->st_uid)
		perm = st->st_mode >> 6;
	else if (in_group(person, st->st_gid))
		perm = st->st_mode >> 3;
	else
		perm = st->st_mode;
	return (perm & want) == want;
}

bool person_may_open(const struct person *person, const char *node,
		     const struct stat *st)
{
	return person_may(person, node, st, R_OK | W_OK);
}

const char *person_is_kept_out(const struct person *person, const char *file)
{
	struct stat st;

	for (const char *slash = strchr(file + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		const char *dir = text("%.*s", (int)(slash - file), file);

		if (!stat(path("%s", dir), &st) &&
		    !person_may(person, path("%s", dir), &st, X_OK))
			return dir;
	}
	return NULL;
}
