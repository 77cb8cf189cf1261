# SPDX-License-Identifier: GPL-2.0
# Installing and packaging, included by the Makefile.

PREFIX		?= /usr/local
# Where an administrator's own files are; packages have theirs in /usr/lib.
UDEVDIR		?= /etc/udev/rules.d
MODULESLOADDIR	?= /etc/modules-load.d
MODPROBEDIR	= /etc/modprobe.d

VERSION		:= $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
SRCDIR		= /usr/src/kvmfr-$(VERSION)

# What DKMS needs of the tree, and what the packages are built from.
DKMS_FILES	= dkms.conf Kbuild kvmfr.c kvmfr.h kvmfr_compat.h
SOURCE_FILES	= $(DKMS_FILES) LICENSE Makefile 99-kvmfr.rules modprobe.d modules-load.d \
		  tools debian packaging README.rst CHANGELOG.rst

.PHONY: tools install install-source install-config install-tools uninstall \
	dist source deb rpm

# make tools: build kvmfrctl
tools:
	$(MAKE) -C tools OUT=$(CURDIR)/build/tools

# make install: the module by DKMS, udev rules, kvmfrctl (DESTDIR, PREFIX)
install: install-source install-config install-tools
ifeq ($(DESTDIR),)
	packaging/dkms install $(VERSION)
	[ ! -S /run/udev/control ] || udevadm control --reload
endif

install-source:
	install -d $(DESTDIR)$(SRCDIR)
	install -m 644 $(DKMS_FILES) $(DESTDIR)$(SRCDIR)

# A size that was set here is kept.
install-config:
	install -D -m 644 99-kvmfr.rules $(DESTDIR)$(UDEVDIR)/99-kvmfr.rules
	install -D -m 644 modules-load.d/kvmfr.conf $(DESTDIR)$(MODULESLOADDIR)/kvmfr.conf
	[ -e $(DESTDIR)$(MODPROBEDIR)/kvmfr.conf ] || \
	install -D -m 644 modprobe.d/kvmfr.conf $(DESTDIR)$(MODPROBEDIR)/kvmfr.conf

COMPLETIONS	= $(PREFIX)/share/bash-completion/completions
MANDIR		= $(PREFIX)/share/man/man8

install-tools: tools
	install -D build/tools/kvmfrctl $(DESTDIR)$(PREFIX)/bin/kvmfrctl
	install -D -m 644 tools/kvmfrctl.8 $(DESTDIR)$(MANDIR)/kvmfrctl.8
	install -D -m 644 tools/kvmfrctl.bash $(DESTDIR)$(COMPLETIONS)/kvmfrctl

# make uninstall: take all of that away again
uninstall:
ifeq ($(DESTDIR),)
	packaging/dkms remove $(VERSION)
endif
	rm -rf $(DESTDIR)$(SRCDIR)
	rm -f $(DESTDIR)$(UDEVDIR)/99-kvmfr.rules \
		$(DESTDIR)$(MODULESLOADDIR)/kvmfr.conf \
		$(DESTDIR)$(MODPROBEDIR)/kvmfr.conf \
		$(DESTDIR)$(PREFIX)/bin/kvmfrctl \
		$(DESTDIR)$(MANDIR)/kvmfrctl.8 $(DESTDIR)$(COMPLETIONS)/kvmfrctl
	rmdir $(DESTDIR)$(MANDIR) $(DESTDIR)$(COMPLETIONS) \
		$(DESTDIR)$(PREFIX)/share/bash-completion 2>/dev/null || true
ifeq ($(DESTDIR),)
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

# make deb: Debian packages, in build/ (wants debhelper, dh-dkms, libkmod-dev)
deb: source
	rm -rf build/deb
	mkdir -p build/deb
	tar -C build/deb -xzf build/kvmfr-$(VERSION).tar.gz
	cd build/deb/kvmfr-$(VERSION) && dpkg-buildpackage -us -uc -b
	mv build/deb/*.deb build/
	rm -rf build/deb
	@ls build/*.deb

# make rpm: RPM packages, in build/ (wants rpm-build, gcc, kmod-devel)
rpm: source
	rm -rf build/rpm
	mkdir -p build/rpm/SOURCES
	cp build/kvmfr-$(VERSION).tar.gz build/rpm/SOURCES
	rpmbuild -bb $(RPMFLAGS) --define '_topdir $(CURDIR)/build/rpm' packaging/kvmfr.spec
	mv build/rpm/RPMS/*/*.rpm build/
	rm -rf build/rpm
	@ls build/*.rpm
