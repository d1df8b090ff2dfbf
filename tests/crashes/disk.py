"""A folder whose every I/O call is watched: what is on the disk after a kill or a power loss, or when it is full.

``Disk.watched`` records a moment before and after each call that makes, renames, deletes, cuts or syncs a file or
folder: what the folder holds then, and what of it is durable. From a moment follow the states that a crash can leave:

* a kill leaves what the folder holds, and of what was being written perhaps half;
* a power loss leaves what was synced; of the rest any part: each entry of a folder that was made, renamed or deleted
  since that folder's last sync may be kept or not, in any combination (as POSIX allows; real file systems do less), and
  each file that was written since its last sync may have its old content, its new one, half of it, or zeros there.

``full_disk`` makes one of those calls, or of the writes between them, fail for want of space, and all after it or none.
"""

import builtins
import contextlib
import errno
import io
import itertools
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from mlbits.selfplay.runs import checkpoints

CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "truncate", "fsync")
ALLOCATING = ("mkdir", "rename", "replace", "fsync")


@dataclass
class State:
    """A tree of folders: their entries by folder, and contents by file; both by number, the root is 0."""

    entries: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    contents: dict[int, bytes] = field(default_factory=dict)

    def copy(self):
        return State({number: dict(names) for number, names in self.entries.items()}, dict(self.contents))

    def tree(self, number=0):
        """Names and contents, as something that can be compared and hashed."""
        entries = sorted(self.entries.get(number, {}).items())
        return tuple((name, self.contents[child] if child in self.contents else self.tree(child))
                     for name, child in entries)  # fmt: skip

    def build(self, target, number=0):
        """Make the tree on the real disk."""
        target.mkdir(parents=True)
        for name, child in self.entries.get(number, {}).items():
            if child in self.contents:
                (target / name).write_bytes(self.contents[child])
            else:
                self.build(target / name, child)


@dataclass
class Moment:
    """Before or after a call.

    Attributes:
        name: the call.
        now: what the folder holds.
        durable: what of it is synced.
        pending: changes of folders since their last sync: the folder, and its entries by name, None if deleted.
        changed: old content of the files that were written since the moment before.
        said: what had been said to be saved.
    """

    name: str
    now: State
    durable: State
    pending: list[tuple[int, dict[str, int | None]]]
    changed: dict[int, bytes]
    said: tuple[str, ...]

    def kills(self):
        """The states that a kill here leaves."""
        yield self.now
        for number, old in self.changed.items():
            state = self.now.copy()
            new = state.contents[number]
            begun = len(old) if new.startswith(old) else 0
            state.contents[number] = new[: begun + (len(new) - begun) // 2]
            yield state

    def power_losses(self, generator, extra=4):
        """States that a power loss here may leave: the extremes, each change alone, all but each, and random ones."""
        count = len(self.pending)
        unsynced = [number for number, data in self.now.contents.items() if data != self.durable.contents.get(number)]
        chosen = [
            set(),
            set(range(count)),
            *({k} for k in range(count)),
            *(set(range(count)) - {k} for k in range(count)),
        ]
        chosen += [{k for k in range(count) if generator.random() < 0.5} for _ in range(extra)]
        for k, kept in enumerate(chosen):
            kinds = range(4) if k < 2 else [generator.randrange(4)]
            for kind in kinds if unsynced else [0]:
                yield self._after(kept, {number: kind if k < 2 else generator.randrange(4) for number in unsynced})

    def _after(self, kept, kinds):
        state = State({n: dict(names) for n, names in self.durable.entries.items()}, dict(self.now.contents))
        for place, change in enumerate(self.pending):
            if place in kept:
                folder, names = change
                entries = state.entries.setdefault(folder, {})
                for name, number in names.items():
                    entries.pop(name, None)
                    if number is not None:
                        entries[name] = number
        for number, kind in kinds.items():
            old, new = self.durable.contents.get(number, b""), self.now.contents[number]
            same = len(old) if new.startswith(old) else 0
            parts = (old, new, new[: same + (len(new) - same) // 2], new[:same] + bytes(len(new) - same))
            state.contents[number] = parts[kind]
        for number, data in self.durable.contents.items():  # deleted meanwhile, but perhaps not durably
            state.contents.setdefault(number, data)
        folders = {*self.now.entries, *self.durable.entries}
        for number in {n for names in state.entries.values() for n in names.values()} - folders:
            state.contents.setdefault(number, b"")  # made and deleted since the last sync, and its deletion was lost
        return state


class Disk:
    """Watches a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.moments, self.pending, self.said = [], [], ()
        self._numbers, self._count = {}, itertools.count(1)
        self.now = self._look()
        self.durable = self.now.copy()

    def says(self, text):
        """Note that something was said to be saved: every later moment has to have it."""
        self.said = (*self.said, text)
        self._observe(f"said {text}")

    def _look(self):
        state, seen = State(), {}

        def walk(folder, number):
            state.entries[number] = {}
            for entry in os.scandir(folder):
                key = entry.inode()
                seen[key] = child = self._numbers.get(key) or next(self._count)
                state.entries[number][entry.name] = child
                if entry.is_dir(follow_symlinks=False):
                    walk(entry.path, child)
                else:
                    state.contents[child] = Path(entry.path).read_bytes()

        walk(self.folder, 0)
        self._numbers = seen  # a number that is gone is not used again, though its inode may be
        return state

    def _observe(self, name, atomic=False):
        before, self.now = self.now, self._look()
        for folder in sorted({*before.entries, *self.now.entries}):
            old, new = before.entries.get(folder, {}), self.now.entries.get(folder, {})
            changes = {n: new.get(n) for n in sorted({*old, *new}) if old.get(n) != new.get(n)}
            if folder not in self.now.entries:
                continue  # a folder that is gone: its own entry's deletion says so
            self.pending += (
                [(folder, changes)] if atomic and changes else [(folder, {n: v}) for n, v in changes.items()]
            )
        changed = {
            number: before.contents.get(number, b"") for number, data in self.now.contents.items()
            if before.contents.get(number, b"") != data
        }  # fmt: skip
        self.moments.append(
            Moment(name, self.now.copy(), self.durable.copy(), list(self.pending), changed, self.said)
        )  # fmt: skip

    def _synced(self, descriptor):
        inode = os.fstat(descriptor).st_ino
        number = 0 if inode == self.folder.stat().st_ino else self._numbers.get(inode)
        if number is None:
            return
        if number in self.now.contents:
            self.durable.contents[number] = self.now.contents[number]
        else:
            self.durable.entries[number] = dict(self.now.entries[number])
            self.pending = [change for change in self.pending if change[0] != number]

    @contextlib.contextmanager
    def watched(self):
        """Watch every call inside this context."""
        originals = {name: getattr(os, name) for name in CALLS}

        def watching(name, original):
            def call(*arguments, **settings):
                self._observe(f"before {name} {arguments[0]}")
                result = original(*arguments, **settings)
                self._observe(f"after {name} {arguments[0]}", atomic=name in ("rename", "replace"))
                if name == "fsync":
                    self._synced(arguments[0])
                return result

            return call

        try:
            for name, original in originals.items():
                setattr(os, name, watching(name, original))
            yield self
        finally:
            for name, original in originals.items():
                setattr(os, name, original)
        self._observe("the end")


def states(disk, kills, losses, seed=0):
    """States that crashes leave, each with its first moment; the same state comes once, for what was said by then."""
    generator, seen = random.Random(seed), set()
    for moment in disk.moments:
        found = [*moment.kills()] if kills else []
        found += moment.power_losses(generator) if losses else []
        for state in found:
            key = moment.said, state.tree()
            if key not in seen:
                seen.add(key)
                yield moment, state


def each_built(disk, folder, every=1, **what):
    """Build each state (of ``every`` so many one) in a folder of its own, which is deleted afterwards."""
    for k, (moment, state) in enumerate(itertools.islice(states(disk, **what), every // 2, None, every)):
        target = folder / f"state{k}"
        state.build(target)
        yield moment, target
        shutil.rmtree(target)


class _Failing:
    """A file that is open for writing, on a disk that becomes full."""

    def __init__(self, file, failing):
        self._file, self._failing = file, failing

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        if self._failing():
            with contextlib.suppress(OSError):
                self._file.write(data[: len(data) // 2])
                self._file.flush()
            raise no_space()
        return self._file.write(data)


def no_space():
    return OSError(errno.ENOSPC, "No space left on device")


@contextlib.contextmanager
def full_disk(at, forever):
    """Let the ``at``-th call or write for which the disk needs space fail, and with ``forever`` all after it.

    Yields a list, whose length is the number of such calls so far.
    """
    calls = []

    def failing():
        calls.append(1)
        return len(calls) >= at if forever else len(calls) == at

    def guarded(original):
        def call(*arguments, **settings):
            if failing():
                raise no_space()
            return original(*arguments, **settings)

        return call

    def opening(original):
        def opened(file, mode="r", *arguments, **settings):
            found = original(file, mode, *arguments, **settings)
            return _Failing(found, failing) if set(mode) & set("wax+") else found

        return opened

    places = [(os, name, guarded) for name in ALLOCATING] + [(checkpoints, "save_file", guarded)]
    places += [(io, "open", opening), (builtins, "open", opening)]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    try:
        for owner, name, change in places:
            setattr(owner, name, change(getattr(owner, name)))
        yield calls
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
