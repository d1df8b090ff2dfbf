"""Best-response policy iteration: self-play in which every seat plays its sampled best response to past policies.

Anthony et al., "Learning to Play No-Press Diplomacy with Best Response Policy Iteration" (2020), section 3. Each round,
games are played in which every seat plays by sampled best response
(:mod:`~mlbits.agents.best_response.sampled_best_response`); the policy imitates the answers and the value predicts the
outcomes (:mod:`~mlbits.agents.best_response.learner`).

| agent | base profiles are drawn from | candidates from | imitated are |
|---|---|---|---|
| ``ibr`` | the latest policy | the latest | the latest rounds |
| ``fppi1`` | the latest, an average of the past | the initial and the latest | all rounds in the buffer |
| ``fppi2`` | for each profile a past round's, drawn uniformly | the initial and the latest | the latest rounds |

IBR can cycle, as in rock-paper-scissors. In FPPI-1 the policy stands for the average of the past, as in fictitious
play; in FPPI-2 the frozen policies do, and the policy is the latest best response. Half of the candidates come from the
initial policy: of the latest alone, actions that once disappear never come back.

Differs from the paper in that the network is trained on while a round is played, instead of from scratch after it;
sample sizes are ours, because the paper's for training are not known to us.

Example:
    mlbits train fppi2 mlbits/DiplomacyMini-v0
"""

from __future__ import annotations

from typing import Literal

import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.learner import Chosen, SearchLearner, SearchLearnerConfig
from mlbits.agents.best_response.leaves import leaf_of
from mlbits.agents.best_response.policies import OneOfThePast, Profiles, SamePolicy
from mlbits.agents.best_response.sampled_best_response import SampledBestResponse
from mlbits.agents.best_response.transitions import Table
from mlbits.envs.core.config_fields import configuration, setting


@configuration(AgentError)
class IBRConfig(SearchLearnerConfig):
    """Settings of iterated best response."""

    base: Literal["latest", "past"] = setting(
        "latest", "whose play the base profiles are: the latest policy's, or each a past round's, drawn uniformly"
    )
    candidates: Literal["latest", "initial_latest"] = setting(
        "latest", "whose actions the candidates are: the latest policy's, or half of them the initial policy's"
    )
    profiles: int = setting(8, "base profiles, B", low=1, high=1e5)
    num_candidates: int = setting(16, "candidates, C", low=2, high=1e5)
    play_profiles: int = setting(16, "base profiles outside training", low=1, high=1e5)
    play_candidates: int = setting(24, "candidates outside training, all of the latest policy", low=1, high=1e5)


@configuration(AgentError)
class FPPI1Config(IBRConfig):
    """Settings of the first fictitious play policy iteration."""

    candidates: Literal["latest", "initial_latest"] = "initial_latest"
    buffer_size: int = 200_000


@configuration(AgentError)
class FPPI2Config(IBRConfig):
    """Settings of the second fictitious play policy iteration."""

    base: Literal["latest", "past"] = "past"
    candidates: Literal["latest", "initial_latest"] = "initial_latest"


class PolicyIteration(SearchLearner):
    """IBR, FPPI-1 or FPPI-2, by its config; see :class:`~mlbits.agents.best_response.learner.SearchLearner`."""

    config: IBRConfig

    def search(self, table: Table, generator: torch.Generator, *, explore: bool, greedy: bool) -> Chosen:
        """Every seat's sampled best response; outside training (not ``explore``) a better one."""
        found = self._search(explore)(table, generator)
        return Chosen(found.action, found.action.unsqueeze(2), found.value, found.value)

    def _search(self, training: bool) -> SampledBestResponse:
        config, latest = self.config, self.policy(self.latest)
        base: Profiles = SamePolicy(latest)
        if config.base == "past":
            base = OneOfThePast([self.policy(frozen) for frozen in self.past])
        profiles, count = config.profiles, config.num_candidates
        candidates = [(latest, count)]
        if not training:
            profiles, candidates = config.play_profiles, [(latest, config.play_candidates)]
        elif config.candidates == "initial_latest":
            candidates = [(self.policy(self.past[0]), count // 2), (latest, count - count // 2)]
        found = SampledBestResponse(
            self.game, base, candidates, profiles=profiles, discount=config.discount, device=self.device,
            leaf=leaf_of(self, self.latest, config, self.game, self.device),
        )  # fmt: skip
        found.transitions = self.transitions
        return found
