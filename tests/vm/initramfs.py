# SPDX-License-Identifier: GPL-2.0
"""What goes into a VM: its PID 1, busybox, modules, files and the plan."""

import os
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
BUILD = os.path.join(HERE, '../../build/vm')
os.environ['PATH'] += ':/usr/sbin:/sbin'


def fail(message):
    sys.exit(f'boot: {message}')


def output(*command):
    try:
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    except subprocess.CalledProcessError:
        fail(f'"{" ".join(command)}" failed')


class Initramfs:
    """A newc cpio archive, parent directories made as they are needed."""

    def __init__(self):
        self.names = set()
        self.data = bytearray()

    def add(self, path, mode, data=b''):
        path = path.strip('/')
        parent = os.path.dirname(path)
        if parent and parent not in self.names:
            self.add(parent, stat.S_IFDIR | 0o755)
        if path in self.names and stat.S_ISDIR(mode):
            return
        self.names.add(path)
        name = path.encode() + b'\0'
        fields = (len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        self.data += b'070701' + b''.join(b'%08X' % f for f in fields) + name
        self.data += bytes(-len(self.data) % 4) + data
        self.data += bytes(-len(data) % 4)

    def add_file(self, path, source):
        try:
            with open(source, 'rb') as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                self.add(path, stat.S_IFREG | mode, file.read())
        except OSError as error:
            fail(f'cannot put {source} into the VM: {error.strerror}')

    def write(self, path):
        self.add('TRAILER!!!', 0)
        with open(path, 'wb') as file:
            file.write(self.data)


def build_init(arch, compiler):
    """PID 1, compiled when its source is newer."""
    source, program = f'{HERE}/init.c', f'{BUILD}/init-{arch}'
    if not os.path.exists(program) or os.stat(program).st_mtime < os.stat(source).st_mtime:
        os.makedirs(BUILD, exist_ok=True)
        new = f'{program}.{os.getpid()}'    # others may be at it too
        output(compiler, '-static', '-O2', '-Wall', '-Wextra', '-o', new, source)
        os.replace(new, program)
    return program


def insmod_lines(args, release, names, archive):
    """Plan lines that load these modules and what they depend on, in order."""
    if not names:
        return []
    shown = output('modprobe', '-C', '/dev/null', '-d', args.kernel, '-S', release,
                   '--show-depends', '-a', *names)
    lines = []
    for verb, path, *options in map(str.split, shown.splitlines()):
        place = f'/ko/{os.path.basename(path)}'
        line = ' '.join(['insmod', place, *options])
        if verb == 'insmod' and line not in lines:
            archive.add_file(place, path)
            lines.append(line)
    return lines


def in_share(share, path):
    """PATH with links among its directories followed, as in /lib -> usr/lib."""
    resolved = ''
    for part in os.path.dirname(path).strip('/').split('/'):
        link = f'{share}{resolved}/{part}'
        target = os.readlink(link) if os.path.islink(link) else part
        resolved = os.path.normpath(os.path.join('/', '' if target[0] == '/' else resolved, target))
    return os.path.join('/', resolved, os.path.basename(path))


def build_initramfs(args, machine, release, share, path):
    archive = Initramfs()
    archive.add_file('init', build_init(args.arch, machine['cc']))
    archive.add('root', stat.S_IFDIR | 0o755)
    archive.add_file('bin/busybox', output(f'{HERE}/busybox', args.arch).strip())

    files = [(ko, f'/lib/kvmfr/{os.path.basename(ko)}') for ko in args.ko]
    for file in args.file:
        source, _, place = file.partition(':')
        files.append((source, place or f'/tests/{os.path.basename(source)}'))
    for source, place in files:
        archive.add_file('/overlay' + in_share(share, place) if share else place, source)

    plan = [f'channel {machine["channel"]}']
    if share or args.out:
        plan += insmod_lines(args, release, ['9p', '9pnet_virtio', 'virtio_pci', 'overlay'],
                             archive)
    plan += insmod_lines(args, release, [n for n in args.load.split(',') if n], archive)
    plan += ['root'] if share else []
    plan += ['out'] if args.out else []
    plan += [f'run {command}' for command in args.run]
    plan += ['shell'] if args.shell else []
    archive.add('plan', stat.S_IFREG | 0o644, '\n'.join(plan + ['']).encode())
    archive.write(path)
