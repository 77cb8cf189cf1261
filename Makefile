# SPDX-License-Identifier: GPL-2.0
# kbuild reads Kbuild, people read this. "make help" says what there is.

KDIR ?= /lib/modules/$(shell uname -r)/build

.DEFAULT_GOAL := module
.PHONY: help module demo check clean

help:
	@sed -n 's/^# make \([a-z-]*\): *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# make module: build kvmfr.ko for the kernel in KDIR (default: the running one)
module:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# make demo: show it: a guest draws, the host watches, in throw-away VMs
demo:
	tests/vm/demo

# make check: run the tests in throw-away VMs
check:
	tests/check

# make clean: remove what was built here (not the downloads: make clean-kernels)
clean:
	rm -rf build
	find . -not -path './.git/*' \( -name '*.o' -o -name '*.ko' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name Module.symvers \
		-o -name modules.order \) -delete
