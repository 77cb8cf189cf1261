// SPDX-License-Identifier: GPL-2.0
/* doctor's questions about libvirt, and what guards its guests. */
#include "doctor.h"
#include "rule.h"

#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *libvirt_conf_path(void)
{
	return path("/etc/libvirt/qemu.conf");
}

char *qemu_conf(struct report *r)
{
	char *conf = file_read(libvirt_conf_path(), NULL);

	if (conf)
		return conf;
	if (errno == EACCES)
		unseen(r, "%s is not readable", libvirt_conf_path());
	else
		elsewhere(r, "libvirt is not installed");
	return NULL;
}

/* The start of a setting's value, NULL if no line sets it. */
static const char *setting_start(const char *conf, const char *name)
{
	const char *found = NULL, *line = conf, *p;

	for (; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		p = line + strspn(line, " \t");
		if (strncmp(p, name, strlen(name)))
			continue;
		p += strlen(name);
		p += strspn(p, " \t");
		if (*p == '=')
			found = p + 1 + strspn(p + 1, " \t");
	}
	return found;
}

char *qemu_conf_setting(const char *conf, const char *name)
{
	const char *start = setting_start(conf, name);

	if (!start)
		return NULL;
	if (*start == '[')
		return strndup(start, strcspn(start, "]") + 1);
	if (*start == '"' || *start == '\'')
		return strndup(start + 1, strcspn(start + 1, "\"'\n"));
	return strndup(start, strcspn(start, " \t\n#"));
}

/* The nodes the other files have to know; there may be none yet. */
static int nodes(const char *names[MAX_DEVICES])
{
	for (int i = 0; i < n_devices; i++)
		names[i] = text("/dev/%s", devices[i].name);
	if (!n_devices)
		names[0] = "/dev/kvmfr0";
	return n_devices ? n_devices : 1;
}

/* Does a line of an AppArmor file let the node be read and written? */
static bool apparmor_grants(const char *file, const char *node)
{
	char *line = file_read(file, NULL), *next;
	char rule[256], perms[32];

	for (; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		else
			next = line + strlen(line);
		if (sscanf(line, " %255[^# \t] %31[a-zA-Z]", rule, perms) == 2 &&
		    strchr(perms, 'r') && strchr(perms, 'w') &&
		    !fnmatch(rule, node, FNM_PATHNAME))
			return true;
	}
	return false;
}

void check_apparmor(struct report *r)
{
	const char *local = path("/etc/apparmor.d/local/abstractions/libvirt-qemu");
	const char *abstraction = path("/etc/apparmor.d/abstractions/libvirt-qemu");
	char *enabled = file_line(path("/sys/module/apparmor/parameters/enabled"));
	const char *names[MAX_DEVICES];
	struct finding *finding;
	char *conf, *driver;
	int n = nodes(names);

	if (!enabled || *enabled != 'Y') {
		elsewhere(r, "AppArmor is off");
		return;
	}
	conf = file_read(libvirt_conf_path(), NULL);
	driver = conf ? qemu_conf_setting(conf, "security_driver") : NULL;
	if (access(abstraction, F_OK) || (driver && strstr(driver, "none"))) {
		elsewhere(r, "libvirt's guests are not confined by AppArmor");
		return;
	}
	for (int i = 0; i < n; i++)
		if (!apparmor_grants(local, names[i]) &&
		    !apparmor_grants(abstraction, names[i])) {
			finding = wrong(r, "AppArmor keeps libvirt's guests from %s; a guest sees the change at its next start",
					names[i]);
			mend_file(finding, local, "mkdir -p %s && echo '/dev/kvmfr[0-9]* rw,' >> %s",
				  path("/etc/apparmor.d/local/abstractions"),
				  local);
			return;
		}
	right(r, "AppArmor lets libvirt's guests use the devices");
}

/*
 * The list for qemu.conf when none is set there. It replaces the one that is
 * built into libvirt, so it needs all that that one has: what qemu.conf shows in
 * a comment, and what libvirt has had in it otherwise. libvirt 12 has no
 * "/dev/kvm" in the comment, and a guest with KVM must start all the same.
 * libvirt passes over a node that does not exist.
 */
static const char *default_acl(const char *conf)
{
	static const char * const always[] = {
		"/dev/null", "/dev/full", "/dev/zero", "/dev/random",
		"/dev/urandom", "/dev/ptmx", "/dev/kvm", "/dev/userfaultfd",
	};
	static const char key[] = "#cgroup_device_acl = [";
	const char *p = strstr(conf, key);
	const char *end = p ? strchr(p, ']') : NULL;
	char *list = calloc(1, 1);

	/* Each string of the comment. */
	for (p = end ? p + strlen(key) : NULL; p; p = strchr(p + 1, '"')) {
		const char *word = strchr(p, '"');

		p = word ? strchr(word + 1, '"') : NULL;
		if (!p || p > end)
			break;
		list = text("%s%s%.*s", list, *list ? ", " : "",
			    (int)(p + 1 - word), word);
	}
	for (size_t i = 0; i < sizeof(always) / sizeof(*always); i++)
		if (!strstr(list, text("\"%s\"", always[i])))
			list = text("%s%s\"%s\"", list, *list ? ", " : "",
				    always[i]);
	return list;
}

/* Restarts what reads qemu.conf, where systemd runs it. */
static const char *restart_libvirt(void)
{
	static const char * const units[] = { "libvirtd", "virtqemud" };
	const char *found = "";

	if (access("/run/systemd/system", F_OK))
		return "";
	for (int i = 0; i < 2; i++)
		if (!access(text("/usr/lib/systemd/system/%s.service", units[i]), F_OK) ||
		    !access(text("/lib/systemd/system/%s.service", units[i]), F_OK))
			found = text("%s %s", found, units[i]);
	return *found ? text(" && systemctl try-restart%s", found) : "";
}

void check_cgroup(struct report *r)
{
	char *conf = qemu_conf(r), *controllers, *acl;
	const char *names[MAX_DEVICES], *missing = "";
	const char *conf_file = libvirt_conf_path();
	struct finding *finding;
	int n = nodes(names);

	if (!conf)
		return;
	controllers = qemu_conf_setting(conf, "cgroup_controllers");
	if (controllers && !strstr(controllers, "\"devices\"")) {
		right(r, "libvirt does not limit its guests' devices");
		return;
	}
	acl = qemu_conf_setting(conf, "cgroup_device_acl");
	for (int i = 0; i < n; i++)
		if (!acl || !strstr(acl, text("\"%s\"", names[i])))
			missing = text("%s%s\"%s\"", missing,
				       *missing ? ", " : "", names[i]);
	if (!*missing) {
		right(r, "cgroup_device_acl in qemu.conf has the devices");
		return;
	}

	finding = wrong(r, "cgroup_device_acl in qemu.conf lacks %s: libvirt's guests may not open it; libvirt reads the file when it starts",
			missing);
	if (acl)
		mend_file(finding, conf_file, "sed -i '/^[ \t]*cgroup_device_acl[ \t]*=/ s|\\[|[ %s,|' %s%s",
			  missing, conf_file, here(restart_libvirt()));
	else
		mend_file(finding, conf_file, "echo 'cgroup_device_acl = [ %s, %s ]' >> %s%s",
			  default_acl(conf), missing, conf_file,
			  here(restart_libvirt()));
}

void check_selinux(struct report *r)
{
	char *enforce = file_line(path("/sys/fs/selinux/enforce"));
	char label[256] = "";
	struct finding *finding;
	glob_t found;

	if (!enforce) {
		elsewhere(r, "SELinux is off");
		return;
	}
	if (*enforce != '1') {
		right(r, "SELinux is permissive: it refuses nothing");
		return;
	}
	if (access(path("/etc/libvirt"), F_OK)) {
		elsewhere(r, "SELinux is enforcing, but libvirt is not installed");
		return;
	}
	if (n_devices && getxattr(devices[0].node, "security.selinux", label,
				  sizeof(label) - 1) > 0 &&
	    !strstr(label, ":device_t:")) {
		right(r, "SELinux is enforcing, and %s has a label of its own: %s",
		      devices[0].node, label);
		return;
	}
	if (!glob(path("/var/lib/selinux/*/active/modules/*/kvmfr"), 0, NULL,
		  &found)) {
		right(r, "SELinux is enforcing, and has the policy module kvmfr");
		return;
	}
	if (geteuid()) {
		unseen(r, "SELinux is enforcing; its policy modules are not readable");
		return;
	}
	finding = wrong(r, "SELinux is enforcing, and its policy keeps libvirt's guests from the devices");
	mend(finding, "d=$(mktemp -d) && echo %s > $d/kvmfr.cil && semodule -i $d/kvmfr.cil && { restorecon -F /dev/kvmfr* || :; }; rm -r $d",
	     quoted(POLICY));
}

/* What XML's quotes and brackets stand for, in place. */
static void unescape(char *s)
{
	static const struct { const char *name; char c; } entities[] = {
		{ "&quot;", '"' }, { "&apos;", '\'' }, { "&lt;", '<' },
		{ "&gt;", '>' }, { "&amp;", '&' },
	};
	char *out = s;

	while (*s) {
		size_t i, n = sizeof(entities) / sizeof(*entities);

		for (i = 0; i < n; i++)
			if (!strncmp(s, entities[i].name,
				     strlen(entities[i].name)))
				break;
		if (i < n) {
			*out++ = entities[i].c;
			s += strlen(entities[i].name);
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

/* A domain of libvirt's. */
struct domain {
	const char *file;
	const char *name;
	const char *uri;	/* of the libvirt that runs it */
};

static bool is_json(const char *argument)
{
	return *argument == '{';
}

/*
 * The value of a size in an argument of QEMU's, as written: after ",size=" in
 * its older syntax, after "size": in JSON.
 */
static char *option_in(const char *argument, const char *option)
{
	const char *key = is_json(argument) ? text("\"%s\"", option) :
					      text(",%s=", option);
	const char *p = strstr(argument, key);

	if (!p)
		return NULL;
	p += strlen(key);
	p += strspn(p, is_json(argument) ? " :\"" : "");
	return strndup(p, strspn(p, "0123456789bBkKmMgGtT"));
}

static uint64_t size_value(const char *size)
{
	char *unit;
	uint64_t value = strtoull(size, &unit, 10);

	switch (*unit | 0x20) {
	case 'k':
		return value << 10;
	case 'm':
		return value << 20;
	case 'g':
		return value << 30;
	case 't':
		return value << 40;
	}
	return value;
}

/*
 * Has sed change the lines of the domain that name the device, which are those
 * of its memory backend.
 */
static void mend_domain(struct finding *finding, const struct domain *domain,
			const struct device *dev, const char *substitute)
{
	const char *edit = text("'\\#/dev/%s([^0-9]|$)#%s'", dev->name,
				substitute);

	if (*root)
		mend_file(finding, domain->file, "sed -i -E %s %s", edit,
			  quoted(domain->file));
	else
		mend_file(finding, domain->file, "virsh -c %s dumpxml --inactive --security-info %s | sed -E %s | virsh -c %s define /dev/stdin",
			  domain->uri, quoted(domain->name), edit, domain->uri);
}

/* sed's command that gives an option another value, in both syntaxes. */
static const char *replace_option(const char *option, const char *old,
				  const char *new)
{
	return text("s#(%s(=|(\"|&quot;): *(\"|&quot;)?))%s#\\1%s#", option,
		    old, new);
}

/* False if that was reported as wrong. */
static bool check_size(struct report *r, const struct domain *domain,
		       const struct device *dev, const char *argument)
{
	const char *size = option_in(argument, "size");
	struct finding *finding;

	if (!size || size_value(size) == dev->size)
		return true;
	finding = wrong(r, "domain %s says that %s has a size of %s, but it has %s; the domain sees the change at its next start",
			domain->name, dev->name, size, mebibytes(dev->size));
	mend_domain(finding, domain, dev,
		    replace_option("size", size,
				   text("%" PRIu64, dev->size)));
	return false;
}

/* sed's command that puts an alignment behind the device's name. */
static const char *add_align(const struct device *dev, bool json,
			     uint64_t align)
{
	if (json)
		return text("s#(/dev/%s(\"|&quot;))#\\1,\\2align\\2:%" PRIu64 "#",
			    dev->name, align);
	return text("s#(/dev/%s)([^0-9]|$)#\\1,align=%s\\2#", dev->name,
		    qemu_size(align));
}

static bool check_align(struct report *r, const struct domain *domain,
			const struct device *dev, const char *argument)
{
	uint64_t want = device_align(dev), have;
	const char *align = option_in(argument, "align");
	bool json = is_json(argument);
	struct finding *finding;

	have = align ? size_value(align) : 0;
	if (!want || (have && !(have % want)))
		return true;
	finding = wrong(r, "domain %s maps %s with %s, so the guest gets no huge page and is slower; the domain sees the change at its next start",
			domain->name, dev->name,
			align ? text("align=%s", align) : "no 'align'");
	mend_domain(finding, domain, dev, !align ?
		    add_align(dev, json, want) :
		    replace_option("align", align, json ?
				   text("%" PRIu64, want) : qemu_size(want)));
	return false;
}

/* One argument of a domain's QEMU command line. */
static void check_argument(struct report *r, const struct domain *domain,
			   const char *argument)
{
	const char *node = strstr(argument, "/dev/kvmfr");
	struct device *dev = NULL;
	const char *name;

	if (!node)
		return;
	name = node + strlen("/dev/");
	name = strndup(name, strcspn(name, ",\"' "));
	for (int i = 0; i < n_devices; i++)
		if (!strcmp(devices[i].name, name))
			dev = &devices[i];
	if (!dev) {
		wrong(r, "domain %s uses /dev/%s, which is not there",
		      domain->name, name);
		return;
	}
	/* Both, whatever the first says. */
	if (check_size(r, domain, dev, argument) &
	    check_align(r, domain, dev, argument))
		right(r, "domain %s gives %s its size%s", domain->name,
		      dev->name, device_align(dev) ? " and its huge pages" : "");
}

/* The values of all <qemu:arg> of a domain. */
static void check_domain(struct report *r, const char *file, const char *uri)
{
	static const char key[] = "<qemu:arg value=";
	struct domain domain = { .file = file, .uri = uri };
	char *p = file_read(file, NULL), *argument;

	if (!p) {
		unseen(r, "%s is not readable", file);
		return;
	}
	file = strrchr(file, '/') + 1;
	domain.name = text("%.*s", (int)(strlen(file) - strlen(".xml")), file);

	while ((p = strstr(p, key))) {
		char quote;

		p += strlen(key);
		quote = *p;
		if (quote != '"' && quote != '\'')
			continue;
		p++;
		argument = strndup(p, strcspn(p, (char[]){ quote, 0 }));
		unescape(argument);
		check_argument(r, &domain, argument);
	}
}

static void check_domains_in(struct report *r, const char *dir,
			     const char *uri)
{
	glob_t found;

	if (access(dir, R_OK | X_OK) && errno == EACCES)
		unseen(r, "%s is not readable", dir);
	if (glob(text("%s/*.xml", dir), 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		check_domain(r, found.gl_pathv[i], uri);
}

/* The system's domains, and this user's own. */
void check_domains(struct report *r)
{
	const char *home = getenv("HOME");

	check_domains_in(r, path("/etc/libvirt/qemu"), "qemu:///system");
	if (!*root && geteuid() && home)
		check_domains_in(r, text("%s/.config/libvirt/qemu", home),
				 "qemu:///session");
	if (!r->n)
		elsewhere(r, "no domain of libvirt's uses a device");
}
