// SPDX-License-Identifier: GPL-2.0
/* doctor: do libvirt's domains give a device its size and its huge pages? */
#include "doctor.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Replaces XML entities by their characters, in place. */
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

static bool is_json(const char *argument)
{
	return *argument == '{';
}

char *option_in(const char *argument, const char *option)
{
	const char *key = is_json(argument) ? text("\"%s\"", option) :
					      text(",%s=", option);
	const char *p = strstr(argument, key);

	if (!p)
		return NULL;
	p += strlen(key);
	if (is_json(argument))
		p += strspn(p, " :");
	if (*p == '"')
		return strndup(p + 1, strcspn(p + 1, "\""));
	return strndup(p, strcspn(p, is_json(argument) ? ",} " : ","));
}

/* The same for a size; only the part that is one. */
static char *size_in(const char *argument, const char *option)
{
	const char *value = option_in(argument, option);

	return value ? strndup(value, strspn(value, "0123456789bBkKmMgGtT")) : NULL;
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

const char *domain_memory(const char *argument)
{
	const char *node = option_in(argument, "mem-path");

	if (node && (!strncmp(node, "/dev/kvmfr", 10) ||
		     !strncmp(node, BY_NAME, strlen(BY_NAME))))
		return node;
	return NULL;
}

uint64_t domain_size(const char *argument)
{
	const char *size = size_in(argument, "size");

	return size ? size_value(size) : 0;
}

/*
 * Adds the command that repairs a finding: sed edits the lines of the domain that
 * name the device, which are those of its memory backend.
 */
static void mend_domain(struct finding *finding, const struct domain *domain,
			const char *node, const char *substitute)
{
	const char *edit = text("'\\#%s([^0-9A-Za-z_.-]|$)#%s'", node, substitute);

	if (*root)
		mend_file(finding, domain->file, "sed -i -E %s %s", edit,
			  quoted(domain->file));
	else
		mend_file(finding, domain->file, "virsh -c %s dumpxml --inactive --security-info %s | sed -E %s | virsh -c %s define /dev/stdin",
			  domain->uri, quoted(domain->name), edit, domain->uri);
}

/* A command of sed that changes the value of an option, in either syntax. */
static const char *replace_option(const char *option, const char *old,
				  const char *new)
{
	return text("s#(%s(=|(\"|&quot;): *(\"|&quot;)?))%s#\\1%s#", option,
		    old, new);
}

/* Each of these returns false if it has reported something wrong. */
static bool check_size(struct report *r, const struct domain *domain,
		       const struct device *dev, const char *node,
		       const char *argument)
{
	const char *size = size_in(argument, "size");
	struct finding *finding;

	if (!size || size_value(size) == dev->size)
		return true;
	finding = wrong(r, "domain %s says that %s has a size of %s, but it has %s; the domain sees the change at its next start",
			domain->name, dev->name, size, mebibytes(dev->size));
	mend_domain(finding, domain, node,
		    replace_option("size", size,
				   text("%" PRIu64, dev->size)));
	return false;
}

/* A command of sed that adds "align" after the device's path. */
static const char *add_align(const char *node, bool json, uint64_t align)
{
	if (json)
		return text("s#(%s(\"|&quot;))#\\1,\\2align\\2:%" PRIu64 "#",
			    node, align);
	return text("s#(%s)([^0-9A-Za-z_.-]|$)#\\1,align=%s\\2#", node,
		    qemu_size(align));
}

static bool check_align(struct report *r, const struct domain *domain,
			const struct device *dev, const char *node,
			const char *argument)
{
	uint64_t want = device_align(dev), have;
	const char *align = size_in(argument, "align");
	bool json = is_json(argument);
	struct finding *finding;

	have = align ? size_value(align) : 0;
	if (!want || (have && !(have % want)))
		return true;
	finding = wrong(r, "domain %s maps %s with %s, so the guest gets no huge page and is slower; the domain sees the change at its next start",
			domain->name, dev->name,
			align ? text("align=%s", align) : "no 'align'");
	mend_domain(finding, domain, node, !align ?
		    add_align(node, json, want) :
		    replace_option("align", align, json ?
				   text("%" PRIu64, want) : qemu_size(want)));
	return false;
}

#define HOOKS	"/etc/libvirt/hooks/"

/* Does any of libvirt's hook scripts run "kvmfrctl hook"? */
static bool hook_enabled(void)
{
	static const char * const hooks[] = { HOOKS "qemu", HOOKS "qemu.d/*" };
	glob_t found;

	for (int i = 0; i < 2; i++) {
		if (glob(path("%s", hooks[i]), 0, NULL, &found))
			continue;
		for (size_t j = 0; j < found.gl_pathc; j++) {
			const char *script = file_read(found.gl_pathv[j], NULL);

			if (script && strstr(script, "kvmfrctl hook") &&
			    !access(found.gl_pathv[j], X_OK))
				return true;
		}
	}
	return false;
}

/* The hook script below the prefix that this kvmfrctl was installed to. */
static const char *hook_script(void)
{
	static const char bin[] = "/bin/kvmfrctl";
	char exe[4096] = "";
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	ssize_t prefix = n - (ssize_t)strlen(bin);

	if (prefix <= 0 || strcmp(exe + prefix, bin))
		return "/usr/share/kvmfr/libvirt-hook";
	return text("%.*s/share/kvmfr/libvirt-hook", (int)prefix, exe);
}

static void check_missing(struct report *r, const struct domain *domain,
			  const char *node, const char *argument)
{
	uint64_t size = domain_size(argument);
	struct finding *finding;

	if (strncmp(node, BY_NAME, strlen(BY_NAME))) {
		wrong(r, "domain %s uses %s, which is not there", domain->name, node);
	} else if (hook_enabled() && size && !(size % MIB)) {
		right(r, "domain %s uses %s, which libvirt's hook makes when it starts",
		      domain->name, node);
	} else if (hook_enabled()) {
		wrong(r, "domain %s uses %s, which libvirt's hook can't make: its size must be given in whole MiB",
		      domain->name, node);
	} else {
		finding = wrong(r, "domain %s uses %s, which is not there; libvirt's hook would make it when the domain starts, but the hook is not installed",
				domain->name, node);
		mend(finding, "install -D -m 755 %s " HOOKS "qemu.d/kvmfr%s",
		     hook_script(), restart_libvirt());
	}
}

/* One argument of a domain's QEMU command line. */
static void check_argument(struct report *r, const struct domain *domain,
			   const char *argument)
{
	const char *node = domain_memory(argument);
	struct device dev;

	if (!node)
		return;
	if (!device_find(node, &dev)) {
		check_missing(r, domain, node, argument);
		return;
	}
	/* "&": both are checked, whatever the first returns. */
	if (check_size(r, domain, &dev, node, argument) &
	    check_align(r, domain, &dev, node, argument))
		right(r, "domain %s gives %s its size%s", domain->name,
		      dev.name, device_align(&dev) ? " and its huge pages" : "");
}

/* The values of all <qemu:arg> of a domain. */
void domain_parse(struct domain *domain)
{
	static const char key[] = "<qemu:arg value=";
	const char *p = domain->xml;

	while ((p = strstr(p, key))) {
		char quote, *argument;

		p += strlen(key);
		quote = *p;
		if (quote != '"' && quote != '\'')
			continue;
		p++;
		argument = strndup(p, strcspn(p, (char[]){ quote, 0 }));
		unescape(argument);
		domain->args = reallocarray(domain->args, domain->n_args + 1,
					    sizeof(*domain->args));
		if (!domain->args)
			fail("out of memory");
		domain->args[domain->n_args++] = argument;
	}
}

static void visit_domains_in(struct report *r, const char *dir, const char *uri,
			     void (*visit)(struct report *r,
					   const struct domain *domain))
{
	glob_t found;

	if (access(dir, R_OK | X_OK) && errno == EACCES)
		unseen(r, "%s is not readable", dir);
	if (glob(text("%s/*.xml", dir), 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *file = found.gl_pathv[i];
		const char *base = strrchr(file, '/') + 1;
		struct domain domain = {
			.file = file,
			.name = text("%.*s", (int)(strlen(base) - strlen(".xml")), base),
			.uri = uri,
			.xml = file_read(file, NULL),
		};

		if (!domain.xml) {
			unseen(r, "%s is not readable", file);
			continue;
		}
		domain_parse(&domain);
		visit(r, &domain);
	}
}

void domains_each(struct report *r,
		  void (*visit)(struct report *r, const struct domain *domain))
{
	const char *home = getenv("HOME");

	visit_domains_in(r, path("/etc/libvirt/qemu"), "qemu:///system", visit);
	if (!*root && geteuid() && home)
		visit_domains_in(r, text("%s/.config/libvirt/qemu", home),
				 "qemu:///session", visit);
}

static void check_domain(struct report *r, const struct domain *domain)
{
	for (int i = 0; i < domain->n_args; i++)
		check_argument(r, domain, domain->args[i]);
}

void check_domains(struct report *r)
{
	domains_each(r, check_domain);
	if (!r->n)
		elsewhere(r, "no domain of libvirt's uses a device");
}
