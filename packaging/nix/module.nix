# SPDX-License-Identifier: GPL-2.0
# imports = [ ./module.nix ]; hardware.kvmfr = { enable = true; sizes = [ 128 ]; };
{ config, lib, ... }:

let
  cfg = config.hardware.kvmfr;
  package = config.boot.kernelPackages.callPackage ./package.nix { };
  sizes = lib.concatMapStringsSep "," toString cfg.sizes;
  indices = lib.range 0 (builtins.length cfg.sizes - 1);
  nodes = map (n: "/dev/kvmfr${toString n}") indices;
  # libvirt has no way to add to its list: these are its defaults.
  acl = [
    "/dev/null" "/dev/full" "/dev/zero" "/dev/random" "/dev/urandom"
    "/dev/ptmx" "/dev/kvm" "/dev/userfaultfd"
  ] ++ nodes;
in
{
  options.hardware.kvmfr = {
    enable = lib.mkEnableOption "kvmfr, memory shared with virtual machines";
    sizes = lib.mkOption {
      type = lib.types.listOf lib.types.ints.positive;
      default = [ ];
      example = [ 128 ];
      description = "The size of /dev/kvmfr0, /dev/kvmfr1 and so on, in MiB.";
    };
    users = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Users who may open the devices without sitting at the machine.";
    };
    libvirt = lib.mkOption {
      type = lib.types.bool;
      default = config.virtualisation.libvirtd.enable;
      description = "Let libvirt's guests open the devices.";
    };
  };

  config = lib.mkIf cfg.enable {
    boot.extraModulePackages = [ package ];
    boot.kernelModules = [ "kvmfr" ];
    boot.extraModprobeConfig = lib.optionalString (cfg.sizes != [ ]) ''
      options kvmfr static_size_mb=${sizes}
    '';
    services.udev.packages = [ package ];
    systemd.packages = [ package ];
    environment.systemPackages = [ package ];
    users.users = lib.genAttrs cfg.users (_: { extraGroups = [ "kvm" ]; });
    virtualisation.libvirtd.qemu.verbatimConfig = lib.mkIf (cfg.libvirt && nodes != [ ]) ''
      cgroup_device_acl = [ ${lib.concatMapStringsSep ", " (node: ''"${node}"'') acl} ]
    '';
  };
}
