"""``mlbits reproduce fuzzybear``: a partial model walks into the forest, a causally correct one goes home.

Rezende et al., "Causally correct partial models for reinforcement learning" (2020), section 2. Logging policies of
three qualities walk through FuzzyBear; a partial model, which does not contain the bear, is fitted to each log and
plans. True values: every bear hugged pays 0.25, home 0.6.

The first action of the log is drawn evenly, and as nothing was observed before it, its z is constant. In the forest the
policy intends the right action (hug a teddy, run from a grizzly) with its own probability. For the backdoor columns an
exploring log is used: with probability 0.2 the executed action is drawn evenly in place of the intended one, which is
recorded as z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mlbits
from mlbits.agents.planning.partial_models import ENDED, PartialModel, Walks
from mlbits.envs.fuzzy_bear import GRIZZLY_REWARD, HOME_REWARD, START, TEDDY, TEDDY_REWARD
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.statistics import mean_interval

ENV = "mlbits/FuzzyBear-v0"
HOME, FOREST, HUG = 0, 1, 1
LOGGERS = {"random": 0.5, "95/5 good": 0.95, "optimal": 1.0}  # probability of intending the right action
EXPLORATION = 0.2
_BOUNDS = (GRIZZLY_REWARD, TEDDY_REWARD)
_Interval = tuple[float, float]


def walk(skill: float, exploration: float, episodes: int, seed: int) -> tuple[Walks, NDArray[np.float64]]:
    """Log episodes of a policy that sees the bear.

    Args:
        skill: probability that it intends the right action in the forest.
        exploration: probability that the executed action is drawn evenly.
        episodes: number of episodes.
        seed: of environment and policy.

    Returns:
        The walks with intended actions as z, and the probability with which the policy hugs the bear that each episode
        met, [episodes], 0 where it went home.
    """
    rng = np.random.default_rng(seed)
    batch = mlbits.make_batch(ENV, episodes, seed=seed, autoreset="disabled")
    action = np.full((episodes, 2), ENDED)
    reward, z = np.zeros((episodes, 2)), np.zeros((episodes, 2), int)
    hugs = np.zeros(episodes)
    for step in range(2):
        seen = batch.obs[:, 0].numpy().copy()
        right = np.where(seen == START, rng.integers(2, size=episodes), (seen == TEDDY).astype(int))
        wrong = (seen != START) & (rng.random(episodes) >= skill)
        intended = np.where(wrong, 1 - right, right)
        explored = rng.random(episodes) < exploration
        executed = np.where(explored, rng.integers(2, size=episodes), intended)
        playing = np.ones(episodes, bool) if step == 0 else seen != START
        found = batch.step(torch.from_numpy(executed))
        action[playing, step] = executed[playing]
        z[:, step] = np.where(playing & (seen != START), intended, 0)
        reward[playing, step] = found.reward[:, 0].numpy()[playing]
        sure = np.where(seen == TEDDY, skill, 1 - skill)
        hugs = np.where(playing & (seen != START), exploration / 2 + (1 - exploration) * sure, hugs)
    return Walks(action, reward, z), hugs


def reproduce(quick: bool = False, seed: int = 0, episodes_each: int = 20_000) -> dict[str, Any]:
    """Fit models with and without the backdoor variable, plan, and play both plans.

    Args:
        quick: a quarter of the episodes.
        seed: of logs and games.
        episodes_each: logged episodes per policy.

    Returns:
        "rows", one per logging policy: estimates with intervals, the plans and the returns of both plans when played;
        "met": whether the uncorrected model of either good log chooses the forest, with its interval above
        home's 0.6, and earns less than 0.6; and the corrected one goes home in all three, with its interval below 0.6.
    """
    episodes = episodes_each // 4 if quick else episodes_each
    rows = [_row(name, skill, episodes, seed + k) for k, (name, skill) in enumerate(LOGGERS.items())]
    print_table(
        f"FuzzyBear, {episodes:,} logged episodes each; true do(hug) 0.25, home 0.6; 95% intervals in brackets",
        ["logging policy", "r given hug", "naive plan", "IPW do(hug)", "backdoor do(hug)", "expectimax over z", "plan"],
        [
            [row["logger"], _shown(row["given_hug"]), row["naive_plan"], _shown(row["ipw"]), _shown(row["backdoor"]),
             _shown(row["expectimax"]), row["plan"]]
            for row in rows
        ],
        width=130,
    )  # fmt: skip
    for row in rows:
        print(
            f"{row['logger']}: played, the naive plan ({row['naive_plan']}) earns {_shown(row['naive_return'])}, the "
            f"corrected one ({row['plan']}) {_shown(row['corrected_return'])}"
        )
    return {"rows": rows, "episodes": episodes, "met": all(_as_expected(row) for row in rows)}


def _row(name: str, skill: float, episodes: int, seed: int) -> dict[str, Any]:
    """All numbers of one logging policy."""
    plain, hugs = walk(skill, 0.0, episodes, seed)
    explored, _ = walk(skill, EXPLORATION, episodes, seed)
    hugged = (plain.action[:, 0] == FOREST) & (plain.action[:, 1] == HUG)
    naive, corrected = PartialModel.fit(plain, corrected=False), PartialModel.fit(explored)
    plans = naive.expectimax(), corrected.expectimax()
    resampled = _resampled(explored, seed)
    return {
        "logger": name,
        "given_hug": (naive.do([FOREST, HUG]), mean_interval(plain.reward[hugged, 1], bounds=_BOUNDS)[1]),
        "naive_plan": ("home", "forest")[plans[0].action],
        "ipw": _inverse_weighted(plain, hugs),
        "backdoor": (corrected.do([FOREST, HUG]), _ends(resampled[:, 0])),
        "expectimax": (plans[1].values[FOREST], _ends(resampled[:, 1])),
        "plan": ("home", "forest")[plans[1].action],
        "naive_return": _play(naive, seed + 100, episodes),
        "corrected_return": _play(corrected, seed + 100, episodes),
    }


def _inverse_weighted(walks: Walks, hugs: NDArray[np.float64]) -> tuple[float, _Interval] | None:
    """E[r | do(hug)] by inverse probability weighting; None where some bear is never hugged."""
    met = walks.action[:, 0] == FOREST
    if (hugs[met] == 0).any():
        return None
    hugged = walks.action[met, 1] == HUG
    return mean_interval(np.where(hugged, walks.reward[met, 1] / hugs[met], 0.0))


def _resampled(walks: Walks, seed: int, times: int = 200) -> NDArray[np.float64]:
    """do(hug) and the forest's expectimax value of models fitted to resampled episodes, [times, 2]."""
    rng, count = np.random.default_rng(seed), len(walks.action)
    models = (PartialModel.fit(walks.pick(rng.integers(count, size=count))) for _ in range(times))
    return np.array([[model.do([FOREST, HUG]), model.expectimax().values[FOREST]] for model in models])


def _ends(values: NDArray[np.float64]) -> _Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _play(model: PartialModel, seed: int, episodes: int) -> tuple[float, _Interval]:
    """The mean return of a model's plan in the environment. In the forest it cannot see the bear, nor know z."""
    batch = mlbits.make_batch(ENV, episodes, seed=seed, autoreset="disabled")
    first = model.expectimax().action
    total = batch.step(torch.full((episodes,), first)).reward[:, 0].double().clone()
    if first == FOREST:
        second = max((0, 1), key=lambda action: model.do([FOREST, action]))
        total += batch.step(torch.full((episodes,), second)).reward[:, 0]
    return mean_interval(total.numpy(), bounds=_BOUNDS)


def _as_expected(row: dict[str, Any]) -> bool:
    """Whether a row shows what the paper says."""
    home = row["plan"] == "home" and row["expectimax"][1][1] < HOME_REWARD
    if row["logger"] == "random":
        return bool(home and row["naive_plan"] == "home")
    misled = row["naive_plan"] == "forest" and row["given_hug"][1][0] > HOME_REWARD
    return bool(home and misled and row["naive_return"][1][1] < HOME_REWARD)


def _shown(estimate: tuple[float, _Interval] | None) -> str:
    if estimate is None:
        return "none (no overlap)"
    value, (low, high) = estimate
    return f"{value:.3f}" if not np.isfinite([low, high]).all() else f"{value:.3f} [{low:.3f}, {high:.3f}]"
