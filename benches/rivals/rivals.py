"""Nanoseconds of cached calls by Python's persistent function caches, as one JSON object on standard output:
{name: [f(int) -> dict, f(str) -> list of floats, f(path) -> list of strings]}. Usage: rivals.py DIRECTORY"""

import json
import os
import statistics
import sys
import time

ROUNDS = 5
ARGUMENTS = 16


def small(number):
    return {"id": number, "score": number / 3, "is_good": number % 2 == 0}


def floats(text):
    return [len(text) * n / 7 for n in range(1000)]


def strings(path):
    return [f"{path}: line {n} of the file" for n in range(1000)]


FUNCTIONS = [
    (small, list(range(ARGUMENTS))),
    (floats, [f"{n:0200}" for n in range(ARGUMENTS)]),
    (strings, [f"/home/someone/documents/reports/report-{n:04}.txt" for n in range(ARGUMENTS)]),
]


def persist_cache(directory):
    from persist_cache import cache

    return lambda function: cache(dir=os.path.join(directory, function.__name__))(function)


def diskcache(directory):
    from diskcache import Cache

    cache = Cache(directory)
    return lambda function: cache.memoize()(function)


def joblib(directory):
    from joblib import Memory

    return Memory(directory, verbose=0).cache


def cachier(directory):
    from cachier import cachier

    return cachier(cache_dir=directory, separate_files=True)


def measure(cached, function, arguments):
    for argument in arguments:
        cached(argument)
        assert cached(argument) == function(argument)
    rounds = []
    for _ in range(ROUNDS):
        calls, start = 0, time.perf_counter_ns()
        while time.perf_counter_ns() - start < 100_000_000:
            for argument in arguments:
                cached(argument)
            calls += len(arguments)
        rounds.append((time.perf_counter_ns() - start) / calls)
    return statistics.median(rounds)


results = {}
for package in (persist_cache, diskcache, joblib, cachier):
    name = package.__name__.replace("_", "-")
    directory = os.path.join(sys.argv[1], name)
    os.makedirs(directory)
    try:
        decorate = package(directory)
        results[name] = [measure(decorate(function), function, arguments) for function, arguments in FUNCTIONS]
    except Exception as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
print(json.dumps(results))
