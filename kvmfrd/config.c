// SPDX-License-Identifier: GPL-2.0
/*
 * The configuration file of channels: sections "[CHANNEL]" or "[VM/CHANNEL]"
 * with lines "key = value". Comments begin with "#" or ";".
 */
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channels.h"

/* The state of reading a file. */
struct reader {
	const char *path, *vm;
	unsigned int line;
	struct channel_config *section;	/* NULL: before the first one, or another VM's */
	bool skip;
	struct channel_config **end;
};

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		end--;
	*end = 0;
	return s;
}

static bool set_owner(struct channel_config *section, const char *value)
{
	struct passwd *user = getpwnam(value);

	section->access.owner = user ? user->pw_uid : (uid_t)-1;
	return user;
}

static bool set_group(struct channel_config *section, const char *value)
{
	struct group *group = getgrnam(value);

	section->access.group = group ? group->gr_gid : (gid_t)-1;
	return group;
}

static bool set_mode(struct channel_config *section, const char *value)
{
	char *end;
	unsigned long mode = strtoul(value, &end, 8);

	section->access.mode = mode;
	return isdigit((unsigned char)*value) && !*end && mode <= 0777;
}

static bool set_to_guest(struct channel_config *section, const char *value)
{
	return size_parse(value, &section->to_guest);
}

static bool set_to_host(struct channel_config *section, const char *value)
{
	return size_parse(value, &section->to_host);
}

static bool set_size(struct channel_config *section, const char *value)
{
	return set_to_guest(section, value) && set_to_host(section, value);
}

static bool set_connect(struct channel_config *section, const char *value)
{
	if (*value != '/')
		return false;
	free(section->connect);
	section->connect = strdup(value);
	return section->connect;
}

static const struct {
	const char *key;
	bool (*set)(struct channel_config *section, const char *value);
	const char *expected;
} keys[] = {
	{ "owner", set_owner, "the name of a user" },
	{ "group", set_group, "the name of a group" },
	{ "mode", set_mode, "an octal number up to 0777" },
	{ "size", set_size, "bytes, as in 65536, 64K or 1M, at most 1G" },
	{ "to-guest", set_to_guest, "bytes, as in 65536, 64K or 1M, at most 1G" },
	{ "to-host", set_to_host, "bytes, as in 65536, 64K or 1M, at most 1G" },
	{ "connect", set_connect, "the path of a socket, from / on" },
};

static void read_key(struct reader *r, char *line)
{
	char *value = strchr(line, '=');

	if (!value)
		die("%s:%u: expected [CHANNEL] or KEY = VALUE", r->path, r->line);
	*value++ = 0;
	line = trim(line);
	value = trim(value);
	if (!r->section && !r->skip)
		die("%s:%u: %s: expected [CHANNEL] before it", r->path, r->line, line);
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		static struct channel_config nobody;

		if (strcmp(keys[i].key, line))
			continue;
		if (!keys[i].set(r->skip ? &nobody : r->section, value) && !r->skip)
			die("%s:%u: %s = %s: expected %s", r->path, r->line, line, value,
			    keys[i].expected);
		return;
	}
	die("%s:%u: there is no key \"%s\"", r->path, r->line, line);
}

/* "[CHANNEL]" is for all VMs, "[VM/CHANNEL]" for one. */
static void read_section(struct reader *r, char *line)
{
	char *end = strrchr(line, ']'), *name, *slash;
	struct channel_config *section;

	if (!end || end[1])
		die("%s:%u: expected [CHANNEL]", r->path, r->line);
	*end = 0;
	name = trim(line + 1);
	slash = strchr(name, '/');
	r->section = NULL;
	r->skip = false;
	if (slash) {
		*slash = 0;
		r->skip = !r->vm || strcmp(name, r->vm);
		name = slash + 1;
	}
	if (!kvmfr_channel_name_is_valid(name))
		die("%s:%u: a channel's name has 1 to %d printable ASCII characters without \"/\", and isn't \".\" or \"..\"",
		    r->path, r->line, KVMFR_CHANNEL_NAME_SIZE - 1);
	if (r->skip)
		return;
	section = calloc(1, sizeof(*section));
	if (!section)
		die("out of memory");
	section->to_guest = section->to_host = CHANNEL_SIZE;
	section->access = (struct access){ -1, -1, 0660 };
	section->for_vm = slash;
	strcpy(section->name, name);
	*r->end = section;
	r->end = &section->next;
	r->section = section;
}

struct channel_config *config_read(const char *path, const char *vm)
{
	struct reader r = { .path = path ?: CHANNELS_CONFIG, .vm = vm };
	struct channel_config *sections = NULL;
	FILE *file = fopen(r.path, "re");
	size_t room = 0;
	char *line = NULL;

	if (!file && errno == ENOENT && !path)
		return NULL;
	if (!file)
		die("%s: %s", r.path, strerror(errno));
	for (r.end = &sections; getline(&line, &room, file) >= 0;) {
		char *text = trim(line);

		r.line++;
		if (*text == '[')
			read_section(&r, text);
		else if (*text && *text != '#' && *text != ';')
			read_key(&r, text);
	}
	if (ferror(file))
		die("%s: %s", r.path, strerror(errno));
	free(line);
	fclose(file);
	return sections;
}

void config_free(struct channel_config *sections)
{
	while (sections) {
		struct channel_config *next = sections->next;

		free(sections->connect);
		free(sections);
		sections = next;
	}
}

const struct channel_config *config_find(const struct channel_config *sections, const char *name)
{
	static const struct channel_config none = { .access = { -1, -1, 0660 } };
	const struct channel_config *found = &none;

	for (; sections; sections = sections->next)
		if (!strcmp(sections->name, name) && (found == &none || sections->for_vm))
			found = sections;
	return found;
}
