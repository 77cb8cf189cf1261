# SPDX-License-Identifier: GPL-2.0
"""What "check" and "mistakes" have in common: debug kernels, modules for them, VMs, splats."""

import collections
import contextlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.realpath(f'{HERE}/../..')
BUILD = f'{TOP}/build/debug'
PROGRAMS = f'{BUILD}/tests'
SOURCES = ('kvmfr.c', 'kvmfr.h', 'kvmfr_compat.h', 'Kbuild')
# Emulated, and every access checked: how much slower than elsewhere
SCALE = 10


def say(text):
    print(text, flush=True)


def run(*command, **options):
    """Run a command; its output is shown when it fails, else returned."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors='replace', **options)
    if done.returncode:
        raise SystemExit(f'{done.stdout}\n{" ".join(command)}: ended with status {done.returncode}')
    return done.stdout


def packages(*names):
    subprocess.run([f'{TOP}/tests/vm/packages', *names], check=True)


def kernel(version, kind='kasan'):
    """The directory of a debug kernel, which is built if need be."""
    done = subprocess.run([f'{HERE}/kernel', version, kind], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.strip()


def programs():
    os.makedirs(PROGRAMS, exist_ok=True)
    run('make', '-s', '-C', f'{TOP}/tests', 'all', 'abi32', 'guest', f'OUT={PROGRAMS}')
    run('make', '-s', '-C', f'{TOP}/kvmfrd', f'OUT={BUILD}/kvmfrd')


def modules(kernel_dir, name, patch=None, coverage=True):
    """Build kvmfr.ko, with a patch if one is given, and the importer; the two files."""
    with open(f'{kernel_dir}/release', encoding='utf-8') as file:
        kdir = f'{kernel_dir}/lib/modules/{file.read().strip()}/build'
    shutil.rmtree(f'{BUILD}/{name}', ignore_errors=True)
    for part in ('module', 'importer'):
        os.makedirs(f'{BUILD}/{name}/{part}')
    for source in SOURCES:
        shutil.copy(f'{TOP}/{source}', f'{BUILD}/{name}/module')
    for source in os.listdir(f'{TOP}/tests/importer'):
        if source == 'Kbuild' or source.endswith(('.h', 'importer.c')):
            shutil.copy(f'{TOP}/tests/importer/{source}', f'{BUILD}/{name}/importer')
    if patch:
        run('patch', '-p1', '-d', f'{BUILD}/{name}/module', '-i', patch)
    make = ['make', '-s', '-C', kdir, 'modules']
    run(*make, f'M={BUILD}/{name}/module', *(['GCOV_PROFILE=y'] if coverage else []))
    run(*make, f'M={BUILD}/{name}/importer')
    return f'{BUILD}/{name}/module/kvmfr.ko', f'{BUILD}/{name}/importer/kvmfr_importer.ko'


Splat = collections.namedtuple('Splat', 'headline lines')


class Result:
    """What a run of VMs said: counts, what failed, and every line of the verdict channels."""

    def __init__(self, name, logs):
        self.name = name
        self.logs = logs
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.splats = []
        self.seconds = 0

    def files(self, name):
        for directory, _, files in sorted(os.walk(self.logs)):
            if name in files:
                yield f'{directory}/{name}'

    def lines(self):
        for path in self.files('verdict.log'):
            with open(path, encoding='utf-8', errors='replace') as file:
                yield from file.read().splitlines()

    def let_pass(self, reason):
        """Splats that reason(splat) has a reason for are no failures, if there are no others."""
        reasons = collections.Counter(filter(None, map(reason, self.splats)))
        self.splats = [splat for splat in self.splats if not reason(splat)]
        for why, times in reasons.most_common():
            say(f'{self.name}: not ours, {times} times: {why}')
        for splat in self.splats:
            say('\n'.join([f'{self.name}: ours:'] + [f'#   {line}' for line in splat.lines]))

        general = [what for what in self.failures if what.startswith(
            ('splat in the kernel log', 'the kernel is tainted: warning'))]
        ours = [f'splat: {splat.headline}' for splat in self.splats]
        self.failures = [what for what in self.failures if what not in general] + ours
        self.failed += len(ours) - len(general)
        say(f'{self.name}: what counts: {self.passed} passed, {self.failed} failed')

    def sum_of(self, pattern):
        return sum(int(match[1]) for line in self.lines() if (match := re.search(pattern, line)))


def run_vms(name, command):
    """Run a program that boots VMs and ends with "N passed, N failed"; a Result."""
    logs = f'{BUILD}/logs/{name}'
    shutil.rmtree(logs, ignore_errors=True)
    os.makedirs(logs)
    result = Result(name, logs)
    began = time.monotonic()
    process = subprocess.Popen(['nice', *command, '--log', logs], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors='replace')
    last = ''
    with open(f'{logs}/output.log', 'w', encoding='utf-8') as output:
        for line in process.stdout:
            last = line.rstrip('\n')
            output.write(line)
            output.flush()
            if match := re.match(r'# FAILED: (.*)', last):
                result.failures.append(match[1])
            say(f'{name}: {last}')
    status = process.wait()
    result.seconds = time.monotonic() - began
    if match := re.match(r'(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$', last):
        result.passed, result.failed, result.skipped = (int(n or 0) for n in match.groups())
    elif not result.failures:
        result.failures.append(f'{command[0]} ended with status {status} and without a verdict')
    result.failed = max(result.failed, len(result.failures), 1 if status else 0)
    result.splats = [splat for path in result.files('kernel.log') for splat in splats(path)]
    return result


def boot(name, kernel_dir, kos, *arguments):
    command = [f'{TOP}/tests/vm/boot', '--quiet', '--kernel', kernel_dir]
    for ko in kos:
        command += ['--ko', ko]
    return run_vms(name, command + list(arguments))


def two_devices(mb):
    """The arguments of boot for an IVSHMEM device with struct pages, and one without."""
    return ['--ivshmem', f'shm0:{mb}', '--ivshmem', 'small:1']


@contextlib.contextmanager
def doorbell():
    """
    The arguments of boot for an ivshmem-doorbell of 4 vectors, while its server runs. It is the
    largest device: tests that look for any IVSHMEM device take the smallest.
    """
    with tempfile.TemporaryDirectory(prefix='kvmfr-bell.') as directory:
        path = f'{directory}/socket'
        with subprocess.Popen([f'{BUILD}/kvmfrd/kvmfrd', '--size', '16', '--vectors', '4',
                               '--socket', path]) as server:
            while not os.path.exists(path) and server.poll() is None:
                time.sleep(0.05)
            yield ['--doorbell', f'bell:{path}:4']
            server.terminate()


def program(name, *arguments):
    """The arguments of boot for a test program."""
    return ['--file', f'{PROGRAMS}/{name}',
            '--run', ' '.join([name, *arguments, f'KTAP_TIMEOUT_SCALE={SCALE}'])]


def race_elsewhere(splat):
    """
    What KCSAN reports, if kvmfr.c neither does one of the accesses nor calls what does it: the
    rest of the kernel has races that are known, or not ours to know.
    """
    accesses = [n for n, line in enumerate(splat.lines)
                if re.search(r' bytes by (task|interrupt) ', line)]
    ours = any('[kvmfr]' in frame for n in accesses for frame in splat.lines[n + 1:n + 3])
    title = splat.headline.removeprefix('BUG: KCSAN: ')
    return title if title != splat.headline and not ours else None


def _runner():
    sys.path.insert(0, f'{TOP}/tests/vm')       # for what it imports
    loader = importlib.machinery.SourceFileLoader('boot', f'{TOP}/tests/vm/boot')
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('boot', loader))
    loader.exec_module(module)
    return module


def splats(path):
    """Every splat in a kernel log: its headline, and the lines that belong to it, some before.

    A report of KCSAN stands between two lines of "=" and is one splat; others go on to the end of
    their call trace.
    """
    runner = _runner()
    found = []
    with open(path, encoding='utf-8', errors='replace') as file:
        lines = file.read().splitlines()
    messages = [line[match.end():] if (match := runner.STAMP.search(line)) else ''
                for line in lines] + ['']
    number = 0
    while number < len(lines):
        if not runner.SPLAT.match(messages[number]):
            number += 1
            continue
        first, head = max(0, number - 6), number + bool(runner.RULER.match(messages[number]))
        if messages[head].startswith('BUG: KCSAN'):
            first = head
            end = next((n for n in range(head, len(lines))
                        if re.match('={20,}$', messages[n])), len(lines) - 1)
        else:
            end = next((n for n in range(number, min(number + 80, len(lines)))
                        if messages[n].strip() == '</TASK>'), min(number + 40, len(lines)) - 1)
        found.append(Splat(messages[head], messages[first:end + 1]))
        number = end + 1
    return found
