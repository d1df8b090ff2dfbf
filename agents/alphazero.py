"""AlphaZero: self-play by tree search, from which a network learns the search's policy and the games' outcomes.

Silver et al., "A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play" (2018);
Danihelka et al., "Policy improvement by planning with Gumbel" (2022), for the search. With z the outcome for the seat
that moved (1 a win, 0 a draw, -1 a loss) and pi the search's improved policy, the network (p, v) minimises

    (z - v)^2 - pi . log p + weight decay                                                  (2018, equation 1)

(Kochenderfer, Wheeler and Wray, "Algorithms for Decision Making" (2022), and Kaplan give the same.) Differences:

* the search is Gumbel AlphaZero's by default (few simulations suffice), its policy target softmax(logits + sigma(Q));
* 0 to ``random_opening`` of a game's first moves, up to the last random one, are not learnt from; the first
  ``sampled_moves`` moves are drawn from the improved policy, so that games differ, the later ones are its best;
* z may be a lambda-return over the search's values from that position on (``trace``); truncated games go on from Q of
  the last move;
* a random symmetry of the board, if the game has any, is applied to every position that is learnt from;
* the network that plays is an average of those of the latest gradient steps (``average``), as in Leela Chess Zero;
* known wins and losses are backed up in the tree, and the target in a decided position is the best decided move.

Example:
    mlbits train alphazero mlbits/ConnectFour-v0
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import (
    AgentError,
    Decision,
    OutcomeSpec,
    Positions,
    load_weights,
    network_generator,
    pick,
    prefixed,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.memory.outcomes import OutcomeReplay, Outcomes
from mlbits.agents.networks.board import BoardNetwork
from mlbits.agents.search.search import Found, SearchConfig, TreeSearch, joined
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game
from mlbits.envs.core.schedules import Scheduled, value_at
from mlbits.envs.engine.processor import has_fast_bfloat16

_ROWS_A_PART = 32  # with fewer, a thread costs more than it saves


@configuration(AgentError)
class AlphaZeroConfig:
    """Settings of AlphaZero."""

    simulations: int = setting(32, "simulations a move (Danihelka et al.: 16 to 32 suffice)", low=1, high=1e6)
    method: Literal["gumbel", "puct"] = setting("gumbel", "tree search: gumbel, or AlphaZero's own puct")
    considered: int = setting(16, "gumbel: actions considered at the root", low=1, high=1e6)
    c_visit: float = setting(50.0, "gumbel: weight of Q beside a logit, (c_visit + most visits) * c_scale", low=0)
    c_scale: float = setting(0.1, "gumbel: see c_visit (mctx: 0.1 with rescaling; Danihelka et al.: 1 without)", low=0)
    c_init: float = setting(1.25, "puct: exploration (Silver et al. 2018)", low=0)
    rescale: bool = setting(True, "rescale Q in the tree to 0..1 by the range of a node's values (mctx, MuZero)")
    noise: float = setting(0.25, "puct: weight of Dirichlet noise at the root (Silver et al. 2018)", low=0, high=1)
    dirichlet: float = setting(0.3, "puct: alpha of that noise (Silver et al. 2018: chess 0.3, Go 0.03)", low=1e-6)
    solver: bool = setting(True, "back up proven outcomes; needs rewards 1, 0, -1 at the end only")
    look_ahead: bool = setting(
        False,
        "with the solver: try all moves of a new node, to see which end the game; self-play then has fewer mistakes",
    )
    parts: int = setting(2, "parts of the copies that are searched at the same time, each on a core", low=1, high=64)
    num_steps: int = setting(8, "moves of each copy between two rounds of learning", low=1, high=1e6)
    buffer_size: int = setting(300_000, "positions kept", low=2, high=1e9)
    learning_starts: int = setting(10_000, "positions of finished games before learning starts", low=0, high=1e9)
    replay_ratio: float = setting(4.0, "times that a position is learnt from, on average", low=1e-3, high=1e3)
    batch_size: int = setting(512, "positions per gradient step", low=1, high=1e6)
    learning_rate: Scheduled = setting(1e-3, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(True, "decay the learning rate, if it is a number, linearly to a tenth over the run")
    weight_decay: float = setting(1e-4, "L2 penalty (Silver et al. 2018: 1e-4)", low=0, high=1)
    average: float = setting(
        0.99,
        "decay, per gradient step, of the average of the weights that plays; 0 plays with the newest",
        low=0,
        high=0.99999,
    )
    value_coef: float = setting(1.0, "weight of the value loss", low=0, high=1e3)
    trace: float = setting(
        1.0, "lambda of the value target: outcomes alone (1), to the search's own value alone (0)", low=0, high=1
    )
    max_grad_norm: float = setting(1.0, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=1e9)
    sampled_moves: int = setting(30, "first moves of a game that are drawn from the policy (Silver et al.: 30)", low=0)
    random_opening: int = setting(2, "most random moves at the start of a game", low=0, high=1000)
    symmetries: bool = setting(True, "learn from positions under random symmetries of the board")
    discount: float = setting(1.0, "discount factor, per step", low=1e-6, high=1)
    network: Literal["auto", "dense", "conv"] = setting(
        "auto", "residual blocks: dense, or convolutions; auto takes dense on a CPU, conv on a GPU where it can"
    )
    width: int = setting(256, "units of a dense layer, or channels of a convolution", low=1, high=1e5)
    blocks: int = setting(3, "residual blocks of two layers", low=0, high=1000)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "of the network's blocks: auto takes bfloat16 where the processor computes in it"
    )

    def search(self, **changes: Any) -> SearchConfig:
        """The settings of its search."""
        names = (
            "method", "simulations", "considered", "c_visit", "c_scale", "c_init", "rescale", "dirichlet", "solver",
            "look_ahead", "discount",
        )  # fmt: skip
        same = {name: getattr(self, name) for name in names}
        noise = {"noise": 1.0 if self.method == "gumbel" else self.noise}
        return SearchConfig(**{**same, **noise, **changes})


class AlphaZero:
    """An AlphaZero agent.

    Args:
        config: settings.
        game: a game of mlbits' own with Discrete actions: one seat, or two that move in turn with opposite rewards.
        seed: seed of the initial weights.
        device: the network's device.

    Raises:
        AgentError: for another game.
    """

    def __init__(
        self, config: AlphaZeroConfig, game: Game, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.game, self.device = config, game, torch.device(device)
        self._searches = [TreeSearch(game, config.search(), self.device) for _ in range(config.parts)]
        self.num_actions = self._searches[0].num_actions
        space = game.observation_space
        planes = len(space.shape or ()) == 3
        kind = config.network
        if kind == "auto":
            kind = "conv" if planes and self.device.type == "cuda" else "dense"
        self.network = BoardNetwork(
            space, self.num_actions, kind=kind, width=config.width, blocks=config.blocks,
            generator=network_generator(seed),
        ).to(self.device)  # fmt: skip
        self._playing = copy.deepcopy(self.network) if config.average > 0 else self.network
        follower = self._playing.parameters() if config.average > 0 else ()
        self.optimizer = FlatAdam(
            self.network.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm, target=follower
        )
        self._fast = config.precision == "bfloat16" or (config.precision == "auto" and self._rounds())
        self._acting = self._playing.in_bfloat16() if self._fast else self._playing
        self._acting_since = 0
        self.symmetries = game.layout.get("symmetries") if config.symmetries and planes else None
        self._turns: tuple[Tensor, ...] = ()  # where cells and actions go in each symmetry, on the device
        if self.symmetries is not None:
            tables = (self.symmetries.cells, self.symmetries.actions)
            self._turns = tuple(torch.from_numpy(table).to(self.device) for table in tables)
        self.updates = 0
        self._last_plan: tuple[torch.Generator, bool, Tensor] | None = None

    def _rounds(self) -> bool:
        return self.device.type == "cuda" or has_fast_bfloat16()

    @property
    def experience(self) -> OutcomeSpec:
        """Positions with the outcomes of their games."""
        return OutcomeSpec(self.config.num_steps, self.config.buffer_size, self.config.discount, self.config.trace)

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose moves by search; ``greedy`` searches without noise and takes the best move.

        With puct, a search goes on in the last one's trees if it is of the same copies, with the same network.
        """
        index = positions.acts.nonzero().squeeze(-1)
        if not self._continues(generator, greedy, positions.copy[index]):
            for search in self._searches:
                search.forget()
        found = self._search(positions, index, generator, explore=not greedy)
        if greedy:
            return Decision(action := _placed(found.action, index, len(positions.acts)), action, None)
        chosen, random = self._explore(found, positions, index, generator)
        q = found.q.gather(1, chosen[:, None]).squeeze(1)
        tried = found.visits.gather(1, chosen[:, None]).squeeze(1) > 0
        notes = {
            "policy": found.policy.half(),
            "value": found.value,
            "q": torch.where(tried, q, found.value),
            "off_policy": random,
        }
        count = len(positions.acts)
        action = _placed(chosen, index, count)
        return Decision(action, action, None, {name: _placed(note, index, count) for name, note in notes.items()})

    def _continues(self, generator: torch.Generator, greedy: bool, copies: Tensor) -> bool:
        """Whether the last plan was for the same copies of the same play."""
        last, self._last_plan = self._last_plan, (generator, greedy, copies)
        return last is not None and last[0] is generator and last[1] == greedy and torch.equal(last[2], copies)

    def _search(self, positions: Positions, index: Tensor, generator: torch.Generator, *, explore: bool) -> Found:
        """Search the rows ``index``, in parts at the same time, whose number does not depend on the machine."""
        self._refresh()
        parts = index.chunk(self.config.parts) if len(index) >= _ROWS_A_PART * self.config.parts else (index,)
        seeds = torch.randint(2**62, (len(parts),), generator=generator, device=generator.device).tolist()

        def search(number: int) -> Found:
            part, own = parts[number], torch.Generator(index.device).manual_seed(seeds[number])
            return self._searches[number].run(
                positions.states[part], self.policy_and_value, own, params=positions.params_of(part), explore=explore,
                reuse=self.config.method == "puct",
            )  # fmt: skip

        for one in self._searches:
            one.prepare()  # not in two threads at once
        if len(parts) == 1 or self.device.type != "cpu":
            found = [search(number) for number in range(len(parts))]
        else:
            with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                found = list(pool.map(search, range(len(parts))))
        return joined(found)

    def _explore(
        self, found: Found, positions: Positions, index: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The moves of self-play, [n], and which of them are random ones of an opening."""
        config = self.config
        states = positions.states[index].cpu().numpy().view(self.game.state_dtype)[:, 0]
        elapsed = torch.from_numpy(states["elapsed"].astype(np.int64)).to(index.device)
        drawn = torch.multinomial(found.policy, 1, generator=generator).squeeze(1)
        chosen = torch.where(elapsed < config.sampled_moves, drawn, found.action)
        # The number of moves up to the last random one is then uniform on 0 to ``random_opening``.
        draw = torch.rand(len(index), generator=generator, device=index.device)
        random = draw < (elapsed < config.random_opening) / (elapsed + 2.0)
        legal = pick(positions.legal_mask, index) if positions.legal_mask is not None else None
        weights = torch.ones(len(index), self.num_actions, device=index.device) if legal is None else legal.float()
        return torch.where(random, torch.multinomial(weights, 1, generator=generator).squeeze(1), chosen), random

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows by the network alone."""
        probabilities = self.action_probabilities(obs, legal_mask, greedy=greedy)
        action = probabilities.argmax(-1) if greedy else torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        return Decision(action, action, None)

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """The network's policy, float64 [N, A]."""
        logits, _ = self.policy_and_value(obs, legal_mask)
        logits = logits.double() if legal_mask is None else logits.double().masked_fill(~legal_mask, -torch.inf)
        if greedy:
            return torch.nn.functional.one_hot(logits.argmax(-1), self.num_actions).double()
        return torch.softmax(logits, -1)

    @torch.inference_mode()
    def policy_and_value(self, obs: Any, legal_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [N, A] and values [N] of observations."""
        placed = (
            {key: part.to(self.device) for key, part in obs.items()} if isinstance(obs, dict) else obs.to(self.device)
        )
        self._refresh()
        logits, value = self._acting(placed)
        return logits.float(), value.float()

    @torch.inference_mode()
    def _refresh(self) -> None:
        """Bring the rounded copy of the network up to date."""
        if self._acting is not self._playing and self._acting_since != self.updates:
            for mine, learnt in zip(self._acting.parameters(), self._playing.parameters(), strict=True):
                mine.copy_(learnt)
            self._acting_since = self.updates

    def state_values(self, obs: Any, legal_mask: Tensor | None = None) -> Tensor:
        """Values of observations, [N]."""
        return self.policy_and_value(obs, legal_mask)[1]

    def learn(self, experience: OutcomeReplay, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Make the updates that are due.

        Args:
            experience: the replay buffer.
            progress: fraction of the run that is over, 0..1.
            generator: for sampling.

        Returns:
            Losses and gradient norm of the last update, learning rate and updates so far; empty before learning starts.
        """
        config = self.config
        self._last_plan = None  # trees hold what the network says; and a run that is resumed here has none
        if experience.added < max(1, config.learning_starts):
            return {}
        self.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr, left=0.1)
        due = int((experience.added - config.learning_starts) * config.replay_ratio / config.batch_size)
        metrics: dict[str, Any] = {}
        while self.updates < due:
            metrics = self._update(experience.sample(config.batch_size, generator), generator)
        numbers = {"learning_rate": self.optimizer.learning_rate, "updates": self.updates}
        return metrics | numbers if metrics else {}

    def _update(self, drawn: Outcomes, generator: torch.Generator) -> dict[str, Any]:
        """One gradient step."""
        config = self.config
        obs, mask, policy = drawn.obs, drawn.mask, drawn.notes["policy"].float()
        if self.symmetries is not None:
            obs, mask, policy = self._turned(obs, mask, policy, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._fast):
            logits, value = self.network(obs)
        if mask is not None:
            logits = logits.masked_fill(~mask, -1e9)
        log_policy = torch.log_softmax(logits, -1)
        policy_loss = -(policy * log_policy).sum(-1).mean()
        value_loss = (drawn.outcome - value).square().mean()
        self.optimizer.zero_grad()
        (policy_loss + config.value_coef * value_loss).backward()
        if config.weight_decay > 0:
            self.optimizer.vectors.grad.add_(self.optimizer.vectors.flat, alpha=2 * config.weight_decay)
        grad_norm = self.optimizer.step()
        self.updates += 1
        if config.average > 0:  # at first over fewer steps, or the initial weights would weigh too much
            self.optimizer.follow(max(1 - config.average, 1 / (self.updates + 1)))
        entropy = -torch.special.xlogy(policy, policy).sum(-1).mean()
        return {
            "policy_loss": policy_loss.detach(), "kl_to_search": policy_loss.detach() - entropy,
            "value_loss": value_loss.detach(), "target_entropy": entropy, "grad_norm": grad_norm,
        }  # fmt: skip

    def _turned(
        self, obs: Tensor, mask: Tensor | None, policy: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Positions under random symmetries of the board."""
        assert self.symmetries is not None
        g = torch.randint(len(self.symmetries), (len(obs),), generator=generator, device=generator.device)
        cells, actions = (part[g.to(part.device)] for part in self._turns)
        flat = obs.flatten(2)
        turned = flat.gather(2, cells[:, None, :].expand(-1, flat.shape[1], -1)).view_as(obs)
        return turned, None if mask is None else mask.gather(1, actions), policy.gather(1, actions)

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of weights, optimiser and the number of updates."""
        state = prefixed("network", self.network.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())
        if self.config.average > 0:
            state |= prefixed("average", self._playing.state_dict())
        state["updates"] = torch.tensor(self.updates)
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        networks = {"network": self.network} | ({"average": self._playing} if self.config.average > 0 else {})
        load_weights(networks, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
        self._last_plan = None
        self.updates, self._acting_since = int(state["updates"]), -1


def _placed(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Values [n, ...] at the rows ``index`` of zeros [count, ...]."""
    placed = values.new_zeros(count, *values.shape[1:])
    placed[index] = values
    return placed
