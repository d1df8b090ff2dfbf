"""Latent world models: how badly a network with memory predicts the code of the next observation.

Ermolov and Sebe, "Latent world models for intrinsically motivated exploration" (2020). An encoder is learned from pairs
of observations one or two steps apart (``whitening``); a recurrent network predicts the next code from the code, the
action and what it remembers, and its mean squared error is the bonus. Weights hold what is known of all episodes, the
memory what was seen in this one: in a maze that is new each time, only ways that the memory cannot know surprise.

What is published, and where it is here: a linear layer of 128 (32) and a GRU of 256 (32) under the prediction of 32
(16) codes; the hidden state starts anew with each episode in Atari, and goes on in the labyrinth (``bonus_reset``);
observations that are bits or indices (the labyrinth) are not encoded: the prediction is then a probability for each
bit. Bonuses are standardised by recent moments and clipped (``explorer``).
Differences: an image is rolled by up to a twentieth of its side (4 of 84 pixels); it learns from each step once (the
paper from a replay buffer), as soon as enough steps of all copies have been played, so that a replay buffer of the
agent's keeps the bonus of the time of play.

Example:
    mlbits train ppo mlbits/Labyrinth-v0 --agent.bonus lwm --agent.memory gru --agent.no-bonus-reset
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError, load_weights, prefixed, rows, unprefixed
from mlbits.agents.exploration.bonus import MAX_GRAD_NORM, Embedding, Inputs, joined
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import ActionCode, Steps
from mlbits.agents.exploration.whitening import w_mse
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.features import observation_kind
from mlbits.agents.networks.initial_weights import orthogonal
from mlbits.agents.networks.recurrent import Memory
from mlbits.envs.core.errors import GameError

LENGTH = 32  # steps through which gradients flow back
PAIRS = 256  # of one step of the encoder, at most
MOST_BITS = 4096  # of observations that are predicted as they are
MEMORY = 32


class LatentWorldModel:
    """The encoder and the predictor.

    Args:
        settings: widths, learning rate, passes, and whether it forgets.
        observation_space: one seat's: a vector, an image, bits or indices.
        action_space: one seat's.
        generator: of the initial weights.
        device: of the networks.

    Attributes:
        hidden: what it remembers of each stream, [S, H]; None at first.

    Raises:
        AgentError: for a Dict, or indices with too many values.
    """

    in_order, normalize = True, "standard"

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        self._settings, self._code, self._space = settings, ActionCode(action_space), observation_space
        self._device, kind = torch.device(device), observation_kind(observation_space)
        self._bits = 0  # of observations that are predicted as they are
        if kind == "dict":
            raise AgentError(f"bonus: got 'lwm' with the observation space {observation_space}; wanted indices, a "
                             "vector or an image, or bonus 'rnd' or 'icm'")  # fmt: skip
        if kind in ("index", "indices"):
            self._bits = _bits_of(observation_space)
            if self._bits > MOST_BITS:
                raise AgentError(f"bonus: got 'lwm' with indices of {self._bits:,} values in all; wanted at most "
                                 f"{MOST_BITS:,}, or bonus 'count'")  # fmt: skip
        width = self._bits or settings.bonus_features
        self.encoder = None
        if not self._bits:
            self.encoder = Embedding(observation_space, settings.bonus_hidden, width, generator).to(device)
            self.encoder_optimizer = FlatAdam(self.encoder.parameters(), settings.bonus_learning_rate, MAX_GRAD_NORM)
        self.predictor = _Predictor(width, self._code.width, settings.bonus_hidden[-1], generator).to(device)
        self.optimizer = FlatAdam(self.predictor.parameters(), settings.bonus_learning_rate, MAX_GRAD_NORM)
        self.hidden: Tensor | None = None
        # Steps that it has not learned from yet, and what was remembered before each.
        self._waiting: list[tuple[Steps, Tensor]] = []

    def _codes(self, obs: Tensor) -> Tensor:
        """What is predicted of observations [N, ...], [N, d]."""
        if self.encoder is not None:
            return self.encoder(obs)
        if isinstance(self._space, spaces.MultiBinary):
            return obs.flatten(1).float()
        if isinstance(self._space, spaces.Discrete):
            return F.one_hot(obs.flatten(), self._bits).float()
        parts = obs.flatten(1).long()
        every = [F.one_hot(parts[:, k], int(n)) for k, n in enumerate(self._space.nvec.reshape(-1))]  # type: ignore[attr-defined]
        return torch.cat(every, 1).float()

    def _inputs(self, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, codes of actions and next codes, all [T, S, d]."""
        assert steps.ended is not None
        lead = steps.ended.shape
        parts = (self._codes(rows(steps.obs, 2)), self._code.encode(rows(steps.action, 2)),
                 self._codes(rows(steps.next_obs, 2)))  # fmt: skip
        return tuple(part.view(*lead, -1) for part in parts)  # type: ignore[return-value]

    def _predictions(self, codes: Tensor, actions: Tensor, ended: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions [T, S, d], and what is remembered before each step and after the last, [T + 1, S, H]."""
        seen = self.predictor.inputs(torch.cat([codes, actions], -1).flatten(0, 1)).view(*ended.shape, -1)
        before, after = [hidden], []
        for t in range(len(ended)):
            hidden = self.predictor.memory.step(seen[t], hidden)
            after.append(hidden)
            if self._settings.bonus_reset:
                hidden = hidden.masked_fill(ended[t].unsqueeze(-1), 0.0)
            before.append(hidden)
        out = self.predictor.head([torch.stack(after).flatten(0, 1)]).view(*ended.shape, -1)
        return (torch.sigmoid(out) if self._bits else out), torch.stack(before)

    @torch.no_grad()
    def of_steps(self, steps: Steps) -> Tensor:
        """Errors of steps in order, which go on from the last ones, [T, S]; those of others' steps mean nothing."""
        if steps.ended is None:
            raise AgentError("bonus: got steps in no order with 'lwm', which remembers; wanted those played in order")
        codes, actions, following = self._inputs(steps)
        streams = steps.ended.shape[1]
        if self.hidden is None or len(self.hidden) != streams:
            self.hidden = torch.zeros(streams, MEMORY, device=self._device)
            self._waiting.clear()
        predicted, remembered = self._predictions(codes, actions, steps.ended, self.hidden)
        self.hidden = remembered[-1]
        self._waiting.append((steps, remembered[:-1]))
        return (predicted - following).square().mean(-1)

    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Learn from the steps seen, if there are enough; what is left waits for more."""
        losses: dict[str, Tensor] = {}
        kept = [*self._waiting[:-1], _copied(self._waiting[-1])]
        total, streams = sum(len(part.action) for part, _ in kept), steps.action.shape[1]
        length = max(LENGTH, math.ceil(PAIRS / streams))
        if total >= length:
            window, remembered = _together([part for part, _ in kept]), torch.cat([part for _, part in kept])
            used = total // length * length
            for start in range(0, used, length):
                part = slice(start, start + length)
                for _ in range(self._settings.bonus_epochs):
                    losses = self._learn_window(window.of(part), remembered[start], generator)
            kept = [(window.of(slice(used, None)), remembered[used:])] if used < total else []
        self._waiting = kept
        return losses

    def _learn_window(self, steps: Steps, hidden: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """A gradient step of the encoder, and one of the predictor."""
        assert steps.ended is not None
        losses: dict[str, Tensor] = {}
        if self.encoder is not None and (loss := self._encoder_loss(steps, generator)) is not None:
            self.encoder_optimizer.zero_grad()
            loss.backward()
            self.encoder_optimizer.step(measured=False)
            losses["bonus_encoder_loss"] = loss.detach()
        with torch.no_grad():
            codes, actions, following = self._inputs(steps)
        predicted, _ = self._predictions(codes, actions, steps.ended, hidden)
        error = (predicted - following).square().mean(-1)
        if steps.mine is not None:
            error = error * steps.mine
        loss = error.sum() / (error.numel() if steps.mine is None else steps.mine.sum().clamp(min=1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(measured=False)
        return losses | {"bonus_loss": loss.detach()}

    def _encoder_loss(self, steps: Steps, generator: torch.Generator) -> Tensor | None:
        """W-MSE of pairs of one episode, one or two steps apart; None if there are too few to whiten."""
        assert self.encoder is not None
        assert steps.ended is not None
        mine = torch.ones_like(steps.ended) if steps.mine is None else steps.mine
        later = torch.zeros_like(steps.ended)  # whether the step after it is of the same episode, and the learner's
        later[:-1] = mine[:-1] & mine[1:] & ~steps.ended[:-1]
        place = mine.flatten().nonzero().squeeze(1)
        order = torch.randperm(len(place), generator=generator, device=generator.device).to(place.device)
        first = place[order[:PAIRS]]
        if len(first) <= self._settings.bonus_features:
            return None
        two = torch.rand(len(first), generator=generator, device=generator.device).to(place.device) < 0.5
        second = first + steps.ended.shape[1] * (two & later.flatten()[first])
        obs, following = rows(steps.obs, 2), rows(steps.next_obs, 2)
        pair = (_rolled(part, self._space, generator) for part in (obs[first], following[second]))
        return w_mse(*(self.encoder(part) for part in pair))

    def _networks(self) -> dict[str, nn.Module]:
        return {"predictor": self.predictor} | ({} if self.encoder is None else {"encoder": self.encoder})

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, optimisers, what is remembered, and the steps that wait to be learned from."""
        state = prefixed("optimizer", self.optimizer.state_dict())
        for name, network in self._networks().items():
            state |= prefixed(name, network.state_dict())
        if self.encoder is not None:
            state |= prefixed("encoder_optimizer", self.encoder_optimizer.state_dict())
        if self.hidden is not None:
            state["hidden"] = self.hidden
        if self._waiting:
            steps, remembered = _together([part for part, _ in self._waiting]), [part for _, part in self._waiting]
            state |= {f"waiting.{name}": value for name, value in steps._asdict().items() if value is not None}
            state["waiting.remembered"] = torch.cat(remembered)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        load_weights(self._networks(), state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
        if self.encoder is not None:
            self.encoder_optimizer.load_state_dict(unprefixed("encoder_optimizer", state))
        placed = {name: value.to(self._device) for name, value in unprefixed("waiting", state).items()}
        self.hidden = state["hidden"].to(self._device, copy=True) if "hidden" in state else None
        remembered = placed.pop("remembered", None)
        self._waiting = [] if remembered is None else [(Steps(**placed), remembered)]


class _Predictor(nn.Module):
    """A linear layer over code and action, a GRU, and an MLP that predicts the next code."""

    def __init__(self, width: int, actions: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(orthogonal(width + actions, MEMORY, math.sqrt(2), generator))
        self.bias = nn.Parameter(torch.zeros(MEMORY))
        self.memory = Memory(Inputs(MEMORY), "gru", MEMORY, generator)
        self.head = joined(MEMORY, (hidden,), width, generator)

    def inputs(self, seen: Tensor) -> Tensor:
        """What the GRU's gates take of codes and actions [N, k], [N, 3 H]."""
        return self.memory.inputs([torch.relu(torch.addmm(self.bias, seen, self.weight))])


def _bits_of(space: gym.Space[Any]) -> int:
    """How many bits an observation has as one-hot codes."""
    if isinstance(space, spaces.MultiBinary):
        return math.prod(space.shape)
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    raise GameError(f"observation space: got {space}; wanted indices")


def _copied(waiting: tuple[Steps, Tensor]) -> tuple[Steps, Tensor]:
    """Steps that stay as they are when the next rollout is written over the batch's memory."""
    steps, remembered = waiting
    return Steps(**{name: part.clone() for name, part in steps._asdict().items() if part is not None}), remembered


def _together(parts: list[Steps]) -> Steps:
    """Parts of time after one another."""
    if len(parts) == 1:
        return parts[0]
    every = [part._asdict() for part in parts]
    return Steps(
        **{name: torch.cat([part[name] for part in every]) for name, one in every[0].items() if one is not None}
    )


def _rolled(obs: Tensor, space: gym.Space[Any], generator: torch.Generator) -> Tensor:
    """Images rolled by up to a twentieth of their sides, each by its own; vectors as they are."""
    if observation_kind(space) != "image":
        return obs
    sides = (1, 2) if obs.dim() == 3 or obs.shape[-1] in (1, 3, 4) else (2, 3)
    for axis in sides:
        side = obs.shape[axis]
        most = max(1, side // 20)
        shift = torch.randint(-most, most + 1, (len(obs), 1), generator=generator, device=generator.device)
        place = (torch.arange(side, device=obs.device) + shift.to(obs.device)) % side
        index = place.view(len(obs), *[side if k == axis else 1 for k in range(1, obs.dim())]).expand_as(obs)
        obs = obs.gather(axis, index)
    return obs
