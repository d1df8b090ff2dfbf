"""Processes that step copies of a Gymnasium environment beside this one, which steps some itself.

A worker is a new Python process (not a fork, which threads of torch and Numba do not survive) that makes its own
copies and writes its rows of the batch's arrays in shared memory. A step is one byte through a pipe and one back. The
pipes are also how they end: a worker whose pipe is closed, because the batch was or because this process was killed,
leaves; and a worker that ended is noticed. Signals are for this process alone: Ctrl-C in a terminal reaches all of
them, and workers ignore it.

How many processes pay is decided from the time that a step takes (:func:`choose`).
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import gymnasium as gym

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.doors.gymnasium_copies import ErrorsNamed, GymnasiumCopies, arrays_in, in_words
from mlbits.envs.doors.gymnasium_ids import check_env_id, env_module, make_copy
from mlbits.envs.engine.multicore import usable_cores

_STEP, _CALL, _DONE, _ENDED, _VALUE, _ERROR = b"s", b"c", b"d", b"e", b"v", b"x"
_MEASURED_SECONDS, _MEASURED_STEPS = 0.1, 200  # of one copy, to decide
_HANDSHAKE = 120e-6  # seconds that a step waits for other processes, beyond their work
_START = 5.0  # seconds to start processes
_WORTH = 4.0  # how many times that they have to save
_PATIENCE = 10.0  # seconds in which a worker that was told to leave does
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from mlbits.envs.doors import gymnasium_workers as w; w.main()"


class WorkerError(Exception):
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def choose(env_id: str, settings: Mapping[str, Any], training: bool, num_envs: int, steps: float) -> tuple[int, str]:
    """How many processes should step the copies of a run, and a line that says why.

    One copy is stepped for up to 0.1 s. Several processes are chosen if they make a step of all copies a third faster
    or more, save several times what starting them takes, and have cores of their own (:func:`free_cores`).

    Args:
        env_id: a Gymnasium id.
        settings: keyword arguments of the environment.
        training: as for the batch.
        num_envs: copies B.
        steps: environment steps of the run, over all copies.

    Returns:
        The number of processes, this one included, and the line; "" if there is nothing to say.
    """
    most = min(free_cores(), num_envs)
    if most < 2 or unsendable(env_id, settings):
        return 1, ""
    seconds = step_seconds(env_id, settings, training)
    alone, shared = seconds * num_envs, seconds * -(-num_envs // most) + _HANDSHAKE
    saved = (alone - shared) * steps / num_envs
    if shared > 0.75 * alone or saved < _WORTH * _START:
        return 1, ""
    return most, (
        f"{env_id}: a step takes {1e6 * seconds:,.0f} microseconds, so {most} processes step the {num_envs} copies "
        "(env_workers = 1: one does)"
    )


def free_cores() -> int:
    """The cores that this process may use and that others leave it, by the load of the last minute; at least 1.

    A step waits for the slowest of its processes, so that those which have to share their cores make it slower.
    """
    cores = usable_cores()
    if not hasattr(os, "getloadavg"):
        return cores
    others = max(0.0, os.getloadavg()[0] - 1)  # this process is one of those that load it
    return max(1, min(cores, round((os.cpu_count() or cores) - others)))


def step_seconds(env_id: str, settings: Mapping[str, Any], training: bool) -> float:
    """The time that a step of one copy takes, with random actions."""
    env = make_copy(env_id, settings, training)
    try:
        with ErrorsNamed(env_id):
            env.action_space.seed(0)
            env.reset(seed=0)
            steps, began = 0, time.perf_counter()
            while steps < _MEASURED_STEPS and time.perf_counter() < began + _MEASURED_SECONDS:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                steps += 1
                if terminated or truncated:
                    env.reset()
        return (time.perf_counter() - began) / steps
    finally:
        env.close()


def unsendable(env_id: str, settings: Mapping[str, Any]) -> str:
    """Why another process could not make the environment; "" if nothing is known to prevent it."""
    for name, value in settings.items():
        try:
            pickle.dumps(value)
        except Exception as error:  # whatever the value's own code raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return f"the setting {name} = {value!r} cannot be sent to another process ({reason})"
    name = check_env_id(env_id)
    made = gym.registry[name].entry_point
    module = made.partition(":")[0] if isinstance(made, str) else getattr(made, "__module__", "")
    if module == "__main__" and not env_module(name):
        return f"{name} was registered where another process cannot import it; wanted a module"
    return ""


class Workers:
    """The workers of one batch, each with a range of its copies.

    Args:
        env_id: a Gymnasium id.
        count: how many processes step, this one included: it has the first of as many even parts of the copies.
        num_envs: copies B.
        apart: whether other processes step all copies: this one has none, and is not counted.
        making: the other arguments of :class:`~mlbits.envs.doors.gymnasium_copies.GymnasiumCopies`, but the numbers.

    Attributes:
        own: the copies of this process.
        setting: the name of the setting that asked for them, for messages, and its value without other processes.

    Raises:
        GameError: if the environment cannot be made in another process.
    """

    def __init__(self, env_id: str, count: int, num_envs: int, apart: bool = False, **making: Any) -> None:
        self.setting = ("actors", 0) if apart else ("env_workers", 1)
        name, none = self.setting
        if why := unsendable(env_id, making["settings"]):
            raise GameError(f"{name}: got {count}, but {why}; wanted {none}, or what can be imported by name")
        self.env_id, bounds = env_id, [k * num_envs // count for k in range(count + 1)]
        parts = [range(*pair) for pair in itertools.pairwise(bounds)]
        self.own, self._parts = (range(0), parts) if apart else (parts[0], parts[1:])
        self._processes: list[subprocess.Popen[bytes]] = []
        self._path = ""
        self._end = weakref.finalize(self, _end, self._processes)
        name = check_env_id(env_id)
        module = env_module(name)
        try:
            for part in self._parts:
                self._processes.append(_start())
                self._send(len(self._processes) - 1, {"env_id": f"{module}:{name}" if module else name,
                           "numbers": part, **making})  # fmt: skip
        except OSError as error:
            self.close()
            raise GameError(f"{self.setting[0]}: a process cannot be started ({error})") from None
        except BaseException:
            self.close()
            raise

    def share(self, size: int) -> mmap.mmap:
        """A block of memory that the workers see too, once they have been told of it."""
        folder = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None
        number, self._path = tempfile.mkstemp(prefix="mlbits-", dir=folder)
        try:
            os.truncate(number, size)
            if hasattr(os, "posix_fallocate"):  # else a full file system would show at the first write, as a crash
                os.posix_fallocate(number, 0, size)
            return mmap.mmap(number, size)
        except OSError as error:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()
            name, none = self.setting
            raise GameError(f"{name}: {size:,} bytes of shared memory cannot be had ({error}); wanted {none}") from None
        finally:
            os.close(number)

    def made(self) -> None:
        """Wait until all have made their copies.

        Raises:
            GameError: what a worker could not do.
        """
        try:
            self.finish()
        except BaseException:
            self.close()
            raise

    def ready(self, *using: Any) -> None:
        """Tell the workers the rest of what they have to know; their copies then use the block of memory.

        Raises:
            GameError: what a worker could not do.
        """
        try:
            with self.working("open", lambda part: (self._path, *using)):
                pass
        finally:
            with contextlib.suppress(OSError):  # the memory stays until the last process closes it
                Path(self._path).unlink()

    @contextlib.contextmanager
    def working(self, method: str = "", arguments: Callable[[range], Any] = lambda part: ()) -> Iterator[list[Any]]:
        """Let the workers step their copies, or call a method of theirs, while this process works on its own.

        Args:
            method: the method; "" for a step.
            arguments: its arguments for the copies of a worker.

        Yields:
            A list, in which the workers' results are afterwards (of a step, whether an episode ended).

        Raises:
            GameError: as :meth:`finish`.
        """
        found: list[Any] = []
        if method:
            for k, part in enumerate(self._parts):
                self._send(k, (method, arguments(part)))
        else:
            self._start_step()
        try:
            yield found
        except Exception:  # of a copy of this process: the others' answers must not be taken for later ones
            with contextlib.suppress(GameError):
                self.finish()
            raise
        except BaseException:
            self.close()
            raise
        found += self.finish()

    def _start_step(self) -> None:
        for k, process in enumerate(self._processes):
            assert process.stdin is not None
            try:
                process.stdin.write(_STEP)
                process.stdin.flush()
            except (OSError, ValueError):  # ValueError: closed
                raise self._ended(k) from None

    def finish(self) -> list[Any]:
        """Wait for the workers; their results (of a step, whether an episode ended).

        Raises:
            GameError: the first error of a copy, with its number; or if a worker has ended.
        """
        found, wrong = [], None
        try:
            for k in range(len(self._processes)):
                try:
                    found.append(self._result(k))
                except GameError as error:
                    wrong = wrong or error
        except BaseException:  # the answers that are still to come would be taken for those of a later step
            self.close()
            raise
        if wrong is not None:
            raise wrong
        return found

    def _send(self, k: int, value: Any) -> None:
        into = self._processes[k].stdin
        assert into is not None
        try:
            into.write(_CALL)
            pickle.dump(value, into)
            into.flush()
        except (OSError, ValueError):  # ValueError: closed
            raise self._ended(k) from None

    def _result(self, k: int) -> Any:
        out = self._processes[k].stdout
        assert out is not None
        kind = out.read(1)
        if kind in (_DONE, _ENDED):
            return kind == _ENDED
        if kind == _VALUE:
            return pickle.load(out)
        if kind == _ERROR:
            ours, message, b, text = pickle.load(out)
            error = GameError(f"{message} (copy {b})" if ours else f"{self.env_id}: copy {b} failed ({message})")
            raise error from WorkerError(text)
        raise self._ended(k)

    def _ended(self, k: int) -> GameError:
        process, part = self._processes[k], self._parts[k]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        code = process.returncode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        copies = f"copy {part.start}" if len(part) == 1 else f"copies {part.start} to {part.stop - 1}"
        return GameError(f"{self.env_id}: the process that steps {copies} {how}")

    def stop(self) -> None:
        """End the workers, whatever they are doing; another thread that waits for them gets a GameError."""
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """Let the workers leave."""
        self._end()


def elsewhere(
    workers: Workers | None, method: str, arguments: Callable[[range], Any]
) -> contextlib.AbstractContextManager[list[Any]]:
    """A context in which other processes, if there are any, do something with their copies; their results."""
    return contextlib.nullcontext([]) if workers is None else workers.working(method, arguments)


def _start() -> subprocess.Popen[bytes]:
    """A new Python process that knows this one's path of modules."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    blocked = {signal.SIGINT, signal.SIGTERM} if hasattr(signal, "pthread_sigmask") else set()
    if blocked:  # until it ignores them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
    finally:
        if blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
    until = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:  # it is inside a step that takes long
            process.kill()
            process.wait()


class _Worker:
    """What runs in a worker: its copies, and what it is asked to do with them."""

    def __init__(self, numbers: range, **making: Any) -> None:
        self.numbers = numbers
        self.copies = GymnasiumCopies(numbers=numbers, **making)

    def open(self, path: str, space: Any, action: Any, count: int) -> None:
        """Use the arrays of the batch."""

        def memory(size: int) -> mmap.mmap:
            with Path(path).open("r+b") as file:
                return mmap.mmap(file.fileno(), size)

        self.copies.use(arrays_in(count, space, action, memory), space, action, count)

    def seed(self, seeds: Mapping[int, tuple[int, int]]) -> None:
        """Seed copies: first seed and number of reseedings."""
        for b, (seed, seedings) in seeds.items():
            self.copies.seed(b, seed, seedings)

    def restart(self, which: Sequence[int]) -> None:
        """Start episodes in copies."""
        for b in which:
            self.copies.restart(b)

    def replay(self, logs: Mapping[int, tuple[Any, list[int], int, int]]) -> dict[int, str | None]:
        """Restore copies from their actions, resets, first seed and number of reseedings."""
        found = {}
        for b, (actions, resets, seed, seedings) in logs.items():
            self.copies.seeds[b], self.copies.seedings[b] = seed, seedings
            found[b] = self.copies.replay(b, actions, resets, lambda: None)
        return found


def main() -> None:
    """Run a worker: make copies, and do what comes through the pipe until it is closed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they are for the parent, which closes the pipe
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    into, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an environment prints must not come between the answers
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    with contextlib.suppress(BrokenPipeError, EOFError):
        _serve(into, out)
    os._exit(0)  # without the libraries' own ways of ending, which may wait or complain


def _serve(into: BinaryIO, out: BinaryIO) -> None:
    making = pickle.load(into) if into.read(1) else {}
    worker: _Worker | None = None
    command = _CALL
    while command:
        try:
            if worker is None:
                worker = _Worker(**making)
                out.write(_DONE)
            elif command == _STEP:
                out.write(_ENDED if worker.copies.step_shared() else _DONE)
            else:
                method, arguments = pickle.load(into)
                out.write(_VALUE + pickle.dumps(getattr(worker, method)(*arguments)))
        except Exception as error:  # any error of an environment; the user gets it from the batch
            ours = isinstance(error, MlbitsError)
            message = str(error) if ours else in_words(error)
            at = making["numbers"].start if worker is None else worker.copies.at
            out.write(_ERROR + pickle.dumps((ours, message, int(at), traceback.format_exc())))
            if worker is None:
                out.flush()
                return
        out.flush()
        command = into.read(1)
