"""Recording a game while it is played: what was done, what was thought of it, and pictures."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlbits.agents.agent import Agent
from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.replays.decisions import Words, opinion, said
from mlbits.evals.replays.replay import Replay, Said, Step
from mlbits.selfplay.runs.saved_agents import own_settings

MOST_PICTURES = 2000


class Recorder:
    """Writes down what happens in copy 0 of a batch.

    Args:
        batch: the copies, at the start of an episode.
        env: the environment's id.
        settings: its settings.
        seed: of copy 0.
        names: the player in each seat.
        agents: by seat, whose opinion is written down; seats without one are people.
    """

    def __init__(
        self,
        batch: AnyBatch,
        env: str,
        settings: Mapping[str, Any] | None,
        seed: int,
        names: Sequence[str],
        agents: Mapping[int, Agent] | None = None,
    ) -> None:
        self.batch, self.words, self.agents = batch, Words(batch), dict(agents or {})
        game = batch.game if isinstance(batch, GameBatch) else None
        speed = game.frames_per_second if game is not None else frame_rate(batch)
        self.replay = Replay(env, own_settings(env, settings or {}), seed, list(names), frames_per_second=speed)
        self.replay.pictures.kind = picture_kind(batch)
        self._before: tuple[list[Any], dict[int, Said]] = ([], {})
        self._look()

    def before(self, actions: Any) -> None:
        """Note the actions [P, ...] that are about to be played."""
        plain = np.asarray(actions)
        active = self.batch.active
        acting = [seat for seat in range(self.batch.num_seats) if active is None or bool(active[0, seat])]
        told = {}
        for seat in acting:
            agent = self.agents.get(seat)
            thought = None if agent is None else opinion(agent, self.batch, seat)
            told[seat] = said(self.words, seat, plain[seat], thought)
        self._before = (plain.tolist(), told)

    def after(self, rewards: Any, terminated: bool, truncated: bool) -> None:
        """Note what came of them: rewards [P], and whether the game has ended."""
        actions, told = self._before
        earned = [plain_number(reward) for reward in np.asarray(rewards).tolist()]
        self.replay.steps.append(Step(actions, earned, told))
        self.replay.end = "terminated" if terminated else "truncated" if truncated else "unfinished"
        self._look()

    def back_to(self, steps: int) -> None:
        """Forget all but the first steps."""
        del self.replay.steps[steps:], self.replay.frames[steps + 1 :]
        self.replay.end = "unfinished"

    def _look(self) -> None:
        """Draw the position; of a very long game the first part."""
        replay = self.replay
        if len(replay.pictures.list) >= MOST_PICTURES:
            replay.frames.append(replay.frames[-1])
            return
        parts = picture(self.batch, replay.pictures.kind)
        replay.frames.append(0 if parts is None else replay.pictures.add(parts))


class Watcher:
    """Lets :func:`~mlbits.selfplay.episodes.play_episodes` record its first episode.

    Args:
        names: by number, the names of the players.
        env: the environment's id.
        settings: its settings.
        seed: of the episodes.

    Attributes:
        recorder: who records, once play has begun.
    """

    def __init__(self, names: Sequence[str], env: str, settings: Mapping[str, Any] | None, seed: int) -> None:
        self.names, self.env, self.settings, self.seed = list(names), env, settings, seed
        self.recorder: Recorder | None = None

    def before(self, batch: AnyBatch, players: Sequence[Agent], seating: Any, actions: Any) -> None:
        """Called before a step: the copies, who sits where [P], and the actions [P, ...] of copy 0."""
        if self.recorder is None:
            seats = [int(player) for player in seating]
            self.recorder = Recorder(
                batch, self.env, self.settings, self.seed, [self.names[player] for player in seats],
                {seat: players[player] for seat, player in enumerate(seats)},
            )  # fmt: skip
        self.recorder.before(actions)

    def after(self, batch: AnyBatch) -> None:
        """Called after the step."""
        assert self.recorder is not None
        self.recorder.after(batch.reward[0].cpu(), bool(batch.terminated[0]), bool(batch.truncated[0]))

    @property
    def replay(self) -> Replay:
        """The episode.

        Raises:
            MlbitsError: if nothing was played.
        """
        if self.recorder is None:
            raise MlbitsError("replay: nothing was played; wanted at least one step")
        return self.recorder.replay


def picture_kind(batch: AnyBatch) -> str:
    """How a batch is drawn: "svg", "webp" or, for an environment that draws nothing, "none"."""
    if isinstance(batch, GameBatch):
        return "webp" if batch.game.layers is None else "svg"
    return "webp" if _rendered(batch) is not None else "none"


def picture(batch: AnyBatch, kind: str) -> tuple[str, ...] | None:
    """The parts of a picture of copy 0; None for kind "none"."""
    if kind == "none":
        return None
    if kind == "svg":
        assert isinstance(batch, GameBatch) and batch.game.layers is not None
        return tuple(batch.game.layers(*batch.copies.record(0)))
    frame = _rendered(batch)
    return None if frame is None else (webp_text(frame),)


def _rendered(batch: AnyBatch) -> NDArray[np.uint8] | None:
    try:
        frame = batch.render("rgb_array", 0)
    except GameError:
        return None
    return None if frame is None else np.asarray(frame, np.uint8)


def webp_text(image: NDArray[np.uint8]) -> str:
    """An image uint8 [H, W, 3] as WebP in base64, without loss: a quarter of a PNG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "WEBP", lossless=True, method=1, quality=50)  # as small as by default, sooner
    return b64encode(data.getvalue()).decode("ascii")


def frame_rate(batch: AnyBatch) -> int:
    """The frames a second that an environment says it is to be shown at; 8 where it says nothing."""
    env: Any = getattr(batch, "envs", [None])[0]
    rate = (getattr(env, "metadata", None) or {}).get("render_fps", 8)
    return max(1, min(1000, int(rate)))


def plain_number(number: float) -> float:
    """A single-precision number with the digits that it has."""
    return float(f"{number:.7g}")
