# SPDX-License-Identifier: GPL-2.0
"""Tests in Python: functions whose names are the claims, and KTAP of their results."""

import contextlib
import tempfile
import traceback

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def equal(got, expected, what=''):
    assert got == expected, f'{what} expected {expected!r}, got {got!r}'


def note(text):
    print(f'# {text}', flush=True)


def run_tests(words, tests=None, surround=contextlib.nullcontext):
    """Run the tests that have one of these words in their names, or all.

    Each gets a directory of its own, or what surround(directory) gives as a context.
    Returns the status to exit with.
    """
    chosen = [t for t in (TESTS if tests is None else tests)
              if not words or any(word in t.__name__ for word in words)]
    failed = 0
    print(f'KTAP version 1\n1..{len(chosen)}')
    for number, function in enumerate(chosen, 1):
        try:
            with tempfile.TemporaryDirectory(prefix='kvmfr-') as directory, \
                    surround(directory) as ground:
                function(ground)
            print(f'ok {number} {function.__name__}', flush=True)
        except Exception:       # pylint: disable=broad-except
            failed += 1
            print(f'not ok {number} {function.__name__}')
            print('#   ' + traceback.format_exc().replace('\n', '\n#   '), flush=True)
    print(f'{len(chosen) - failed} passed, {failed} failed')
    return failed != 0
