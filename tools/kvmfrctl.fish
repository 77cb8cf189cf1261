# SPDX-License-Identifier: GPL-2.0
# fish completion for kvmfrctl: bash's words

set -g __kvmfrctl_words (status dirname)/../../bash-completion/completions/kvmfrctl
complete -c kvmfrctl -f -a '(bash $__kvmfrctl_words (commandline -opc) (commandline -ct))'
