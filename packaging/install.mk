# SPDX-License-Identifier: GPL-2.0
# Installing and packaging, included by the Makefile.

PREFIX		?= /usr/local
DISTRO		?= $(shell . /etc/os-release 2>/dev/null && echo $$ID $$ID_LIKE)

# Packages have these in /usr/lib, an administrator's own files are in /etc.
CONFDIR		= $(if $(filter /usr,$(PREFIX)),/usr/lib,/etc)
UDEVDIR		?= $(CONFDIR)/udev/rules.d
MODULESLOADDIR	?= $(CONFDIR)/modules-load.d
MODPROBEDIR	?= /etc/modprobe.d
BINDIR		?= $(PREFIX)/bin
LIBDIR		?= $(PREFIX)/lib
INCLUDEDIR	?= $(PREFIX)/include
MANDIR		?= $(PREFIX)/share/man
BASHDIR		?= $(PREFIX)/share/bash-completion/completions
# Debian's zsh looks into site-functions in /usr/local only.
ZSHDIR		?= $(PREFIX)/share/zsh/$(if $(and $(filter debian,$(DISTRO)),$(filter /usr,$(PREFIX))),vendor-completions,site-functions)
FISHDIR		?= $(PREFIX)/share/fish/vendor_completions.d
SELINUXDIR	?= $(PREFIX)/share/selinux/packages
SYSTEMDDIR	?= $(PREFIX)/lib/systemd/system
# where kvmfrd and its units look for what an administrator says
KVMFRDIR	?= /etc/kvmfr

VERSION		:= $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
SRCDIR		= /usr/src/kvmfr-$(VERSION)

# The group that the udev rule lets in: that of the distribution's QEMU.
NODE_GROUP	?= $(if $(filter fedora rhel,$(DISTRO)),qemu,kvm)

# Not exported: "make deb" and its like choose directories of their own.
DIRECTORIES	= DESTDIR PREFIX UDEVDIR MODULESLOADDIR MODPROBEDIR BINDIR LIBDIR INCLUDEDIR \
		  MANDIR BASHDIR ZSHDIR FISHDIR SELINUXDIR SYSTEMDDIR KVMFRDIR SRCDIR NODE_GROUP
INSTALL_FILES	= $(foreach name,$(DIRECTORIES),$(name)='$($(name))') packaging/install

# What packages are built from, and what DKMS needs of it.
DKMS_FILES	= $(shell sed -n 's/^source.*$$SRCDIR[^ \t]*[ \t]*//p' packaging/files)
SOURCE_FILES	= $(DKMS_FILES) LICENSE Makefile 99-kvmfr.rules modprobe.d modules-load.d \
		  lib kvmfrd tools debian packaging docs README.rst CHANGELOG.rst
GROUPS		= source config tools library dev

.PHONY: tools library daemon install uninstall dist source deb rpm arch

# make tools: build kvmfrctl
tools:
	$(MAKE) -C tools OUT=$(CURDIR)/build/tools

# make library: build libkvmfr, shared and static
library:
	$(MAKE) -C lib OUT=$(CURDIR)/build/lib
	sed 's,@PREFIX@,$(PREFIX),; s,@LIBDIR@,$(LIBDIR),; s,@VERSION@,$(VERSION),' \
		lib/libkvmfr.pc.in > build/lib/libkvmfr.pc

# make daemon: build kvmfrd (wants libsystemd-dev)
daemon:
	$(MAKE) -C kvmfrd OUT=$(CURDIR)/build/kvmfrd

# make install-daemon: kvmfrd and its systemd units, which make install leaves out
install-daemon: daemon

# make install: module by DKMS, udev rule, kvmfrctl, libkvmfr (DESTDIR, PREFIX)
install: $(GROUPS:%=install-%)
ifeq ($(DESTDIR),)
	packaging/dkms install $(VERSION)
	ldconfig
	[ ! -S /run/udev/control ] || udevadm control --reload
endif

# install-GROUP: the files of that group of packaging/files
install-tools: tools
install-library install-dev: library
install-%:
	$(INSTALL_FILES) $*

# list-GROUP: where they go
list-%:
	@$(INSTALL_FILES) --list $*

# make uninstall: take all of that away again
uninstall:
ifeq ($(DESTDIR),)
	packaging/dkms remove $(VERSION)
endif
	$(INSTALL_FILES) --remove $(GROUPS) daemon
	rm -f $(DESTDIR)$(MODPROBEDIR)/kvmfr.conf
ifeq ($(DESTDIR),)
	ldconfig
	[ ! -S /run/udev/control ] || udevadm control --reload
endif

# make dist: build/kvmfr-VERSION-source-only.dkms.tar.gz, for dkms install --archive=
DIST		= build/kvmfr-$(VERSION)-source-only.dkms.tar.gz
# The same files give the same archive, dated as the version is.
DATE		:= $(shell sed -n '/^ -- /{s/.*>  //p;q}' debian/changelog)
TAR		= tar --sort=name --owner=0 --group=0 --numeric-owner \
		  --mode=u=rwX,go=rX --mtime='$(DATE)'

dist:
	rm -rf build/dist
	mkdir -p build/dist/dkms_main_tree build/dist/dkms_source_tree
	cp -p $(DKMS_FILES) LICENSE build/dist/dkms_source_tree
	$(TAR) -C build/dist -czf $(DIST) .
	rm -rf build/dist
	@echo $(DIST)

# make source: build/kvmfr-VERSION.tar.gz, which the packages are built from
source:
	mkdir -p build
	$(TAR) --transform='s,^,kvmfr-$(VERSION)/,' \
		-czf build/kvmfr-$(VERSION).tar.gz $(SOURCE_FILES)

# make deb: Debian packages, in build/ (after "apt-get build-dep .")
deb: source
	rm -rf build/deb
	mkdir -p build/deb
	tar -C build/deb -xzf build/kvmfr-$(VERSION).tar.gz
	cd build/deb/kvmfr-$(VERSION) && dpkg-buildpackage -us -uc -b
	mv build/deb/*.deb build/
	rm -rf build/deb
	@ls build/*.deb

# make rpm: RPM packages, in build/, of packaging/SPEC.spec (default: kvmfr)
SPEC		?= kvmfr

rpm: source
	rm -rf build/rpm
	mkdir -p build/rpm/SOURCES
	cp build/kvmfr-$(VERSION).tar.gz build/rpm/SOURCES
	rpmbuild -bb $(RPMFLAGS) --define '_topdir $(CURDIR)/build/rpm' packaging/$(SPEC).spec
	mv build/rpm/RPMS/*/*.rpm build/
	rm -rf build/rpm
	@ls build/*.rpm

# make arch: Arch Linux packages, in build/ (with MAKEPKGFLAGS=-s; not as root)
arch: source
	rm -rf build/arch
	mkdir -p build/arch
	cp packaging/arch/* build/kvmfr-$(VERSION).tar.gz build/arch
	cd build/arch && makepkg -f $(MAKEPKGFLAGS)
	mv build/arch/*.pkg.tar* build/
	rm -rf build/arch
	@ls build/*.pkg.tar*
