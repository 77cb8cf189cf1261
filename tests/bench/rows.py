# SPDX-License-Identifier: GPL-2.0
"""Rows of the benchmark that a Python program prints, as bench.c does, and what processes
execute: nanoseconds of a clock that counts instructions."""

import json
import math
import os
import resource
import subprocess

ANY = (-math.inf, math.inf)     # a bound, as (least, most)
KEPT = []       # of each result so far: whether its rows keep their bounds


def row(name, group, what, unit, value, bound=ANY, excuse=None):
    """Print a row.  Answers whether it is kept, or excused: known to be missed, and why."""
    data = {'name': name, 'group': group, 'what': what, 'unit': unit, 'value': value}
    data |= {key: limit for key, limit in zip(('min', 'max'), bound) if math.isfinite(limit)}
    kept = bound[0] <= value <= bound[1]
    if not kept and excuse:
        data['excused'] = excuse
    print('# row', json.dumps(data), flush=True)
    return kept or bool(excuse)


def plan(count):
    print(f'KTAP version 1\n1..{count}', flush=True)


def result(name, kept, skipped=None):
    """The KTAP line of one or more rows; skipped: why there are none."""
    KEPT.append(kept)
    print(f'{"" if kept else "not "}ok {len(KEPT)} {name}' +
          (f' # SKIP {skipped}' if skipped else ''), flush=True)


def status():
    """What the program ends with."""
    return int(not all(KEPT))


def executed(pid):
    """What the threads of a process have executed so far."""
    total = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/schedstat', encoding='ascii') as file:
            total += int(file.read().split()[0])
    return total


def executed_by(*command):
    """What a program executes, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(getattr(after, key) - getattr(before, key)
               for key in ('ru_utime', 'ru_stime')) * 1e9, said
