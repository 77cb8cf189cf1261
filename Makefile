# SPDX-License-Identifier: GPL-2.0
# kbuild reads Kbuild, people read this. "make help" says what there is.

KDIR ?= /lib/modules/$(shell uname -r)/build
KVMFR_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kvmfr

.DEFAULT_GOAL := module
.PHONY: help module demo check check-ram check-kernels check-debug check-install bench \
	docs release clean clean-kernels

help:
	@sed -n 's/^# make \([a-z-]*\): *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# make module: build kvmfr.ko for the kernel in KDIR (default: the running one)
module:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# make demo: a guest draws, the host watches, in throw-away virtual machines
demo:
	tests/vm/demo

# make check: the tests that take minutes, in throw-away virtual machines
check:
	tests/check $(PARTS)

# make check-ram: guests whose RAM is a device, under KVM; QEMU replaced under them
check-ram:
	tests/check ram versions guests

# make check-kernels: every kernel of Debian's suites, amd64 and arm64
check-kernels:
	tests/check kernels backport shims

# make check-debug: kernels that look for mistakes, fault injection, fuzzing, crash and gdb
check-debug:
	tests/check debug mistakes debuggers thorough

# make check-install: packages, DKMS, udev, libvirt, kvmfrctl, channels in clean systems
check-install:
	tests/check install agent system

# make bench: how fast it is, against hugetlbfs and others; draws build/bench/bench.svg
bench:
	tests/bench/run

# make docs: the documentation as a site, build/docs/index.html (wants Sphinx)
docs:
	sphinx-build -q -W --keep-going -b html docs build/docs

# make release: build/release, if all places say VERSION; twice, to compare
release:
	packaging/release $(VERSION)

include packaging/install.mk

# make clean: remove what was built here
clean:
	rm -rf build
	find . -path ./.git -prune -o \( -name '*.o' -o -name '*.ko' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name Module.symvers \
		-o -name modules.order \) -exec rm {} +

# make clean-kernels: remove what was downloaded: kernels, chroots, debug kernels
clean-kernels:
	rm -rf --one-file-system $(KVMFR_CACHE)
