// SPDX-License-Identifier: GPL-2.0
/* doctor: do libvirt, AppArmor and SELinux let guests use the devices? */
#include "doctor.h"
#include "rule.h"

#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
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

/* The start of a setting's value, or NULL. The last line that sets it counts. */
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
	char *lines = file_read(file, NULL), *line;
	char rule[256], perms[32];

	while ((line = strsep(&lines, "\n")))
		if (sscanf(line, " %255[^# \t] %31[a-zA-Z]", rule, perms) == 2 &&
		    strchr(perms, 'r') && strchr(perms, 'w') &&
		    !fnmatch(rule, node, FNM_PATHNAME))
			return true;
	return false;
}

#define APPARMOR	"/etc/apparmor.d/%sabstractions/libvirt-qemu%s"

/* The files that libvirt's guests get their rules from, an administrator's own last. */
static bool apparmor_grants_anywhere(const char *what)
{
	glob_t more = { 0 };
	bool granted = apparmor_grants(path(APPARMOR, "", ""), what) ||
		       apparmor_grants(path(APPARMOR, "local/", ""), what);

	if (!glob(path(APPARMOR, "", ".d/*"), 0, NULL, &more))
		for (size_t i = 0; i < more.gl_pathc && !granted; i++)
			granted = apparmor_grants(more.gl_pathv[i], what);
	return granted;
}

/*
 * Where a rule is to be added: in the directory that newer libvirts include,
 * or else in the file that Debian has always included, and is to give up.
 */
static const char *apparmor_own_file(void)
{
	char *rules = file_read(path(APPARMOR, "", ""), NULL);

	return rules && strstr(rules, "<abstractions/libvirt-qemu.d>") ?
	       path(APPARMOR, "", ".d/kvmfr") : path(APPARMOR, "local/", "");
}

/* Reports the path as kept from the guests, unless a rule grants it. */
static bool apparmor_check(struct report *r, const char *what, const char *rule)
{
	const char *own = apparmor_own_file();
	struct finding *finding;

	if (apparmor_grants_anywhere(what))
		return true;
	finding = wrong(r, "AppArmor keeps libvirt's guests from %s; a guest sees the change at its next start",
			what);
	mend_file(finding, own, "mkdir -p %.*s && echo '%s rw,' >> %s",
		  (int)(strrchr(own, '/') - own), own, rule, own);
	return false;
}

/* Kernels before 6.17 let everybody connect, but for those that Ubuntu has changed. */
static bool apparmor_knows_sockets(void)
{
	glob_t found = { 0 };
	bool knows = !glob(path("/sys/kernel/security/apparmor/features/network*/af_unix"), 0,
			   NULL, &found);

	globfree(&found);
	return knows;
}

/* libvirt gives its guests rules for what it knows of, which <qemu:arg> is not. */
static void apparmor_check_domain(struct report *r, const struct domain *domain)
{
	const char *sockets[16];
	int n = apparmor_knows_sockets() ? domain_sockets(domain, sockets, 16) : 0;

	for (int i = 0; i < n && !strcmp(domain->uri, "qemu:///system"); i++)
		if (!strpbrk(sockets[i], "'\"\n"))
			apparmor_check(r, sockets[i], server_instance(sockets[i]) ?
				       "/run/kvmfr/*.sock" : sockets[i]);
}

void check_apparmor(struct report *r)
{
	char *enabled = file_line(path("/sys/module/apparmor/parameters/enabled"));
	const char *names[MAX_DEVICES];
	char *conf, *driver;
	int n = nodes(names);

	if (!enabled || *enabled != 'Y') {
		elsewhere(r, "AppArmor is off");
		return;
	}
	conf = file_read(libvirt_conf_path(), NULL);
	driver = conf ? qemu_conf_setting(conf, "security_driver") : NULL;
	if (access(path(APPARMOR, "", ""), F_OK) || (driver && strstr(driver, "none"))) {
		elsewhere(r, "libvirt's guests are not confined by AppArmor");
		return;
	}
	for (int i = 0; i < n; i++)
		if (!apparmor_check(r, names[i], "/dev/kvmfr[0-9]*"))
			break;
	domains_each(r, apparmor_check_domain);
	if (!r->n)
		right(r, "AppArmor lets libvirt's guests use the devices and doorbells");
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

const char *restart_libvirt(void)
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

/* The nodes that cgroup_device_acl has to have. */
static const char *acl_nodes[2 * MAX_DEVICES];
static int n_acl_nodes;

static void acl_wants(const char *node)
{
	for (int i = 0; i < n_acl_nodes; i++)
		if (!strcmp(acl_nodes[i], node))
			return;
	if (n_acl_nodes < 2 * MAX_DEVICES && !strpbrk(node, "\"'|\n"))
		acl_nodes[n_acl_nodes++] = node;
}

static void acl_wants_domain(struct report *r, const struct domain *domain)
{
	const char *node;

	(void)r;
	for (int i = 0; i < domain->n_args; i++) {
		node = domain_memory(domain->args[i]);
		if (node && !strcmp(domain->uri, "qemu:///system"))
			acl_wants(node);
	}
}

/* libvirt looks for the path as it is in its list, so a name is one of its own. */
static void acl_nodes_find(struct report *r)
{
	const char *names[MAX_DEVICES];
	int n = nodes(names);

	n_acl_nodes = 0;
	domains_each(r, acl_wants_domain);
	for (int i = 0; i < n; i++)
		if (n_devices ? !devices[i].link : !n_acl_nodes)
			acl_wants(names[i]);
}

void check_cgroup(struct report *r)
{
	char *conf = qemu_conf(r), *controllers, *acl;
	const char *missing = "", *conf_file = libvirt_conf_path();
	struct finding *finding;

	if (!conf)
		return;
	controllers = qemu_conf_setting(conf, "cgroup_controllers");
	if (controllers && !strstr(controllers, "\"devices\"")) {
		right(r, "libvirt does not limit its guests' devices");
		return;
	}
	acl = qemu_conf_setting(conf, "cgroup_device_acl");
	acl_nodes_find(r);
	for (int i = 0; i < n_acl_nodes; i++)
		if (!acl || !strstr(acl, text("\"%s\"", acl_nodes[i])))
			missing = text("%s%s\"%s\"", missing,
				       *missing ? ", " : "", acl_nodes[i]);
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

/* What the policy has a label for, whether it exists or not. */
#define LABELLED	"/dev/kvmfr* /run/kvmfr /usr/bin/kvmfrd /usr/local/bin/kvmfrd"

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
		if (*label) {
			finding = wrong(r, "SELinux is enforcing and has the policy module kvmfr, but %s is older and has no label of its own yet",
					devices[0].node);
			mend(finding, "restorecon -iRF " LABELLED);
			return;
		}
		right(r, "SELinux is enforcing, and has the policy module kvmfr");
		return;
	}
	if (geteuid()) {
		unseen(r, "SELinux is enforcing; its policy modules are not readable");
		return;
	}
	finding = wrong(r, "SELinux is enforcing, and its policy keeps libvirt's guests from the devices");
	mend(finding, "d=$(mktemp -d) && echo %s > $d/kvmfr.cil && semodule -i $d/kvmfr.cil && { restorecon -iRF " LABELLED " || :; }; rm -r $d",
	     quoted(POLICY));
}
