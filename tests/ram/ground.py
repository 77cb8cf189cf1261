# SPDX-License-Identifier: GPL-2.0
"""A guest that counts (counter.c) in memory that a test looks at from outside."""

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOOL = os.path.realpath(f'{HERE}/../../tools/kvmfr-replace-qemu')
MIB = 1 << 20
PATIENCE = 120      # seconds until something that has to come is given up
REPORT, MAX_CPUS = 0x6000, 8        # as in counter.c

loader = importlib.machinery.SourceFileLoader('replace_qemu', TOOL)
replace_qemu = importlib.util.module_from_spec(
    importlib.util.spec_from_loader('replace_qemu', loader))
loader.exec_module(replace_qemu)


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f'{what}: not in {PATIENCE} s'
        time.sleep(0.01)
    return result


def without_cpus(lines):
    """What QEMU said, but that the guest has more CPUs than the host."""
    return ''.join(line for line in lines
                   if 'exceeds the recommended cpus supported by KVM' not in line)


def children():
    with open(f'/proc/self/task/{os.getpid()}/children', encoding='ascii') as file:
        return [int(pid) for pid in file.read().split()]


class Ground:
    """The memory of one test, files or devices, and the processes that it has started."""

    accel = 'tcg'
    counter = f'{HERE}/../../build/tests/counter'
    # Devices, or None for files, and how large they are
    ram, ram_mb = None, 64
    shmem, shmem_mb = None, 1

    def __init__(self, directory):
        self.directory = directory
        self.files = []
        self.ram = self.ram or self.file(self.ram_mb)
        self.shmem = self.shmem or self.file(self.shmem_mb)
        self.disk = self.file(1)
        # What a process leaves behind becomes our child.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

    def file(self, size_mb):
        path = f'/dev/shm/kvmfr-test.{os.getpid()}.{len(self.files)}'
        with open(path, 'wb') as file:
            file.truncate(size_mb * MIB)
        self.files.append(path)
        return path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        self.reap()
        for path in self.files:
            os.unlink(path)

    @staticmethod
    def reap():
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    @staticmethod
    def processes():
        """The children; one that has ended is none any more."""
        return [pid for pid in children() if not os.waitpid(pid, os.WNOHANG)[0]]

    def memory(self, name='pc.ram', path=None, size_mb=None, options=''):
        return ['-object', f'memory-backend-file,id={name},share=on,align=2M,'
                f'mem-path={path or self.ram},size={size_mb or self.ram_mb}M{options}']

    def ivshmem(self, options=',master=on'):
        return [*self.memory('shmem', self.shmem, self.shmem_mb),
                '-device', f'ivshmem-plain,memdev=shmem{options}']

    def command(self, *devices, name='a', machine='pc', smp=2, memory=None, program=None):
        """QEMU with the guest, and two QMP sockets that begin with this name."""
        return [*(program or ['qemu-system-x86_64']), '-accel', self.accel, '-nodefaults', '-no-user-config',
                '-display', 'none', '-smp', str(smp), '-m', f'{self.ram_mb}M', '-kernel',
                self.counter, '-machine', f'{machine},memory-backend=pc.ram',
                *(self.memory() if memory is None else memory),
                # a disk, which only one of two may have at a time
                '-drive', f'file={self.disk},format=raw,file.locking=on,if=virtio',
                '-qmp', f'unix:{self.directory}/{name},server=on,wait=off',
                '-qmp', f'unix:{self.directory}/{name}.test,server=on,wait=off', *devices]

    def start(self, command, name='a'):
        """A QEMU as its user starts it; the connection is the tests' own."""
        if '-incoming' not in command:      # what the last guest has left in a device
            with open(self.ram, 'r+b') as file:
                file.seek(REPORT)
                file.write(bytes(4 * (4 + MAX_CPUS)))
        with open(f'{self.directory}/said', 'ab') as said:
            # pylint: disable-next=consider-using-with
            process = subprocess.Popen(command, stderr=said)
        return Qemu(self, name, process)

    def said(self):
        with open(f'{self.directory}/said', encoding='utf-8') as said:
            return without_cpus(said)

    def counts(self):
        """How far the CPUs of the guest are; it must not have found anything wrong."""
        with open(self.ram, 'rb') as file:
            file.seek(REPORT)
            cpus, _, _, wrong, *counts = struct.unpack(f'<{4 + MAX_CPUS}I',
                                                       file.read(4 * (4 + MAX_CPUS)))
        assert not wrong, f'the guest finds its memory changed at {wrong:#x}'
        return counts[:cpus]

    def counts_on(self, rounds=1):
        """Wait until each CPU has been in all of its pages again; returns their counts."""
        before = wait_for(self.counts, 'the guest starts')
        pages = rounds * self.ram_mb * 256 // len(before)
        wait_for(lambda: all(now > then + pages for now, then in zip(self.counts(), before)),
                 'the guest counts on')
        return self.counts()

    def replace(self, command, name='a', timeout=PATIENCE):
        """The tool, as its user starts it. Not with pipes: the new QEMU keeps what it writes to."""
        with tempfile.TemporaryFile('w+', encoding='utf-8') as out, \
                tempfile.TemporaryFile('w+', encoding='utf-8') as err:
            command = [TOOL, '--timeout', str(timeout), f'{self.directory}/{name}', *command]
            status = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=out,
                                    stderr=err).returncode
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, status, out.read(), without_cpus(err))


class Devices(Ground):
    """Two devices that are as large, for RAM; a third one for IVSHMEM."""

    accel = 'kvm'
    ram, ram2, shmem = '/dev/kvmfr0', '/dev/kvmfr1', '/dev/kvmfr2'

    def __enter__(self):
        subprocess.run(['insmod', os.environ['KVMFR_KO'],
                        f'static_size_mb={self.ram_mb},{self.ram_mb},{self.shmem_mb}'], check=True)
        subprocess.run(['dmesg', '--clear'], check=True)
        return super().__enter__()

    def __exit__(self, *failed):
        """Whatever the test did: all memory is free, and the kernel has nothing to warn of."""
        super().__exit__()
        subprocess.run(['rmmod', 'kvmfr'], check=True)
        if not any(failed):
            said = subprocess.check_output(['dmesg', '--level=emerg,alert,crit,err,warn'], text=True)
            assert 'kvmfr' not in said, said


class Qemu:
    """One that runs, as a second client of its QMP sees it."""

    def __init__(self, ground, name, process=None):
        self.process = process
        sock = socket.socket(socket.AF_UNIX)
        wait_for(lambda: sock.connect_ex(f'{ground.directory}/{name}.test') == 0 or
                 self.ended(ground), f'QEMU "{name}" listens')
        self.qmp = replace_qemu.Qmp(f'QEMU "{name}"', sock, PATIENCE)

    def ended(self, ground):
        if self.process and self.process.poll() is not None:
            raise AssertionError(f'QEMU has ended: {ground.said()}')

    def command(self, name, **arguments):
        return self.qmp.command(name, **arguments)

    def monitor(self, line):
        return self.command('human-monitor-command', **{'command-line': line})

    def version(self):
        version = self.command('query-version')['qemu']
        return version['major'], version['minor'], version['micro']

    def status(self):
        return self.command('query-status')['status']

    def quit(self):
        self.command('quit')
        assert self.qmp.wait_for_end()
        if self.process:
            assert self.process.wait() == 0, self.process.returncode
