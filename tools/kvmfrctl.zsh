#compdef kvmfrctl
# SPDX-License-Identifier: GPL-2.0
# zsh completion for kvmfrctl: bash's words

local file=${${(%):-%x}:A:h:h:h}/bash-completion/completions/kvmfrctl
local -a found=(${(f)"$(bash $file "${(@)words[1,CURRENT]}")"})
compadd -- ${found:#*/}
compadd -S '' -- ${(M)found:#*/}
