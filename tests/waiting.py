"""Games whose seats wait for their turns, and what each decision in them led to, by a slow look at all that is done."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from mlbits.agents.agent import Decision, RolloutSpec
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.engine.batch import GameBatch

SEATS, ACTIONS = 3, 4


def _text(state: Any, params: Any) -> str:
    return f"{state.elapsed}\n"


def _draw(state: Any, params: Any) -> Any:
    return np.zeros((8, 8, 3), np.uint8)


# Waits: any of three seats may act in a step, or none; every step has a number of its own, which all see.


@rule
def waits_reset(state, params):
    state.serial += 1
    for seat in range(SEATS):
        state.asked[seat] = uniform(state) < params.busy


@rule
def waits_step(state, params, actions, rewards):
    for seat in range(SEATS):
        rewards[seat] = randint(state, 9) - 4 + actions[seat] * state.asked[seat]
    waits_reset(state, params)
    return uniform(state) < params.end, uniform(state) < params.cut


@rule
def waits_step_continuous(state, params, actions, rewards):
    for seat in range(SEATS):
        rewards[seat] = randint(state, 9) - 4 + actions[seat, 0] * state.asked[seat]
    waits_reset(state, params)
    return uniform(state) < params.end, uniform(state) < params.cut


@rule
def waits_observe(state, params, seat, out):
    out[0] = state.serial
    out[1] = seat


@rule
def waits_acts(state, params, seat):
    return state.asked[seat] != 0


@rule
def waits_legal(state, params, seat, out):
    for action in range(ACTIONS):
        out[action] = (action + state.serial + seat) % 3 != 0


def waits(*, busy: float = 0.4, end: float = 0.1, cut: float = 0.1, actions: str = "masked") -> Game:
    """Three seats, each of which acts in a step with probability ``busy``; ends and cuts are drawn too.

    Actions are "masked", "discrete" (with a mask that says who may only pass) or "continuous" (without one).
    """
    continuous = actions == "continuous"
    fields = {"busy": busy, "end": end, "cut": cut}
    return Game(
        name="Waits",
        seats=SEATS,
        state_fields=[("serial", "i4"), ("asked", "i4", (SEATS,))],
        params=make_params([(name, "f8") for name in fields], fields),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(0, ACTIONS - 1, (1,), np.float32) if continuous else spaces.Discrete(ACTIONS),
        reset=waits_reset,
        step=waits_step_continuous if continuous else waits_step,
        observe=waits_observe,
        legal=waits_legal if actions == "masked" else None,
        acts=waits_acts,
        text=_text,
        draw=_draw,
    )


# Pulse: two seats in turn; a good move pays one to its seat a tick later, when the other moves. It never ends.


@rule
def pulse_reset(state, params):
    state.turn = 0
    state.good = 0


@rule
def pulse_step(state, params, actions, rewards):
    rewards[1 - state.turn] = params.pay * state.good
    state.good = actions[state.turn] == 1
    state.turn = 1 - state.turn
    return False, False


@rule
def pulse_observe(state, params, seat, out):
    out[0] = state.turn == seat if params.shown else 0


@rule
def pulse_acts(state, params, seat):
    return state.turn == seat


def pulse(*, pay: float = 1.0, shown: bool = True, horizon: int | None = None) -> Game:
    """Seats see whether it is their turn where it is ``shown``, else nothing."""
    fields = {"pay": pay, "shown": shown}
    return Game(
        name="Pulse",
        seats=2,
        state_fields=[("turn", "i4"), ("good", "i4")],
        params=make_params([(name, "f8") for name in fields], fields, horizon),
        observation_space=spaces.Discrete(2),
        action_space=spaces.Discrete(2),
        reset=pulse_reset,
        step=pulse_step,
        observe=pulse_observe,
        acts=pulse_acts,
        text=_text,
        draw=_draw,
    )


# Nim: players in turn take one to three of the stones, which are all that they see; who takes the last one wins.


@rule
def nim_reset(state, params):
    state.stones = params.stones // 2 + 1 + randint(state, params.stones - params.stones // 2)
    state.turn = 0


@rule
def nim_step(state, params, actions, rewards):
    mover = state.turn
    state.stones -= actions[mover] + 1
    state.turn = 1 - mover
    if state.stones == 0:
        rewards[mover] = 1
        rewards[1 - mover] = -1
    return state.stones == 0, False


@rule
def nim_observe(state, params, seat, out):
    out[0] = state.stones


@rule
def nim_legal(state, params, seat, out):
    for action in range(3):
        out[action] = action < state.stones


@rule
def nim_acts(state, params, seat):
    return state.turn == seat


def nim(*, stones: int = 12) -> Game:
    """One heap, as in docs/examples: leave a multiple of four, and you win."""
    return Game(
        name="OneHeap",
        seats=2,
        state_fields=[("stones", "i4"), ("turn", "i4")],
        params=make_params([("stones", "i4")], {"stones": stones}),
        observation_space=spaces.Discrete(stones + 1),
        action_space=spaces.Discrete(3),
        reset=nim_reset,
        step=nim_step,
        observe=nim_observe,
        legal=nim_legal,
        acts=nim_acts,
        text=_text,
        draw=_draw,
    )


def winning_moves(agent, stones: int) -> int:
    """From how many of the heaps from which one can leave a multiple of four an agent does, when greedy."""
    found = 0
    for heap in range(1, stones + 1):
        mask = torch.tensor([[action < heap for action in range(3)]])
        action = int(agent.act(torch.tensor([heap]), mask, torch.Generator(), greedy=True).action)
        found += heap % 4 != 0 and (heap - action - 1) % 4 == 0
    return found


class Scripted:
    """Plays a legal action that the step's number decides, and signs it with a number of its own."""

    def __init__(self, experience=None):
        self.experience = experience or RolloutSpec(8, whole_episodes=False)

    def act(self, obs, legal_mask, generator, *, greedy=False):
        wanted = obs[:, 0].long() * 7 + obs[:, 1].long() * 5
        if legal_mask is None:
            action = (wanted % ACTIONS).float().unsqueeze(-1)
        else:
            order = (legal_mask.long().cumsum(-1) * legal_mask).float()
            action = (order == 1 + wanted[:, None] % legal_mask.sum(-1, keepdim=True)).float().argmax(-1)
        return Decision(action, action, -obs[:, 0] / 1000 - obs[:, 1])


class One:
    """Always plays 1."""

    experience: ClassVar[Any] = None

    def act(self, obs, legal_mask, generator, *, greedy=False):
        ones = torch.ones(len(obs), dtype=torch.int64)
        return Decision(ones, ones, torch.zeros(len(obs)))


class Settled(NamedTuple):
    """A decision and what it led to.

    Attributes:
        number: of the step in which it was taken, as its seat saw it.
        action: taken.
        earned: until the seat's next decision, or the episode's end.
        following: number of the step of the next decision, the last one of an episode that was cut, or None.
        how: "turn", "terminated" or "cut"; "waiting" where cut while the seat waits, and "open".
    """

    number: int
    action: int
    earned: float
    following: int | None
    how: str


def all_decisions(game: Game, num_envs: int, seed: int, steps: int) -> dict[tuple[int, int], list[Settled]]:
    """Every decision of every seat of every copy in so many steps, one step and seat after another."""
    batch, player = GameBatch(game, num_envs, seed=seed), Scripted()
    found: dict[tuple[int, int], list[Settled]] = {(b, p): [] for b in range(num_envs) for p in range(game.seats)}
    under_way: dict[tuple[int, int], list[Any]] = {}
    for _ in range(steps):
        obs, acts = batch.obs.clone(), batch.active.clone()
        mask = None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1).clone()
        action = player.act(obs.flatten(0, 1), mask, None).action.unflatten(0, (num_envs, game.seats))
        for b, p in found:
            number = int(obs[b, p, 0])
            if acts[b, p]:
                if (b, p) in under_way:
                    found[b, p].append(Settled(*under_way[b, p], number, "turn"))
                under_way[b, p] = [number, int(action[b, p]), 0.0]
        step = batch.step(action)
        for b, p in found:
            if (b, p) in under_way:
                under_way[b, p][2] += float(step.reward[b, p])
                if step.terminated[b]:
                    found[b, p].append(Settled(*under_way.pop((b, p)), None, "terminated"))
                elif step.truncated[b]:
                    how = "cut" if batch.final_active[b, p] else "waiting"
                    found[b, p].append(Settled(*under_way.pop((b, p)), int(step.final_obs[b, p, 0]), how))
    for place, parts in under_way.items():
        here = bool(batch.active[place])
        found[place].append(Settled(*parts, int(batch.obs[place][0]) if here else None, "turn" if here else "open"))
    return found
