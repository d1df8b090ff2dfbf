"""MAP-Elites: an archive of the best policy found for each kind of behaviour, a cell each.

Mouret and Clune, "Illuminating search spaces by mapping elites" (2015), figure 2, with the iso+line variation of
Vassiliades and Mouret, "Discovering the elite hypervolume by leveraging interspecies correlation" (2018), equation 1.
In an iteration n policies are played,

    x = x_i + sigma_iso N(0, I) + sigma_line (x_j - x_i) N(0, 1)

for elites x_i, x_j drawn uniformly from the occupied cells (the first n policies are sigma_0 N(0, I)). A policy's
behaviour is two entries of its last observation; it takes its cell if that is empty, or its return is higher than the
elite's there. The archive is a ``GridArchive`` of pyribs (``pip install "mlbits[diversity]"``), whose QD-score is the
sum over the cells of return - ``qd_offset``.

The agent acts as the best elite, of equal ones that in the first cell. Its members, for the run's ``members`` folder,
are the best elite of each of 3 x 3 parts of the archive.

Example:
    mlbits train map-elites mlbits/PointMass-v0 --agent.low -25 -25 --agent.high 25 25
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.population.policies import Policies
from mlbits.agents.population.spec import Outcomes, PopulationSpec
from mlbits.agents.population.stacked_mlp import Activation
from mlbits.envs.core.config_fields import configuration, setting

_PARTS = 3  # of each axis, for the members


@configuration(AgentError)
class MapElitesConfig:
    """Settings of MAP-Elites."""

    policies: int = setting(500, "policies played in an iteration", low=1, high=1e7)
    cells: tuple[int, ...] = setting(
        (100, 100), "cells of the archive along each of the two entries", low=1, high=10_000
    )
    entries: tuple[int, ...] = setting((0, 1), "entries of the last observation that tell behaviours apart", low=0)
    low: tuple[float, ...] = setting((), "lowest values of these entries in the archive; () for the space's bounds")
    high: tuple[float, ...] = setting((), "highest values of these entries in the archive; () for the space's bounds")
    qd_offset: float = setting(0.0, "return that adds nothing to the QD-score, about the lowest there is")
    initial_sigma: float = setting(0.5, "standard deviation of the first policies' weights", low=1e-9, high=100)
    iso_sigma: float = setting(0.05, "standard deviation of a new policy's own difference", low=0, high=100)
    line_sigma: float = setting(
        0.2, "standard deviation of the step along the line between two elites", low=0, high=100
    )
    episodes: int = setting(1, "episodes of each policy", low=1, high=1e6)
    max_episode_steps: int = setting(
        1000, "steps after which an episode is cut, where the environment has no time limit", low=1, high=1e9
    )
    hidden: tuple[int, ...] = setting((16, 16), "widths of the hidden layers of a policy", low=1)
    activation: Activation = setting("tanh", "activation of the hidden layers")

    def check(self) -> None:
        """Reject archives that are not of two entries."""
        for name in ("cells", "entries", "low", "high"):
            given = getattr(self, name)
            if len(given) != 2 and (given or name in ("cells", "entries")):
                raise AgentError(f"{name}: got {given}; wanted two numbers, one for each entry")
        if self.low and self.high and not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise AgentError(f"low, high: got {self.low} and {self.high}; wanted low < high")

    @property
    def num_envs(self) -> int:
        """Copies that an iteration is played in: one for each episode."""
        return self.policies * self.episodes


class MapElites:
    """MAP-Elites over policies for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's, without images.
        action_space: one seat's; continuous actions have bounds.
        seed: not used: policies are drawn from the run's generator.
        device: where policies play.

    Attributes:
        policies: the form of its policies.
        archive: the elites, a ``ribs.archives.GridArchive``.
        returns: of the members, float64 [M].

    Raises:
        AgentError: for images, continuous actions without bounds, entries that the observation does not have or whose
            range is unknown, or where pyribs is not installed.
    """

    def __init__(
        self,
        config: MapElitesConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.policies = Policies(observation_space, action_space, config.hidden, config.activation)
        self._ranges = _ranges(config, observation_space, self.policies.mlp.widths[0])
        self.archive = self._empty()
        self._places = np.zeros((int(np.prod(config.cells)), 2))  # measures of each cell's elite
        self._occupied = np.zeros(0, np.int64)  # numbers of the cells with an elite, ascending
        self._best_cell, self._qd_score = 0, 0.0
        self._asked: Tensor | None = None

    def _empty(self) -> Any:
        try:
            from ribs.archives import GridArchive
        except ImportError:
            raise AgentError('map-elites: needs pyribs; wanted pip install "mlbits[diversity]"') from None
        config = self.config
        return GridArchive(
            solution_dim=self.policies.size, dims=config.cells, ranges=self._ranges, qd_score_offset=config.qd_offset,
            solution_dtype=np.float32, objective_dtype=np.float64, measures_dtype=np.float64, seed=0,
        )  # fmt: skip

    @property
    def experience(self) -> PopulationSpec:
        """Episodes of each new policy."""
        config = self.config
        return PopulationSpec(config.policies, config.episodes, config.max_episode_steps, 0, config.policies)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for R rows of observations as the best elite does; ``greedy`` makes no difference."""
        action = self.policies.decide(self._best_weights, obs, legal_mask)
        return Decision(action, action, None)

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """The best elite's pi(a|s), which is 1 for one action, float64 [R, A]."""
        return self.policies.action_probabilities(self._best_weights, obs, legal_mask)

    @property
    def _best_weights(self) -> Tensor:
        """The best elite's weights [1, D]; zeros while there is none."""
        if not len(self._occupied):
            return torch.zeros(1, self.policies.size, device=self.device)
        weights = self.archive.retrieve_single(self._places[self._best_cell])[1]["solution"]
        return torch.from_numpy(np.array(weights))[None].to(self.device)

    def ask(self, generator: torch.Generator) -> Tensor:
        """The weights of n new policies, [n, D]."""
        config, where = self.config, generator.device
        shape = (config.policies, self.policies.size)
        noise = torch.randn(shape, generator=generator, device=where)
        if not len(self._occupied):
            self._asked = config.initial_sigma * noise
            return self._asked
        drawn = torch.randint(len(self._occupied), (2 * config.policies,), generator=generator, device=where).cpu()
        elites = self.archive.retrieve(self._places[self._occupied[drawn.numpy()]])[1]["solution"]
        first, second = torch.from_numpy(elites).to(where).split(config.policies)
        along = torch.randn(config.policies, 1, generator=generator, device=where)
        self._asked = first + config.iso_sigma * noise + config.line_sigma * along * (second - first)
        return self._asked

    def learn(self, outcomes: Outcomes, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Let each policy take its cell, if it is better than the elite there.

        Args:
            outcomes: of the policies that :meth:`ask` gave.
            progress: not used.
            generator: not used.

        Returns:
            The QD-score, the fraction of cells with an elite (coverage), the number of elites, the best return, and how
            many of the policies took a cell.
        """
        if self._asked is None:
            raise AgentError("outcomes: got some before ask(); wanted those of the policies that it gave")
        measures = outcomes.final[:, list(self.config.entries)].double().cpu().numpy()
        taken = self._add(self._asked.cpu().numpy(), outcomes.returns.cpu().numpy(), measures)
        self._asked = None
        stats = self.archive.stats
        return {
            "qd_score": self._qd_score, "coverage": float(stats.coverage), "elites": int(stats.num_elites),
            "best_return": float(stats.obj_max), "taken": taken,
        }  # fmt: skip

    def _add(self, weights: NDArray[Any], returns: NDArray[Any], measures: NDArray[Any]) -> int:
        """Add policies to the archive; returns how many took a cell."""
        taken = self.archive.add(weights, returns, measures)["status"] > 0
        cells = self.archive.index_of(measures[taken])
        self._places[cells] = measures[taken]  # any place within the cell finds its elite
        self._occupied = np.union1d(self._occupied, cells).astype(np.int64)
        # The archive's own best elite and QD-score depend on the order in which it was filled, of equal returns and in
        # the last digit. These do not, so that a restored archive goes on with the same.
        data = self.archive.data(["index", "objective"])
        order = np.argsort(data["index"])
        values = data["objective"][order]
        self._best_cell = int(data["index"][order[values.argmax()]])
        self._qd_score = float((values - self.config.qd_offset).sum())
        return len(np.unique(cells))

    def elites(self) -> dict[str, NDArray[Any]]:
        """The elites in the order of their cells: index [E], solution [E, D], objective [E], measures [E, 2]."""
        data = self.archive.data(["index", "solution", "objective", "measures"])
        order = np.argsort(data["index"])
        return {name: np.asarray(values)[order] for name, values in data.items()}

    def heat_map(self) -> NDArray[np.float64]:
        """The elites' returns by cell, [cells along the first entry, along the second]; NaN where there is none."""
        values = np.full(int(np.prod(self.config.cells)), np.nan)
        data = self.archive.data(["index", "objective"])
        values[data["index"]] = data["objective"]
        return values.reshape(self.config.cells)

    def _members(self) -> tuple[Tensor, NDArray[np.float64], NDArray[np.int64]]:
        """Weights [M, D], returns [M] and cells [M] of the best elite of each part of the archive."""
        data = self.elites()
        if not len(data["index"]):
            return torch.zeros(1, self.policies.size), np.zeros(1), np.zeros(1, np.int64)
        grid = np.stack(np.unravel_index(data["index"], self.config.cells), 1)
        part = (grid * _PARTS // np.array(self.config.cells)) @ np.array([_PARTS, 1])
        best = [max(np.flatnonzero(part == k), key=lambda row: data["objective"][row]) for k in np.unique(part)]
        return torch.from_numpy(data["solution"][best]), data["objective"][best], data["index"][best]

    @property
    def returns(self) -> Tensor:
        """The members' returns when played, float64 [M]."""
        return torch.from_numpy(self._members()[1])

    @property
    def best(self) -> int:
        """Number of the member that is the best elite."""
        return int(np.flatnonzero(self._members()[2] == self._best_cell)[0])

    def member_weights(self) -> Tensor:
        """The weights of the members, [M, D]."""
        return self._members()[0]

    def state_dict(self) -> dict[str, Tensor]:
        """The elites: weights, returns and behaviours, in the order of their cells."""
        data = self.elites()
        return {name: torch.from_numpy(data[name].copy()) for name in ("solution", "objective", "measures")}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if it is of other shapes.
        """
        solution, objective, measures = (state[name].cpu().numpy() for name in ("solution", "objective", "measures"))
        if solution.ndim != 2 or solution.shape[1] != self.policies.size:
            raise AgentError(f"solution: got {solution.shape}; wanted [elites, {self.policies.size}]")
        if objective.shape != solution.shape[:1] or measures.shape != (len(solution), 2):
            raise AgentError(f"objective and measures: got {objective.shape} and {measures.shape}; wanted one an elite")
        self.archive, self._occupied, self._qd_score = self._empty(), np.zeros(0, np.int64), 0.0
        if len(solution):
            self._add(solution, objective, measures)


def _ranges(config: MapElitesConfig, space: gym.Space[Any], width: int) -> list[tuple[float, float]]:
    """The archive's range along each entry."""
    found = []
    for k, entry in enumerate(config.entries):
        if entry >= width:
            raise AgentError(f"entries: got {entry}; wanted entries of the observation, 0 to {width - 1}")
        bounds = []
        for name in ("low", "high"):
            given, of_space = getattr(config, name), getattr(space, name, None)
            value = given[k] if given else None if of_space is None else float(np.ravel(of_space)[entry])
            if value is None or not np.isfinite(value):
                raise AgentError(f"{name}: missing; wanted numbers, as entry {entry} of the observation has no bound")
            bounds.append(value)
        if not bounds[0] < bounds[1]:
            raise AgentError(f"low, high: got {bounds[0]:g} and {bounds[1]:g}; wanted low < high")
        found.append((bounds[0], bounds[1]))
    return found
