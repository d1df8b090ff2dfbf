"""B copies of a game in NumPy memory, stepped by the compiled driver; all CPU doors are built on it.

The arrays are allocated once and overwritten by each call; a door that hands them out makes copies where needed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.game import Game
from mlbits.envs.core.random import copy_keys
from mlbits.envs.core.settings import integer
from mlbits.envs.engine import compiling, modes  # noqa: F401  (compiling announces what Numba compiles)
from mlbits.envs.engine.driver import load_driver
from mlbits.envs.engine.modes import Autoreset, IllegalActions
from mlbits.envs.engine.multicore import CoreChoice, cores, usable_cores

_numba_config: Any = numba.config  # its attributes are set at run time

# With fewer copies per thread than this, starting a thread costs more than it saves.
_COPIES_A_THREAD = 8192


def stack_params(games: Sequence[Game], num_envs: int) -> NDArray[Any]:
    """The parameters of one game shared by all copies [1], or of one game per copy [B].

    Raises:
        GameError: if there is neither one game nor one per copy, or the games differ in more than their parameters.
    """
    integer("num_envs", num_envs, 1, 2**31 - 1)
    if len(games) not in (1, num_envs):
        raise GameError(f"games: got {len(games)} for {num_envs} copies; wanted one, or one per copy")
    first = games[0]
    for b, game in enumerate(games):
        same = (
            game.params.dtype == first.params.dtype
            and game.state_dtype == first.state_dtype
            and game.observation_space == first.observation_space
            and game.action_space == first.action_space
            and (game.seats, game.reset, game.step, game.observe, game.legal, game.acts)
            == (first.seats, first.reset, first.step, first.observe, first.legal, first.acts)
        )
        if not same:
            raise GameError(
                f"games[{b}]: differs from games[0] in more than parameters (spaces, sizes or rules); "
                "wanted games with equal spaces, sizes and rules"
            )
    return np.concatenate([game.params for game in games])


class Copies:
    """B copies of one game.

    Args:
        games: one game for all copies, or one per copy (differing only in their parameters).
        num_envs: number of copies B.
        autoreset: when a copy whose episode has ended is reset: "same_step" (in the step that ended it; the last
            observation is kept in ``final_obs``), "next_step" (in the next call, whose action is ignored) or
            "disabled" (only by :meth:`reset`; until then the copy does not change).
        illegal: what an illegal action does: "error" (nothing is stepped and IllegalActionError is raised),
            "replace" (the lowest-numbered legal action, or the nearest bound, is played) or "forfeit" (the episode
            terminates with reward -1 for the seat).
        threads: number of threads; None uses one per 8,192 copies, up to the number of cores.
        first_copy: the number of the first copy in random streams.

    Attributes:
        states: structured [B].
        params: structured [1] or [B].
        obs: [B, P, *shape] of the observation layout.
        final_obs: like obs, valid where an episode ended in the last step under "same_step".
        legal: bool [B, P, A], or [1, 1, 1] if the game has no masks.
        active: bool [B, 2P], who acts now, then who would have acted at ``final_obs`` (valid where the last step
            truncated an episode under "same_step"); [1, 1] if every seat always acts.
        rewards: float32 [B, P].
        terminated: bool [B].
        truncated: bool [B].
    """

    def __init__(
        self,
        games: Game | Sequence[Game],
        num_envs: int = 1,
        *,
        autoreset: Autoreset = "same_step",
        illegal: IllegalActions = "error",
        threads: int | None = None,
        first_copy: int = 0,
    ) -> None:
        games = [games] if isinstance(games, Game) else list(games)
        self.params = stack_params(games, num_envs)
        self.game = game = games[0]
        self.num_envs, self.first_copy = num_envs, first_copy
        self.autoreset = modes.choice("autoreset", autoreset, modes.AUTORESET)
        self.illegal = modes.choice("illegal", illegal, modes.ILLEGAL)
        if threads is not None:
            integer("threads", threads, 1, 4096)
        seats, layout, action = game.seats, game.observation, game.action
        self.states = np.zeros(num_envs, game.state_dtype)
        self.states["over"] = 1
        self.states["rng_key"] = copy_keys(0, num_envs)
        self.obs = np.zeros((num_envs, seats, *layout.shape), layout.dtype)
        self.final_obs = np.zeros_like(self.obs)
        self.legal = np.zeros((num_envs, seats, action.mask_size) if game.masked else (1, 1, 1), bool)
        self.active = np.ones((num_envs, 2 * seats) if game.acts is not None else (1, 1), bool)
        self.rewards = np.zeros((num_envs, seats), np.float32)
        self.terminated = np.zeros(num_envs, bool)
        self.truncated = np.zeros(num_envs, bool)
        self._everyone = np.ones(num_envs, bool)
        self._no_actions = np.zeros((num_envs, seats, *action.shape), action.dtype)
        self._played = self._no_actions.copy() if illegal == "replace" else None
        # If ``threads`` was not given, several cores are used only while they are faster than one.
        self._core_choice = CoreChoice() if threads is None else None
        self._threads = max(1, min(usable_cores(), num_envs // _COPIES_A_THREAD) if threads is None else threads)
        self._bounds = np.linspace(0, num_envs, self._threads + 1).astype(np.int64)
        self._results = np.full(self._threads, -1, np.int64)
        self._bind()

    def _bind(self) -> None:
        """Gather the driver's arguments once: for a batch of one copy this would cost more than the step itself."""
        self._before_actions = (
            int(len(self.params) > 1), self.autoreset, self.illegal, as_records(self.states), as_records(self.params)
        )  # fmt: skip
        self._after_actions = (
            as_records(self.obs), as_records(self.final_obs), self.legal, self.active, self.rewards, self.terminated,
            self.truncated,
        )  # fmt: skip
        self._box = (self.game.action.low, self.game.action.high)

    def __getattr__(self, name: str) -> Any:
        """The driver, made on first use: invalid settings are then refused before anything is compiled."""
        if name != "_driver":
            raise AttributeError(name)
        self._driver = load_driver(self.game)
        return self._driver

    def __getstate__(self) -> dict[str, Any]:
        bound = {"_driver", "_before_actions", "_after_actions", "_box"}  # rebuilt on the new object's own arrays
        return {name: value for name, value in vars(self).items() if name not in bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()

    def call(self, op: int, actions: NDArray[Any], which: NDArray[np.bool_]) -> int:
        """Run the driver once over all copies, on several cores if there are many copies."""
        played = actions if self._played is None else self._played
        rest = (*self._before_actions, actions, played, *self._after_actions, which, *self._box)
        if self._threads == 1:
            return self._driver.run(op, 0, self.num_envs, *rest)
        return self._call_on_several_cores(op, rest)

    def _call_on_several_cores(self, op: int, rest: tuple[Any, ...]) -> int:
        if cores.lost or not (self._core_choice is None or self._core_choice.several()):
            return int(self._driver.run(op, 0, self.num_envs, *rest))
        cores.step(lambda: self._driver.run_parallel(op, self._bounds, self._results, *rest))
        return min((int(result) for result in self._results if result >= 0), default=-1)

    def seed(self, seed: int | Sequence[int], which: NDArray[np.bool_] | None = None) -> None:
        """Give every copy, or those where ``which`` [B] is True, the random stream of (seed, copy index)."""
        chosen = self._everyone if which is None else which
        self.states["rng_key"][chosen] = copy_keys(seed, self.num_envs, self.first_copy)[chosen]
        self.states["rng_counter"][chosen] = 0

    def reset(self, which: NDArray[np.bool_] | None = None) -> None:
        """Start a new episode in all copies, or in those where ``which`` [B] is True."""
        self.call(modes.RESET, self._no_actions, self._everyone if which is None else which)

    def step(self, actions: NDArray[Any]) -> None:
        """Play one action per seat.

        Args:
            actions: [B, P, ...] of the action layout's exact shape and dtype.

        Raises:
            IllegalActionError: under illegal="error", before anything is stepped.
        """
        if self._threads == 1:
            fault = self.call(
                modes.CHECKED_STEP if self.illegal == modes.ERROR else modes.STEP, actions, self._everyone
            )
        else:
            began = time.perf_counter()
            # With threads, no part may step before all parts are checked, so this takes two calls.
            fault = self.call(modes.CHECK, actions, self._everyone) if self.illegal == modes.ERROR else -1
            if fault < 0:
                self.call(modes.STEP, actions, self._everyone)
                if self._core_choice is not None:
                    self._core_choice.note(time.perf_counter() - began)
        if fault >= 0:
            raise self.illegal_action(actions, fault)

    def check(self, actions: NDArray[Any]) -> int:
        """The first illegal action as b * P + seat, or -1; nothing is stepped."""
        return self.call(modes.CHECK, actions, self._everyone)

    def set_params(self, params: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Give the copies ``rows`` [n] their records of ``params`` [n]; what was shared becomes one record per copy."""
        if len(self.params) < self.num_envs:
            self.params = np.repeat(self.params, self.num_envs)
        self.params[rows] = params
        self._bind()

    def refresh(self) -> None:
        """Rewrite observations and masks from the states, after these were set from outside."""
        self.call(modes.REFRESH, self._no_actions, self._everyone)

    def write_truncated_masks(self) -> None:
        """Write the legal masks of episodes that the last step truncated, as if they went on.

        Learners need the legal actions at a truncated observation. The driver itself marks all actions legal in an
        episode that is over, because nothing is played there.
        """
        if self.game.masked:
            self.show_truncated()

    def show_truncated(self) -> None:
        """Write masks, and who acts, of episodes that the last step truncated, as if they went on."""
        cut = self.truncated & ~self.terminated & (self.states["over"] != 0)
        if cut.any():
            self.states["over"][cut] = 0
            self.refresh()
            self.states["over"][cut] = 1

    def illegal_action(self, actions: NDArray[Any], fault: int) -> IllegalActionError:
        """The error for the illegal action at index b * P + seat."""
        b, seat = divmod(fault, self.game.seats)
        mask = self.legal[b, seat] if self.game.masked else None
        return illegal_action_error(self.game, f"copy {b}, seat {seat}", actions[b, seat], mask)

    def record(self, b: int = 0) -> tuple[Any, Any]:
        """The (state, params) of copy ``b`` as records whose fields are attributes, for drawing."""
        params = self.params[b if len(self.params) > 1 else 0 :]
        return self.states.view(np.recarray)[b], params.view(np.recarray)[0]


def illegal_action_error(game: Game, who: str, action: Any, mask: Any) -> IllegalActionError:
    """An error that names the seat, its illegal action and the legal ones."""
    layout = game.action
    if layout.kind == "continuous":
        wanted = f"finite numbers from {layout.low.tolist()} to {layout.high.tolist()}"
    elif mask is None:
        wanted = " x ".join(f"0..{n - 1}" for n in layout.nvec)
    else:
        parts = np.split(np.asarray(mask), np.cumsum(layout.nvec)[:-1])
        wanted = " x ".join(_shorten(np.flatnonzero(part).tolist()) for part in parts)
        wanted += ' (or illegal="replace", for learners without action masks)'
    return IllegalActionError(f"action of {who} in {game.name}: got {np.asarray(action).tolist()}; wanted {wanted}")


def _shorten(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return f"one of [{shown}{', ...' if len(numbers) > 12 else ''}]"


def as_records(array: NDArray[Any]) -> NDArray[Any]:
    """A view whose fields are attributes, for uncompiled rules (NUMBA_DISABLE_JIT=1); compiled ones take the array."""
    return array.view(np.recarray) if _numba_config.DISABLE_JIT and array.dtype.names else array
