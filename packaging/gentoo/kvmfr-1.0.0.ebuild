# SPDX-License-Identifier: GPL-2.0
# app-emulation/kvmfr, for an overlay of one's own

EAPI=8

inherit linux-mod-r1 systemd udev

DESCRIPTION="Memory shared between a host and its virtual machines as a device"
HOMEPAGE="https://looking-glass.io/"
SRC_URI="${P}.tar.gz"
RESTRICT="fetch"

LICENSE="GPL-2 MIT"
SLOT="0"
KEYWORDS="~amd64 ~arm64"
IUSE="systemd"

RDEPEND="dev-libs/json-c:=
	sys-apps/kmod:=
	systemd? ( sys-apps/systemd:= )"
DEPEND="${RDEPEND}"

CONFIG_CHECK="PCI DMA_SHARED_BUFFER ZONE_DEVICE"
MODULES_KERNEL_MIN=5.10

# kvmfr TARGET...: of packaging/install.mk, with Gentoo's directories
kvmfr() {
	emake -f packaging/install.mk DISTRO=gentoo DESTDIR="${D}" PREFIX="${EPREFIX}/usr" \
		LIBDIR="${EPREFIX}/usr/$(get_libdir)" UDEVDIR="$(get_udevdir)/rules.d" \
		MODULESLOADDIR="${EPREFIX}/usr/lib/modules-load.d" \
		SYSTEMDDIR="$(systemd_get_systemunitdir)" "$@"
}

src_compile() {
	local modlist=( kvmfr=updates )
	local modargs=( KDIR="${KV_OUT_DIR}" )
	linux-mod-r1_src_compile
	kvmfr tools library $(usev systemd daemon)
}

src_install() {
	linux-mod-r1_src_install
	kvmfr install-config install-tools install-library install-dev \
		$(usev systemd install-daemon)
}

pkg_postinst() {
	linux-mod-r1_pkg_postinst
	udev_reload
	elog "Say how much memory to share in /etc/modprobe.d/kvmfr.conf, then: modprobe kvmfr"
}

pkg_postrm() {
	udev_reload
}
