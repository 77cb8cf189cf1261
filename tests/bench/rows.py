# SPDX-License-Identifier: GPL-2.0
"""Rows of the benchmark that a Python program prints, as bench.c does."""

import json
import math

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
