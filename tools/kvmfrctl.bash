# SPDX-License-Identifier: GPL-2.0
# bash completion for kvmfrctl

# Directories end in a slash, after which no blank comes.
_kvmfrctl_paths()
{
	local i

	mapfile -t COMPREPLY < <(compgen "$1" -- "$current")
	for i in "${!COMPREPLY[@]}"; do
		[[ -d ${COMPREPLY[i]} ]] && COMPREPLY[i]+=/
	done
	# for bash itself; the script below completes nothing
	compopt -o filenames 2> /dev/null
}

_kvmfrctl()
{
	local current=${COMP_WORDS[COMP_CWORD]} command='' words='' actions='' i word

	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--root) ((i++)) ;;
		-*) ;;
		*) command=${COMP_WORDS[i]}; break ;;
		esac
	done

	case $command in
	'') words='list doctor size qemu libvirt clear create remove hook memory channel --root --help --version' ;;
	list) words='--json --servers' ;;
	doctor) words='--fix --yes --user built signature node loaded devices
		huge mappings udev user qemu-user apparmor cgroup selinux domains servers' ;;
	size) words='--b7 --hdr 1920x1080 2560x1440 3440x1440 3840x2160' ;;
	qemu) words='--ram --doorbell --vectors' ;;
	libvirt) words='--ram --legacy --doorbell --vectors' ;;
	clear) words=--force ;;
	create) words='--node --name 32M 64M 128M 1G 2G 4G 8G' ;;
	memory)
		actions='map read write search core'
		words='--qmp --pid --name --machine --size --file --json --memmap' ;;
	channel)
		actions='list create remove connect leave attach'
		words='--vm --device --json' ;;
	esac
	for word in "${COMP_WORDS[@]:i + 1:COMP_CWORD - i - 1}"; do
		[[ " $actions " == *" $word "* ]] && actions=''
	done
	words+=" $actions"
	case $command in
	qemu | libvirt | clear | remove)
		for i in /sys/class/kvmfr/*; do
			[[ -e $i ]] && words+=" /dev/${i##*/}"
		done
		for i in /dev/ivshmem/by-name/*; do
			[[ -e $i ]] && words+=" $i"
		done ;;
	esac

	case ${COMP_WORDS[COMP_CWORD - 1]} in
	--user) mapfile -t COMPREPLY < <(compgen -u -- "$current") ;;
	--qmp | --file | core) _kvmfrctl_paths -f ;;
	--machine) mapfile -t COMPREPLY < <(compgen -W 'pc q35' -- "$current") ;;
	--doorbell | --vectors | --pid | --name | --size | --vm | --device)
		COMPREPLY=() ;;
	--node)
		words=$(cd /sys/devices/system/node && printf '%s ' node[0-9]*)
		mapfile -t COMPREPLY < <(compgen -W "${words//node/}" -- "$current") ;;
	--root) _kvmfrctl_paths -d ;;
	*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
	esac
}

# zsh and fish run this file with the words so far, to be told what may come.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
	_kvmfrctl
	printf '%s\n' "${COMPREPLY[@]}"
else
	complete -F _kvmfrctl kvmfrctl
fi
