"""Runs a reader on damaged inputs and collects faults, each once by its place in the code."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
import resource
import sys
import time
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlbits.envs.core.errors import MlbitsError
from tests.fuzz.damage import damaged
from tests.fuzz.readers import READERS, Reader

CORPUS = Path(__file__).with_name("corpus")
MOST_SECONDS, MOST_MEGABYTES = 5.0, 1000


@dataclass
class Report:
    """What came of a reader's inputs.

    Attributes:
        reader: its name.
        inputs: inputs read.
        accepted: how many it accepted.
        faults: what went wrong, each place once.
        seconds: CPU time.
        longest: of one input, in seconds.
        megabytes: growth of the process's largest size.
    """

    reader: str
    inputs: int = 0
    accepted: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    longest: float = 0.0
    megabytes: float = 0.0

    def line(self) -> str:
        """The report in a line."""
        return (
            f"{self.reader:20} {self.inputs:>9,} inputs, {self.accepted:>8,} accepted, {len(self.faults)} faults; "
            f"{self.seconds:.0f} CPU-s, longest {self.longest:.2f} s, {self.megabytes:.0f} MB"
        )


def kept(name: str) -> list[bytes]:
    """The kept inputs of a reader."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def _size() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(name: str, inputs: int, seed: int = 0, seconds: float = 0.0) -> Report:
    """Read the kept inputs, and then damaged ones.

    Args:
        name: the reader.
        inputs: how many damaged ones.
        seed: of the damage.
        seconds: CPU time after which to end; 0 for no limit.
    """
    report, places = Report(name), set[str]()
    with READERS[name]() as reader:
        seeds = reader.seeds
        for data in seeds:
            assert _read(reader, data, report, places), f"{name}: refuses its own {data[:80]!r}"
        report.longest, report.faults = 0.0, []  # the first inputs compile rules
        places.clear()
        size, began = _size(), time.process_time()
        for data in _inputs(name, seeds, inputs, seed):
            _read(reader, data, report, places)
            if seconds and time.process_time() - began > seconds:
                break
        report.seconds, report.megabytes = time.process_time() - began, _size() - size
        if report.megabytes > MOST_MEGABYTES:
            report.faults.append(f"{report.megabytes:.0f} MB")
    return report


def _inputs(name: str, seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    corpus = kept(name)
    yield from corpus
    draw = random.Random(f"{name} {seed}")
    for _ in range(count):
        yield damaged([*seeds, *corpus], draw)


def _read(reader: Reader, data: bytes, report: Report, places: set[str]) -> bool:
    """Read one input; notes a fault. Returns whether it was accepted."""
    report.inputs += 1
    began = time.process_time()
    said = ""
    try:
        reader.read(data)
        report.accepted += 1
    except MlbitsError as error:
        said = str(error)
    except (Exception, RecursionError) as error:
        _note(report, places, data, _place(error), f"{type(error).__name__}: {str(error)[:120]}")
    took = time.process_time() - began
    report.longest = max(report.longest, took)
    if took > MOST_SECONDS:
        _note(report, places, data, "slow", f"{took:.1f} s")
    if len(said) > 100_000:
        _note(report, places, data, "long", f"an error of {len(said)} characters: {said[:120]!r}")
    return not said


def _place(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/fuzz/run" not in f.filename]
    own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "site-packages" not in frame.filename]
    return " < ".join(reversed(own[-3:])) or "?"


def _note(report: Report, places: set[str], data: bytes, place: str, what: str) -> None:
    if place in places:
        return
    places.add(place)
    name = hashlib.sha256(data).hexdigest()[:16]
    folder = Path("fuzz-faults") / report.reader
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    report.faults.append(f"{what} at {place} ({folder / name})")


def _is_ours(thing: object) -> bool:
    """Whether it is a function of ours, or of the reader of JSON: those whose branches inputs are chosen by."""
    return type(thing) is types.FunctionType and (thing.__module__ or "").partition(".")[0] in ("mlbits", "json")


def fuzz_by_coverage(name: str, inputs: int, seed: int, seconds: float = 0.0) -> None:
    """Let atheris choose inputs by the coverage of our readers; a fault ends the process with a traceback.

    Args:
        name: the reader.
        inputs: how many.
        seed: of atheris's choices.
        seconds: wall time after which to end; 0 for no limit.
    """
    import atheris

    with READERS[name]() as reader:
        folder = Path("fuzz-corpus") / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate([*reader.seeds, *kept(name)]):
            (folder / f"seed-{number}").write_bytes(data)
            with contextlib.suppress(MlbitsError):
                reader.read(data)  # imports what it needs, and compiles rules, which cannot be instrumented
        for function in list(filter(_is_ours, gc.get_objects())):
            atheris.instrument_func(function)

        def one(data: bytes) -> None:
            try:
                reader.read(data)
            except MlbitsError:
                return

        limits = [f"-runs={inputs}", f"-seed={seed + 1}", f"-timeout={MOST_SECONDS:.0f}", "-rss_limit_mb=4096"]
        limits += [f"-max_total_time={max(1, round(seconds))}"] if seconds else []
        atheris.Setup([sys.argv[0], *limits, str(folder)], one)
        atheris.Fuzz()
