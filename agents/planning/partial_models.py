"""Partial models of logged episodes, with and without a backdoor variable, and planning in them by expectimax.

Rezende et al., "Causally correct partial models for reinforcement learning" (2020). A partial model predicts rewards
from the first state and the actions alone; what the acting policy observed on the way is left out. Fitted plainly,
E[r_t | a_0, ..., a_t] is confounded: the logged action depends on the observation, which also affects the reward, so
that conditioning on the action says something about the observation. A planner who sets the action does not get
E[r | a], but E[r | do(a)].

The backdoor correction (Pearl 2009, section 3.3; equations 4 and 5 of the paper) records with each action a variable z
through which alone the observation affects it: the action that the policy intended before exploration replaced it, or
its action probabilities. Given z, the action is independent of the observation, and

    E[r | do(a)] = sum_z p(z) E[r | z, a]

The model has tables of p(z_t | h_t) and of E[r_t | h_t, z_t, a_t], with h_t = (z_0, a_0, ..., z_{t-1}, a_{t-1}).
Expectimax plans in it: V(h) = sum_z p(z | h) max_a [r(h, z, a) + gamma c(h, z, a) V(h, z, a)], c being the probability
that the episode goes on. The maximum may depend on z, which is what the logging policy would let a planner know of its
observation. The first action is chosen before any z is known.

A pair (z, a) that was never logged has no estimate: planning leaves it out, and E[r | do(a)] is NaN. So the correction
needs exploration: with z the intended action and no exploration, a is always z.

Example:
    >>> # Hugs pay 1 when the bear is a teddy, which z (the intention) reveals; intentions are carried out by chance.
    >>> walks = Walks(action=np.array([[1], [0], [1], [0]]), reward=np.array([[1.0], [0.0], [-0.5], [0.0]]),
    ...               backdoor=np.array([[1], [1], [0], [0]]))
    >>> PartialModel.fit(walks).do([1]), PartialModel.fit(walks).expectimax().value
    (0.25, 0.25)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.agent import AgentError

ENDED = -1  # the action of steps after an episode's end


@dataclass(frozen=True, eq=False)
class Walks:
    """Logged episodes from one first state, padded to the longest.

    Attributes:
        action: the executed actions, int [E, T], -1 after an episode's end.
        reward: [E, T].
        backdoor: z of each decision, int [E, T]; None where nothing was recorded.

    Raises:
        AgentError: for arrays of different shapes, no episode, an action after an episode's end, or a reward that is
            not finite.
    """

    action: NDArray[np.int64]
    reward: NDArray[np.float64]
    backdoor: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.action)
        if len(shape) != 2 or 0 in shape:
            raise AgentError(f"action: got shape {shape}; wanted [episodes, steps], at least one of each")
        for name in ("reward", "backdoor"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise AgentError(f"{name}: got shape {np.shape(value)}; wanted {shape}, as action")
        ended = np.asarray(self.action) == ENDED
        if (ended[:, :-1] & ~ended[:, 1:]).any() or ended[:, 0].any():
            first = int((ended[:, 0] | (ended[:, :-1] & ~ended[:, 1:]).any(1)).argmax())
            raise AgentError(f"action: episode {first} has an action after its end, or none; wanted -1 only at the end")
        bad = ~np.isfinite(np.where(ended, 0.0, self.reward))
        if bad.any():
            episode, step = np.argwhere(bad)[0]
            raise AgentError(f"reward: got {self.reward[episode, step]} in episode {episode}, step {step}; "
                             "wanted finite numbers")  # fmt: skip

    def pick(self, episodes: NDArray[np.int64]) -> Walks:
        """Some episodes, which may repeat."""
        z = None if self.backdoor is None else self.backdoor[episodes]
        return Walks(self.action[episodes], self.reward[episodes], z)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows a decision: its mean reward, the probability that the episode goes on, and how it does.

    Attributes:
        reward: mean immediate reward.
        goes_on: fraction of the logged episodes that had another step, 0..1.
        count: number of logged decisions.
        after: the model of the next step; None where no episode went on.
    """

    reward: float
    goes_on: float
    count: int
    after: PartialModel | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of expectimax.

    Attributes:
        action: the best first action.
        value: its expected return.
        values: expected return of each first action that was logged.
    """

    action: int
    value: float
    values: dict[int, float]


@dataclass(frozen=True, slots=True)
class PartialModel:
    """The tables of one history: p(z), and the outcome of each (z, a).

    Attributes:
        probability: p(z | h) by z; {0: 1.0} without a backdoor variable.
        outcomes: by (z, a), those that were logged.
    """

    probability: dict[int, float]
    outcomes: dict[tuple[int, int], Outcome]

    @classmethod
    def fit(cls, walks: Walks, *, corrected: bool = True) -> PartialModel:
        """Means over logged episodes.

        Args:
            walks: the episodes.
            corrected: whether to condition on the backdoor variable; without, the model is the confounded one.

        Raises:
            AgentError: if the correction is asked for and no backdoor variable was recorded.
        """
        if corrected and walks.backdoor is None:
            raise AgentError("backdoor: got None; wanted the variable z of each decision, or corrected=False")
        z = walks.backdoor if corrected else np.zeros_like(walks.action)
        assert z is not None
        return _fit(np.asarray(walks.action), np.asarray(walks.reward, float), np.asarray(z), 0)

    def do(self, actions: Sequence[int], discount: float = 1.0) -> float:
        """The expected return of a fixed sequence of actions, whatever z: the backdoor adjustment.

        Args:
            actions: one per step; an episode may end before the last.
            discount: gamma.

        Returns:
            NaN where the sequence needs a pair (z, a) that was never logged.
        """
        total = 0.0
        for z, p in self.probability.items():
            found = self.outcomes.get((z, int(actions[0])))
            if found is None:
                return float("nan")
            total += p * found.reward
            if found.after is not None and len(actions) > 1:
                total += p * discount * found.goes_on * found.after.do(actions[1:], discount)
        return total

    def expectimax(self, discount: float = 1.0) -> Plan:
        """The best first action, if every later action may depend on its z.

        Args:
            discount: gamma.
        """
        values: dict[int, float] = {}
        for action in sorted({a for _, a in self.outcomes}):
            logged = {z: p for z, p in self.probability.items() if (z, action) in self.outcomes}
            worth = sum(p * self._worth(z, action, discount) for z, p in logged.items())
            values[action] = worth / sum(logged.values())
        best = max(values, key=values.__getitem__)
        return Plan(best, values[best], values)

    def best(self, z: int, discount: float = 1.0) -> int:
        """The best logged action given z.

        Args:
            z: a value that was logged.
            discount: gamma.
        """
        logged = sorted(a for k, a in self.outcomes if k == z)
        return max(logged, key=lambda action: self._worth(z, action, discount))

    def _worth(self, z: int, action: int, discount: float) -> float:
        """Q(h, z, a)."""
        found = self.outcomes[z, action]
        later = 0.0
        if found.after is not None:
            after = found.after
            later = sum(p * after._worth(k, after.best(k, discount), discount) for k, p in after.probability.items())
        return found.reward + discount * found.goes_on * later


def _fit(action: NDArray[np.int64], reward: NDArray[np.float64], z: NDArray[np.int64], step: int) -> PartialModel:
    """The tables of step ``step`` of some episodes, all of which have it, and of the steps after it."""
    probability: dict[int, float] = {}
    outcomes: dict[tuple[int, int], Outcome] = {}
    for value, count in zip(*np.unique(z[:, step], return_counts=True), strict=True):
        probability[int(value)] = int(count) / len(z)
        for chosen in np.unique(action[z[:, step] == value, step]):
            rows = (z[:, step] == value) & (action[:, step] == chosen)
            on = rows & (action[:, step + 1] != ENDED) if step + 1 < action.shape[1] else np.zeros_like(rows)
            outcomes[int(value), int(chosen)] = Outcome(
                reward=float(reward[rows, step].mean()),
                goes_on=float(on.sum() / rows.sum()),
                count=int(rows.sum()),
                after=_fit(action[on], reward[on], z[on], step + 1) if on.any() else None,
            )
    return PartialModel(probability, outcomes)
