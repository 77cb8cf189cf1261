// SPDX-License-Identifier: GPL-2.0
/* doctor: is the module there, is it loaded, does it have devices? */
#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <libkmod.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The running kernel's release. */
static const char *kernel_release(void)
{
	static struct utsname uts;
	char *release = file_line(path("/proc/sys/kernel/osrelease"));

	if (release)
		return release;
	uname(&uts);
	return uts.release;
}

static struct kmod_ctx *kmod_open(void)
{
	const char *config[] = {
		path("/run/modprobe.d"), path("/etc/modprobe.d"),
		path("/usr/local/lib/modprobe.d"), path("/usr/lib/modprobe.d"),
		path("/lib/modprobe.d"), NULL
	};
	struct kmod_ctx *ctx;

	ctx = kmod_new(path("/lib/modules/%s", kernel_release()), config);
	if (!ctx)
		fail("libkmod: out of memory");
	/* The checks report what libkmod cannot find. */
	kmod_set_log_priority(ctx, -1);
	return ctx;
}

/* What modprobe would load for this kernel, or NULL. */
static struct kmod_module *module_installed(struct kmod_ctx *ctx)
{
	struct kmod_list *list = NULL;
	struct kmod_module *mod;

	if (kmod_module_new_from_lookup(ctx, "kvmfr", &list) < 0 || !list)
		return NULL;
	mod = kmod_module_get_module(list);
	return kmod_module_get_path(mod) ? mod : NULL;
}

/* A field of what modinfo prints: version, sig_id, signer, ... */
static const char *module_info(struct kmod_module *mod, const char *key)
{
	struct kmod_list *list = NULL, *l;

	if (kmod_module_get_info(mod, &list) < 0)
		return NULL;
	kmod_list_foreach(l, list)
		if (!strcmp(kmod_module_info_get_key(l), key))
			return kmod_module_info_get_value(l);
	return NULL;
}

/* The word behind a key in a line, or NULL. */
static const char *word_behind(const char *line, const char *key)
{
	const char *found = line ? strstr(line, key) : NULL;

	if (!found)
		return NULL;
	found += strlen(key);
	return strndup(found, strcspn(found, " \t"));
}

const char *size_configured(const char **source)
{
	struct kmod_config_iter *iter = kmod_config_get_options(kmod_open());
	const char *size;

	/* modprobe appends it to what modprobe.d says, and the last value counts. */
	size = word_behind(file_line(path("/proc/cmdline")),
			   "kvmfr.static_size_mb=");
	*source = "the kernel's command line";
	if (size)
		return size;

	*source = "modprobe.d";
	while (iter && kmod_config_iter_next(iter)) {
		const char *found;

		if (strcmp(kmod_config_iter_get_key(iter), "kvmfr"))
			continue;
		found = word_behind(kmod_config_iter_get_value(iter),
				    "static_size_mb=");
		if (found)
			size = found;
	}
	return size;
}

/* The newest source that dkms knows, "kvmfr/1.0.0", or NULL. */
static const char *dkms_source(void)
{
	const char *newest = NULL;
	glob_t found;

	if (!glob(path("/var/lib/dkms/kvmfr/*/source"), 0, NULL, &found))
		for (size_t i = 0; i < found.gl_pathc; i++) {
			char *version = found.gl_pathv[i];

			version[strlen(version) - strlen("/source")] = 0;
			version = strrchr(version, '/') + 1;
			if (!newest || strverscmp(version, newest) > 0)
				newest = version;
		}
	return newest ? text("kvmfr/%s", newest) : NULL;
}

/* The command that installs the running kernel's headers, or NULL. */
static const char *headers_command(const char *release)
{
	char *os = file_read(path("/etc/os-release"), NULL);

	if (os && strstr(os, "debian"))
		return text("apt-get install -y linux-headers-%s", release);
	if (os && (strstr(os, "fedora") || strstr(os, "rhel")))
		return text("dnf install -y kernel-devel-%s", release);
	if (os && strstr(os, "suse"))
		return "zypper --non-interactive install kernel-default-devel";
	return NULL;
}

void check_built(struct report *r)
{
	const char *release = kernel_release(), *source = dkms_source();
	struct kmod_module *mod = module_installed(kmod_open());
	const char *version, *headers;
	struct finding *finding;

	if (mod) {
		version = module_info(mod, "version");
		right(r, "kvmfr %s is installed for kernel %s",
		      version ? version : "of unknown version", release);
		return;
	}

	if (!source && system_is_image()) {
		wrong(r, "the module is not installed for kernel %s; this system is an image, where DKMS builds nothing: layer the package akmod-kvmfr by 'rpm-ostree install', or take an image that has the module",
		      release);
		return;
	}
	if (!source) {
		wrong(r, "the module is not installed for kernel %s, and dkms does not know it: install the package kvmfr-dkms, or run 'make install' in the source",
		      release);
		return;
	}
	if (access(path("/lib/modules/%s/build/Makefile", release), F_OK)) {
		finding = wrong(r, "the module is not built for kernel %s: the kernel's headers are not installed",
				release);
		headers = headers_command(release);
		if (headers)
			/* Installing them makes dkms build the module. */
			mend(finding, "%s", headers);
		return;
	}
	finding = wrong(r, "the module is not built for kernel %s", release);
	mend(finding, "dkms install %s -k %s", source, release);
}

/* True if the kernel loads only modules whose signature it knows. */
static bool signature_wanted(void)
{
	char *enforce = file_line(path("/sys/module/module/parameters/sig_enforce"));
	char *lockdown = file_line(path("/sys/kernel/security/lockdown"));

	return (enforce && *enforce == 'Y') ||
	       (lockdown && !strstr(lockdown, "[none]"));
}

static bool secure_boot(void)
{
	size_t len;
	char *data = file_read(path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"),
			       &len);

	/* Four bytes of attributes, then the value. */
	return data && len == 5 && data[4] == 1;
}

/* Is the certificate in the list of the machine owner's keys? */
static bool key_enrolled(const char *certificate)
{
	size_t cert_len, len;
	char *cert = file_read(certificate, &cert_len), *keys;
	bool enrolled = false;
	glob_t found;

	if (!cert || !cert_len ||
	    glob(path("/sys/firmware/efi/efivars/MokListRT*-605dab50-e046-4300-abb6-3dd810dd8b23"),
		 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc && !enrolled; i++) {
		keys = file_read(found.gl_pathv[i], &len);
		enrolled = keys && memmem(keys, len, cert, cert_len);
	}
	return enrolled;
}

/*
 * The key that dkms signs with: on Ubuntu one that shim-signed makes and enrols,
 * elsewhere dkms's own.
 */
static const struct signing_key {
	const char *certificate, *make, *enrol;
} signing_keys[] = {
	{ "/var/lib/shim-signed/mok/MOK.der", "update-secureboot-policy --new-key",
	  "update-secureboot-policy --enroll-key" },
	{ "/var/lib/dkms/mok.pub", "dkms generate_mok", NULL },
};

static const struct signing_key *signing_key(void)
{
	return &signing_keys[!!access(path("/var/lib/shim-signed"), F_OK)];
}

void check_signature(struct report *r)
{
	const struct signing_key *key = signing_key();
	const char *certificate = path("%s", key->certificate);
	const char *why = secure_boot() ? "Secure Boot is on" :
					  "this kernel wants signed modules";
	const char *signer, *source = dkms_source();
	struct kmod_module *mod;
	struct finding *finding;

	if (!signature_wanted()) {
		right(r, "this kernel loads modules without a signature");
		return;
	}
	if (module_loaded()) {
		right(r, "%s, and this kernel has taken the module", why);
		return;
	}
	mod = module_installed(kmod_open());
	if (!mod) {
		elsewhere(r, "%s; there is no module to look at yet", why);
		return;
	}

	signer = module_info(mod, "signer");
	if (!signer) {
		finding = wrong(r, "%s, but the module is not signed", why);
		if (source)
			mend(finding, "%s && dkms unbuild %s -k %s && dkms install %s -k %s",
			     key->make, source, kernel_release(), source,
			     kernel_release());
	} else if (access(certificate, R_OK)) {
		elsewhere(r, "%s; the module is signed by '%s', not with dkms's key, so whether that key is enrolled is not checked",
			  why, signer);
	} else if (key_enrolled(certificate)) {
		right(r, "%s, and dkms's key is enrolled", why);
	} else {
		finding = wrong(r, "%s, but the key that signed the module ('%s') is not enrolled; after the command reboot and confirm it at the blue screen",
				why, signer);
		mend(finding, "%s", key->enrol ?: text("mokutil --import %s", quoted(certificate)));
	}
}

/* A regular file in the node's place keeps the kernel from making the node. */
void check_node(struct report *r)
{
	const char *reload = module_loaded() ? here(" && " RELOAD) : "";
	struct finding *finding;
	struct stat st;

	for (int i = 0; i < MAX_DEVICES; i++) {
		const char *file = path("/dev/kvmfr%d", i);

		if (stat(file, &st) || !S_ISREG(st.st_mode))
			continue;
		finding = wrong(r, "%s is a regular file: QEMU was started before the module was loaded and made it; shut that QEMU down",
				file);
		/* What the guest wrote there need not be kept. */
		mend(finding, "rm %s%s", quoted(file), reload);
		finding->anywhere = true;
	}

	for (int i = 0; i < n_devices; i++) {
		if (devices[i].state == NODE_OK)
			right(r, "%s is the device's node", devices[i].node);
		if (devices[i].state != NODE_MISSING &&
		    devices[i].state != NODE_FOREIGN)
			continue;
		finding = wrong(r, "%s is %s", devices[i].node,
				devices[i].state == NODE_MISSING ?
				"missing" : "not the device's node");
		mend(finding, "rm -f %s && " RELOAD, quoted(devices[i].node));
	}
	if (!r->n)
		right(r, "no regular file is in the place of a node");
}

void check_loaded(struct report *r)
{
	char *version = file_line(path("/sys/module/kvmfr/version"));
	struct finding *finding;

	if (!module_loaded()) {
		finding = wrong(r, "the module is not loaded");
		mend(finding, "modprobe kvmfr");
	} else if (!version || strcmp(version, VERSION)) {
		finding = wrong(r, "kvmfr %s is loaded, but this is kvmfrctl " VERSION,
				version ? version : "without a version");
		mend(finding, RELOAD);
	} else {
		right(r, "kvmfr " VERSION " is loaded");
	}
}

/* IVSHMEM devices with another driver, or with none. */
static void check_ivshmem(struct report *r)
{
	glob_t found;

	if (glob(path("/sys/bus/pci/devices/*"), 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *dir = found.gl_pathv[i];
		const char *address = strrchr(dir, '/') + 1;
		char *vendor = file_line(text("%s/vendor", dir));
		char *device = file_line(text("%s/device", dir));
		struct finding *finding;
		char driver[4096] = "";
		const char *name;

		if (!vendor || strcmp(vendor, "0x1af4") ||
		    !device || strcmp(device, "0x1110"))
			continue;
		if (readlink(text("%s/driver", dir), driver,
			     sizeof(driver) - 1) < 0) {
			finding = wrong(r, "IVSHMEM device %s has no driver; if the command does not help, the kernel's log says why",
					address);
			mend(finding, "echo %s > %s", address,
			     path("/sys/bus/pci/drivers/kvmfr/bind"));
			continue;
		}
		name = strrchr(driver, '/') ? strrchr(driver, '/') + 1 : driver;
		if (!strcmp(name, "kvmfr"))
			continue;
		finding = wrong(r, "IVSHMEM device %s belongs to the driver %s",
				address, name);
		mend(finding, "echo %s > %s/driver/unbind && echo %s > %s",
		     address, dir, address,
		     path("/sys/bus/pci/drivers/kvmfr/bind"));
	}
}

/* The command that gives these sizes to the loaded module. */
static const char *set_sizes(const char *sizes)
{
	const char *parameter = path("/sys/module/kvmfr/parameters/static_size_mb");
	struct stat st;

	/* Before 1.0.0 the parameter was read-only. */
	if (stat(parameter, &st) || !(st.st_mode & S_IWUSR))
		return RELOAD;
	return text("echo %s > %s", quoted(sizes), parameter);
}

/* There is no device: is a size configured? */
static void check_size_configured(struct report *r)
{
	const char *conf = path("/etc/modprobe.d/kvmfr.conf");
	const char *source, *size = size_configured(&source);
	struct finding *finding;

	if (size) {
		finding = wrong(r, "there is no device: the module was loaded before %s said static_size_mb=%s",
				source, size);
		mend(finding, "%s", set_sizes(size));
		return;
	}
	finding = wrong(r, "there is no device: the module was loaded without a size; 128 is for 3840x2160, 'kvmfrctl size' tells others%s",
			system_is_image() ? "; it counts from the next boot on" : "");
	/* Images have their settings there, and load modules before /etc. */
	if (system_is_image())
		mend(finding, "rpm-ostree kargs --append-if-missing=kvmfr.static_size_mb=128");
	else
		mend_file(finding, conf, "echo 'options kvmfr static_size_mb=128' >> %s%s",
			  quoted(conf), here(text(" && %s", set_sizes("128"))));
}

void check_devices(struct report *r)
{
	if (!module_loaded()) {
		elsewhere(r, "the module is not loaded");
		return;
	}
	check_ivshmem(r);
	for (int i = 0; i < n_devices; i++)
		right(r, "%s has %s%s%s", devices[i].node,
		      mebibytes(devices[i].size),
		      *devices[i].pci ? " of IVSHMEM device " :
					" of this machine's memory",
		      devices[i].pci);
	if (!r->n)
		check_size_configured(r);
}
