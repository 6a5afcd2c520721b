"""Runs `python -m benchmarks native`."""

import argparse
from functools import cache

import jaxseq
from benchmarks.cases import Case
from benchmarks.device import cores, find_device
from benchmarks.errors import UsageError
from benchmarks.loop import measure_all
from benchmarks.native.bounds import measured
from benchmarks.native.cases import MOST_ROUNDS, NATIVE, PRODUCTS, Asked, cases
from benchmarks.native.kinds import asked_of
from benchmarks.native.measure import gflop, measure
from benchmarks.native.peak import peaks
from benchmarks.progress import minutes
from benchmarks.rows import Row
from benchmarks.timing import rounds_s

# of each part how many contenders there are, the native one again among them
TURNS = {"layers": 6, "resets": 6}
TURNS |= {"step": 4, "cells": 4, "bodies": 4, "half": 5, "ensemble": 5, "products": 3}


def run(options: argparse.Namespace) -> int:
    """Returns in how many cases the engine was not right."""
    if not jaxseq.native_available():
        raise UsageError("no native engine: python -m jaxseq.native says why")
    device, rounds = find_device("cpu"), options.rounds

    @cache
    def best() -> dict[str, float]:
        found = peaks(sorted({1, cores()})) if rounds else {}
        for threads, rate in found.items():
            print(f"    peak of {threads} threads: {rate:.0f} GFLOP/s in float32")
        return found

    every = cases(options.parts, options.shapes, options.modes)

    @cache
    def rates() -> dict[Case, Row]:
        print("    how fast memory and caches are read", flush=True)
        own = [asked.case for asked in every if asked.part == PRODUCTS]
        return measured(own, cores())

    def rows(asked: Asked) -> list[Row]:
        found = measure(asked, device, rounds, best())
        if asked.part == PRODUCTS and rounds:
            found = [row | {"bandwidth": rates()[asked.case]} for row in found]
        return found

    guess = lambda asked: seconds(asked, rounds)
    for part in options.parts:
        own = [guess(asked) for asked in every if asked.part == part]
        print(f"{part}: {len(own)} cases, about {minutes(sum(own))}")
    how = {"base": NATIVE, "ours": NATIVE, "key": asked_of}
    return measure_all(options, device, every, rows, seconds=guess, **how)


def seconds(asked: Asked, rounds: int) -> float:
    """A rough guess: contenders compiled, checked, and timed in turns."""
    part, case = asked
    rounds = min(rounds, MOST_ROUNDS.get(part, rounds))
    work = gflop(asked) or 0.1
    ready = {"forward": 4, "gradient": 8, "step": 1}[case.mode]
    if part == "ensemble" and case.mode == "gradient":
        ready *= 2
    checked = 0.3 * work + 0.004 * case.T
    if part == PRODUCTS:  # compiled once, and beside nothing that is slow
        ready, checked = ready / 4, 0.1 * work
    return ready + checked + rounds_s(TURNS[part], work / 250, rounds)
