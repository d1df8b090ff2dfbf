"""The discovered rule: from windows and the predictions of two networks, what these predictions should become.

Oh et al., "Discovering state-of-the-art reinforcement learning algorithms" (Nature 2025), as in the reference
google-deepmind/disco_rl. For every step the rule reads 27 numbers: probabilities of the action taken under the policy,
the behaviour and the target network; the reward; whether the episode goes on; V here and next; the advantage, plain
and normalised; numbers made of y and z, here and next, of both networks; and what is made of all actions, on average
and for the one taken. An LSTM reads them backwards, set back at the ends of episodes, and its output is gated by a
second LSTM that takes one step per update and so sees the agent's lifetime. Three heads give the targets of the policy,
y and z.

    >>> from mlbits.agents.disco.rule_file import SHAPES
    >>> import torch
    >>> weights = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    >>> Rule(weights).new_lifetime("cpu").hidden.shape
    torch.Size([128])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mlbits.agents.disco.rule_file import LIFETIME

PREDICTION = 600  # values of the distributions y and z


class Predictions(NamedTuple):
    """What a network says about R rows of observations with A actions; all but its parameters are logits.

    Attributes:
        policy: [R, A].
        y: [R, 600].
        z: [R, A, 600].
        q: [R, A, 601].
        next_policy: what the policy will be after each action, [R, A, A].
    """

    policy: Tensor
    y: Tensor
    z: Tensor
    q: Tensor
    next_policy: Tensor


class Experience(NamedTuple):
    """B windows of T steps, and the numbers that the rule reads beside predictions.

    Rows are observations: T B of the steps (step after step), B after the last ones, and those at which a limit cut an
    episode.

    Attributes:
        following: the row that each step led to, int64 [T, B].
        action: int64 [T, B].
        reward: [T, B].
        terminated: bool [T, B].
        ended: terminated or cut, bool [T, B].
        behaviour: logits of the policy that played, [T, B, A].
        value: V of all rows, [R].
        advantage: of the actions taken, [T, B].
        normalised: the same, normalised, [T, B].
        q: action values by the target network, [T, B, A].
        q_advantage: these minus V, [T, B, A].
        q_normalised: the same, normalised, [T, B, A].
    """

    following: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    ended: Tensor
    behaviour: Tensor
    value: Tensor
    advantage: Tensor
    normalised: Tensor
    q: Tensor
    q_advantage: Tensor
    q_normalised: Tensor


class Targets(NamedTuple):
    """What the rule wants predictions to become, all as logits.

    Attributes:
        policy: [T, B, A].
        y: [T, B, 600].
        z: of the action taken, [T, B, 600].
    """

    policy: Tensor
    y: Tensor
    z: Tensor


class Memory(NamedTuple):
    """The state of an LSTM, [..., width] each."""

    hidden: Tensor
    cell: Tensor


def lstm(gates: Tensor, cell: Tensor) -> Memory:
    """One step of an LSTM.

    Args:
        gates: inputs of the gates, [..., 4 width]: enter, candidate, forget, leave; 1 is added to forget.
        cell: the memory before, [..., width].
    """
    enter, candidate, forget, leave = gates.chunk(4, -1)
    cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    return Memory(torch.sigmoid(leave) * torch.tanh(cell), cell)


def signed_log(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), of any shape."""
    return x.sign() * x.abs().log1p()


def of_action(table: Tensor, action: Tensor) -> Tensor:
    """Entries [...] or [..., K] of a table [..., A] or [..., A, K] at actions [...]."""
    index = action[..., None]
    if table.dim() == action.dim() + 1:
        return table.gather(-1, index).squeeze(-1)
    return table.gather(-2, index[..., None].expand(*index.shape, table.shape[-1])).squeeze(-2)


class Rule:
    """A rule, from the arrays of its file (:func:`~mlbits.agents.disco.rule_file.read_rule`).

    Args:
        weights: by their names in the file.
        device: where they are kept.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        # A convolution of one action at a time is a product with its one matrix.
        self._weights = {name: value.to(device).view(value.shape[-2:] if value.dim() == 3 else value.shape)
                         for name, value in weights.items()}  # fmt: skip

    @staticmethod
    def new_lifetime(device: torch.device | str) -> Memory:
        """The lifetime's memory before the first update."""
        return Memory(torch.zeros(128, device=device), torch.zeros(128, device=device))

    @torch.no_grad()
    def __call__(
        self, seen: Experience, online: Predictions, target: Predictions, lifetime: Memory
    ) -> tuple[Targets, Memory]:
        """The targets of all steps, and the lifetime's memory after this update.

        Args:
            seen: the windows.
            online: the agent's network at all rows.
            target: its target network.
            lifetime: the memory from the update before.
        """
        chances = [torch.softmax(part, -1) for part in (online.y, online.z, target.y, target.z)]
        inputs, actions = self._inputs("lstm", seen, online, target, chances)
        hidden = self._backwards(inputs, seen.ended) * self._linear("lstm/linear", lifetime.hidden)
        summary = self._linear("lstm/linear_1", hidden)  # for the lifetime
        y, z = self._linear("lstm/linear_2", hidden), self._linear("lstm/linear_3", hidden)
        count = actions.shape[2]
        each = torch.cat([hidden[:, :, None].expand(-1, -1, count, -1), actions], -1)
        policy = self._linear("lstm/linear_4", self._over_actions("lstm/sequential_1/conv1_d", each)).squeeze(-1)

        inputs, _ = self._inputs(LIFETIME, seen, online, target, chances)
        read = torch.cat([inputs, summary, self._embedded(f"{LIFETIME}/mlp", torch.softmax(y, -1))], -1)
        mean = self._linear(f"{LIFETIME}/mlp_2/~/linear_0", read).mean((0, 1))
        gates = self._linear(f"{LIFETIME}/lstm/linear", torch.cat([mean, lifetime.hidden]))
        return Targets(policy, y, z), lstm(gates, lifetime.cell)

    def _inputs(
        self, net: str, seen: Experience, online: Predictions, target: Predictions, chances: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The 27 numbers of each step [T, B, 27], and two of each action [T, B, A, 2].

        Each of the two LSTMs has embeddings of its own, under the name ``net``.
        """
        steps, copies = seen.action.shape

        def now(rows: Tensor) -> Tensor:
            return rows[: steps * copies].view(steps, copies, *rows.shape[1:])

        def here_and_next(rows: Tensor) -> list[Tensor]:
            return [now(rows)[..., None], rows[seen.following][..., None]]

        policy = torch.softmax(online.policy, -1)
        pi, mu, old_pi = now(policy), torch.softmax(seen.behaviour, -1), now(torch.softmax(target.policy, -1))
        y, z, old_y, old_z = (
            self._embedded(f"{net}/{'mlp' if part.dim() == 2 else 'mlp_1'}", part).squeeze(-1) for part in chances
        )
        channels = torch.stack(
            [
                pi, mu, old_pi, now(z), now(old_z), signed_log(seen.q), signed_log(seen.q_advantage),
                seen.q_normalised, torch.nn.functional.one_hot(seen.action, pi.shape[-1]).to(pi.dtype),
            ], -1,
        )  # fmt: skip
        actions = self._over_actions(f"{net}/sequential/conv1_d", channels)
        actions = self._over_actions(f"{net}/sequential/conv1_d_1", actions)

        def taken(table: Tensor) -> Tensor:
            return of_action(table, seen.action)[..., None]

        inputs = [
            taken(pi), taken(mu), signed_log(seen.reward)[..., None], (~seen.terminated).to(pi.dtype)[..., None],
            *here_and_next(signed_log(seen.value)), signed_log(seen.advantage)[..., None], seen.normalised[..., None],
            taken(old_pi), *here_and_next(y), *here_and_next(old_y),
        ]  # fmt: skip
        for rows in (z, old_z):  # of the action taken, the policy's mean, the largest
            inputs += [taken(now(rows)), *here_and_next((policy * rows).sum(-1)), *here_and_next(rows.amax(-1))]
        return torch.cat([*inputs, actions.mean(2), of_action(actions, seen.action)], -1), actions

    def _backwards(self, inputs: Tensor, ended: Tensor) -> Tensor:
        """The outputs [T, B, 256] of the LSTM that reads from the last step to the first, and forgets at ends."""
        weight = self._weights["lstm/lstm/linear/w"]
        width = inputs.shape[-1]
        entering = inputs @ weight[:width] + self._weights["lstm/lstm/linear/b"]
        outputs = inputs.new_empty(*inputs.shape[:2], len(weight) - width)
        memory = Memory(torch.zeros_like(outputs[0]), torch.zeros_like(outputs[0]))
        for t in reversed(range(len(inputs))):
            goes_on = (~ended[t]).to(inputs.dtype)[:, None]
            memory = lstm(entering[t] + (memory.hidden * goes_on) @ weight[width:], memory.cell * goes_on)
            outputs[t] = memory.hidden
        return outputs

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self._weights[f"{name}/w"] + self._weights[f"{name}/b"]

    def _embedded(self, name: str, chances: Tensor) -> Tensor:
        """A number [..., 1] made of distributions [..., 600]."""
        return self._linear(f"{name}/~/linear_1", torch.relu(self._linear(f"{name}/~/linear_0", chances)))

    def _over_actions(self, name: str, x: Tensor) -> Tensor:
        """A layer for each action [T, B, A, C], which sees the mean over all actions too."""
        mean = x.mean(2, keepdim=True).expand_as(x)
        return torch.relu(self._linear(name, torch.cat([x, mean], -1)))
