# SPDX-License-Identifier: GPL-2.0
# boot.kernelPackages.callPackage ./package.nix { }: the module, the tools and
# the library, the daemon, with the files that packaging/files lists.
{ lib, stdenv, kernel, kmod, json_c, systemd }:

stdenv.mkDerivation {
  pname = "kvmfr";
  version = "1.0.0";
  src = ../..;

  outputs = [ "out" "dev" ];
  hardeningDisable = [ "pic" "format" ];
  nativeBuildInputs = kernel.moduleBuildDependencies;
  buildInputs = [ kmod json_c systemd ];

  makeFlags = [ "KDIR=${kernel.dev}/lib/modules/${kernel.modDirVersion}/build" ];
  buildFlags = [ "module" "tools" "library" "daemon" ];

  installPhase = ''
    install -D kvmfr.ko $out/lib/modules/${kernel.modDirVersion}/updates/kvmfr.ko
    make -f packaging/install.mk install-config install-tools install-library install-dev \
      install-daemon DISTRO=nixos PREFIX=$out UDEVDIR=$out/lib/udev/rules.d INCLUDEDIR=$dev/include \
      MODULESLOADDIR=$out/lib/modules-load.d MODPROBEDIR=$out/share/doc/kvmfr \
      KVMFRDIR=$out/share/doc/kvmfr
  '';

  meta = {
    description = "Memory shared between a host and its virtual machines as a device";
    license = [ lib.licenses.gpl2Only lib.licenses.mit ];
    platforms = lib.platforms.linux;
  };
}
