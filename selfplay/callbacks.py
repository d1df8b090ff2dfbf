"""Callbacks: functions that a run calls while it is under way, which may also end it.

``on_iteration`` is called after each iteration of the loop, ``on_evaluation`` after each evaluation and
``on_checkpoint`` after each checkpoint. Each gets the run as it is now (:class:`RunUnderWay`). A callback that returns
False, or calls ``run.stop("why")``, ends the run early: it is evaluated, saved and summed up as at its end, and can be
resumed. Callbacks draw no random numbers of the run's, and a run has the same weights with them as without.

Example:
    def tell(run):
        print(run.env_steps, run.evaluation["return_mean"])
        if run.evaluation["return_mean"] > 400:
            run.stop("good enough")

    mlbits.train("ppo", "CartPole-v1", on_evaluation=tell)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlbits.selfplay.runs.config import ConfigError, Settings

if TYPE_CHECKING:
    from mlbits.selfplay.policy import Policy
    from mlbits.selfplay.session import Session

MOMENTS = ("on_iteration", "on_evaluation", "on_checkpoint")
Callback = Callable[["RunUnderWay"], Any]


class RunUnderWay:
    """A run as callbacks see it.

    Args:
        session: the run.
        folder: its folder.

    Attributes:
        folder: the run's folder.
        checkpoint: the checkpoint that was saved last, or None before the first of this process.
    """

    def __init__(self, session: Session, folder: Path) -> None:
        self._session, self.folder = session, folder
        self.checkpoint: Path | None = None
        self._policy: Policy | None = None

    @property
    def settings(self) -> Settings:
        """All settings of the run."""
        return self._session.settings

    @property
    def env_steps(self) -> int:
        """Environment steps so far, over all copies; gradient steps where the run learns from a dataset."""
        return self._session.counters.env_steps

    @property
    def iterations(self) -> int:
        """Iterations of the loop so far."""
        return self._session.counters.iterations

    @property
    def workers(self) -> list[int]:
        """The process ids of the run's workers on this machine, this process left out."""
        return self._session.worker_processes

    @property
    def restarts(self) -> int:
        """How often they were started again."""
        return self._session.restarts

    @property
    def progress(self) -> float:
        """The fraction of the run that is over, 0..1."""
        return min(1.0, self._session.progress)

    @property
    def metrics(self) -> dict[str, float]:
        """What the learner reported last, by name: losses, entropy and so on; empty before it has learned."""
        return {name: float(value) for name, value in self._session.counters.unrecorded_metrics.items()}

    @property
    def training_return(self) -> float | None:
        """Mean return of the latest training episodes, or None before the first has ended."""
        recent = self._session.recent
        return sum(recent) / len(recent) if recent else None

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The latest evaluation: env_steps, return_mean, return_interval (95%), episodes; None before the first."""
        return None if self._session.counters.evaluation is None else dict(self._session.counters.evaluation)

    @property
    def is_best(self) -> bool:
        """Whether the latest evaluation is the best so far."""
        counters = self._session.counters
        return counters.evaluation is not None and counters.evaluations_without_improvement == 0

    def agent(self) -> Policy:
        """The learner as it is now, to act with; it changes when the run goes on learning."""
        if self._policy is None:
            from mlbits.selfplay.policy import Policy
            from mlbits.selfplay.runs.loading import env_spaces
            from mlbits.selfplay.runs.saved_agents import game_of

            settings, session = self.settings, self._session
            game = game_of(settings.env, settings.env_settings)
            observation_space, action_space = env_spaces(settings.env, settings.env_settings, game)
            self._policy = Policy(
                session.player, env=settings.env, env_settings=settings.env_settings, game=game,
                observation_space=observation_space, action_space=action_space, device=session.device,
            )  # fmt: skip
        self._policy.steps = self.env_steps
        return self._policy

    def stop(self, why: str = "a callback ended it") -> None:
        """End the run after this iteration; what is learned is saved.

        Args:
            why: kept in the summary, as "stopped".
        """
        self._session.stopped = self._session.stopped or str(why)

    def __repr__(self) -> str:
        return f"RunUnderWay({self.folder}, {self.env_steps:,} steps)"


class Callbacks:
    """The callbacks of a run.

    Args:
        of_moment: functions by the moment at which they are called, one of :data:`MOMENTS`.
    """

    def __init__(self, of_moment: Mapping[str, Sequence[Callback]]) -> None:
        self._of_moment = {moment: tuple(of_moment.get(moment, ())) for moment in MOMENTS}

    def call(self, moment: str, run: RunUnderWay) -> None:
        """Call what is to be called at a moment."""
        for callback in self._of_moment[moment]:
            if callback(run) is False:
                run.stop(f"{moment} returned False")


def callbacks_of(
    given: Any = None,
    *,
    on_iteration: Callback | None = None,
    on_evaluation: Callback | None = None,
    on_checkpoint: Callback | None = None,
) -> Callbacks | None:
    """The callbacks that a user gave; None for none.

    Args:
        given: an object with any of the methods ``on_iteration``, ``on_evaluation`` and ``on_checkpoint``, or a list of
            such objects.
        on_iteration: a function.
        on_evaluation: a function.
        on_checkpoint: a function.

    Raises:
        ConfigError: for something that cannot be called, or an object without any of these methods.
    """
    functions = dict(zip(MOMENTS, (on_iteration, on_evaluation, on_checkpoint), strict=True))
    found: dict[str, list[Callback]] = {moment: [] for moment in MOMENTS}
    for one in given if isinstance(given, (list, tuple)) else [given] * (given is not None):
        methods = {moment: getattr(one, moment, None) for moment in MOMENTS}
        if not any(map(callable, methods.values())):
            raise ConfigError(
                f"callbacks: got {one!r:.80}; wanted an object with a method {', '.join(MOMENTS[:2])} or {MOMENTS[2]}"
            )
        for moment, method in methods.items():
            if callable(method):
                found[moment].append(method)
    for moment, function in functions.items():
        if function is not None:
            if not callable(function):
                raise ConfigError(f"{moment}: got {function!r:.80}; wanted a function of the run")
            found[moment].append(function)
    return Callbacks(found) if any(found.values()) else None
