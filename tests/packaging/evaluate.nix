# SPDX-License-Identifier: GPL-2.0
# NixOS's module and package for kvmfr, evaluated without nixpkgs: lib, stdenv and
# the rest of the configuration are stand-ins with as much as they use.
{ module ? null, sizes ? [ ], package ? null }:

let
  lib = {
    inherit (builtins) concatMap;
    concatMapStringsSep = between: f: list: builtins.concatStringsSep between (map f list);
    range = from: to: if from > to then [ ] else builtins.genList (n: from + n) (to - from + 1);
    mkEnableOption = text: { inherit text; };
    mkOption = option: option;
    mkIf = condition: value: if condition then value else { };
    optionalString = condition: text: if condition then text else "";
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    licenses = { gpl2Only = "GPL-2.0-only"; mit = "MIT"; };
    platforms.linux = [ ];
    types = { listOf = type: type; ints.positive = null; str = null; bool = null; };
  };
  evaluated = import module {
    inherit lib;
    config = {
      boot.kernelPackages.callPackage = file: arguments: "kvmfr";
      virtualisation.libvirtd.enable = true;
      hardware.kvmfr = { enable = true; inherit sizes; users = [ "alice" ]; libvirt = true; };
    };
  };
in
{
  config =
    assert builtins.attrNames evaluated.options.hardware.kvmfr == [ "enable" "libvirt" "sizes" "users" ];
    evaluated.config;

  # What the package gives to stdenv, which builds it of that.
  packages_arguments = removeAttrs (import package {
    inherit lib;
    stdenv.mkDerivation = arguments: arguments;
    kernel = { dev = "/kernel"; modDirVersion = "0"; moduleBuildDependencies = [ ]; };
    kmod = "kmod"; json_c = "json_c"; systemd = "systemd";
  }) [ "src" ];
}
