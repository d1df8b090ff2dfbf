"""``reproduce noisy-tv``: which bonus is caught by a television that shows noise, measured without any learning to act.

Each bonus learns from random steps in half of a room with a television (``mlbits/NoisyTV-v0``), which a wall divides.
Then it is asked, of a door into the other half: how new is a press of the remote control, seen a thousand times and
never the same, and how new are cells never seen? Their ratio is the index: above 1 the television wins. "Seen" is the
bonus of walking in the half that it knows, in the same unit. A forward model that predicts the observation itself is
measured beside the bonuses, as what they are to be better than.

A latent world model is held by the television that is switched: its encoder keeps what stays the same from one step to
the next, which the picture does for five steps on average. The other television changes within every pair, and is
left out of the codes.

After Burda et al., "Large-scale study of curiosity-driven learning" (2019); the index is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

import mlbits
from mlbits.agents.agent import network_generator
from mlbits.agents.exploration.bonus import MAX_GRAD_NORM, Bonus, fit, joined
from mlbits.agents.exploration.explorer import BONUSES
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import ActionCode, Steps
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.envs.exploration.noisy_tv import DOWN, PRESS, RIGHT, UP
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.statistics import mean_interval

ENV, SIZE, HALF = "mlbits/NoisyTV-v0", 10, 5  # the wall is column 5
COPIES, STEPS = 20, 200  # 4,000 random steps
UPDATES, BATCH = 1500, 256
TVS = ("press", "always")
ABOVE, BELOW = 1.0, 0.2
CLAIMS = {("rnd", "press"), ("rnd", "always"), ("icm", "press"), ("icm", "always"), ("lwm", "always")}


class PixelModel:
    """A forward model of observations themselves: its bonus is the mean squared error of the prediction.

    Args:
        settings: widths, learning rate, minibatches.
        observation_space: a vector.
        action_space: one seat's.
        generator: of the initial weights.
        device: of the network.
    """

    in_order, normalize = False, "rms"

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        (width,) = observation_space.shape or (0,)
        self._settings, self._code = settings, ActionCode(action_space)
        self.network = joined(width + self._code.width, settings.bonus_hidden, width, generator).to(device)
        self.optimizer = FlatAdam(self.network.parameters(), settings.bonus_learning_rate, MAX_GRAD_NORM)

    def _errors(self, steps: Steps) -> Tensor:
        predicted = self.network([torch.cat([steps.obs, self._code.encode(steps.action)], 1)])
        return (predicted - steps.next_obs).square().mean(-1)

    @torch.no_grad()
    def of_steps(self, steps: Steps) -> Tensor:
        """The errors."""
        if steps.ended is None:
            return self._errors(steps)
        return self._errors(steps.flat()).view(steps.ended.shape)

    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Fit the model."""
        return fit(self.optimizer, lambda part: {"loss": self._errors(part).mean()}, steps, self._settings, generator)


class Walk(NamedTuple):
    """Steps of random walkers, and where they were.

    Attributes:
        steps: [T, S].
        before: the column before each step, [T, S].
        cell: the cell after it, numbered row by row, [T, S].
    """

    steps: Steps
    before: Tensor
    cell: Tensor

    @property
    def after(self) -> Tensor:
        """The column after each step, [T, S]."""
        return self.cell % SIZE

    @property
    def presses(self) -> Tensor:
        """Presses of the remote control in the known half, bool [T, S]."""
        return (self.steps.action == PRESS) & (self.before < HALF)

    @property
    def unseen(self) -> Tensor:
        """Steps into the half that was never entered, bool [T, S]."""
        return (self.after >= HALF) & (self.after != self.before)

    @property
    def seen(self) -> Tensor:
        """Steps from cell to cell in the known half, bool [T, S]."""
        return (self.steps.action != PRESS) & (self.after < HALF) & (self.before < HALF)


def walk(tv: str, length: int, generator: torch.Generator, seed: int, crossing: int = 0) -> Walk:
    """Walk at random in the left half; in the last ``crossing`` steps through the door into the right half.

    Args:
        tv: the kind of television.
        length: steps of each of ``COPIES`` walkers.
        generator: of the actions.
        seed: of the copies.
        crossing: how many of the last steps lead to the right with probability 1/2, without a wall.
    """
    batch = mlbits.make_batch(ENV, COPIES, seed=seed, size=SIZE, tv=tv, walled=crossing == 0, horizon=None)
    seen, before, actions, cells = [], [], [], []
    for t in range(length):
        column = torch.from_numpy(batch.records()["column"].copy()).long()
        action = torch.randint(5, (COPIES,), generator=generator)
        if t < length - crossing:  # without a wall they would walk on
            action = torch.where((action == RIGHT) & (column == HALF - 1), DOWN, action)
        elif crossing:
            ways = torch.tensor([UP, DOWN, RIGHT, RIGHT])[torch.randint(4, (COPIES,), generator=generator)]
            action = ways
        seen.append(batch.obs[:, 0].clone())
        before.append(column)
        actions.append(action)
        batch.step(action.unsqueeze(1))
        now = batch.records()
        cells.append(torch.from_numpy(SIZE * now["row"].astype(int) + now["column"]))
    seen.append(batch.obs[:, 0].clone())
    obs = torch.stack(seen)
    ended = torch.zeros(length, COPIES, dtype=torch.bool)
    return Walk(Steps(obs[:-1], torch.stack(actions), obs[1:], ended), torch.stack(before), torch.stack(cells))


def trained(name: str, tv: str, seed: int, updates: int = UPDATES) -> Bonus:
    """A bonus that has learned from random steps in the left half.

    Args:
        name: of the bonus, or "pixels" for the forward model of observations.
        tv: the kind of television.
        seed: of the initial weights, the walk and the minibatches.
        updates: gradient steps, about.
    """
    known = walk(tv, STEPS, torch.Generator().manual_seed(seed), seed)
    batch = mlbits.make_batch(ENV, 1, size=SIZE, tv=tv)
    kind: Any = PixelModel if name == "pixels" else BONUSES[name]
    draw = torch.Generator().manual_seed(1_000 + seed)
    passes = max(1, updates // (STEPS * COPIES // BATCH + 1))
    settings = BonusSettings(bonus_epochs=passes, bonus_batch_size=BATCH)
    bonus: Bonus = kind(settings, batch.observation_space, batch.action_space, network_generator(seed), "cpu")
    bonus.of_steps(known.steps)
    bonus.learn(known.steps, draw)
    return bonus


def measure(name: str, tv: str, seed: int, updates: int = UPDATES) -> dict[str, Any]:
    """The index of a bonus: the mean bonus of presses and of known steps, in units of that of unseen cells.

    Args:
        name: of the bonus, or "pixels".
        tv: the kind of television.
        seed: of all draws.
        updates: gradient steps, about.

    Returns:
        "index", "seen", and "map": the mean bonus of walking to each cell [SIZE, SIZE], in the same unit.
    """
    bonus, draw = trained(name, tv, seed, updates), torch.Generator().manual_seed(2_000 + seed)
    means: dict[str, list[Tensor]] = {"press": [], "seen": [], "unseen": []}
    total, number = torch.zeros(2, SIZE * SIZE, dtype=torch.float64)
    for round_ in range(5):
        found = walk(tv, 60, draw, 10_000 + 100 * seed + round_, crossing=12)
        new = bonus.of_steps(found.steps)
        for kind, where in (("press", found.presses), ("seen", found.seen), ("unseen", found.unseen)):
            means[kind].append(new[where])
        walked = found.steps.action != PRESS
        total.index_add_(0, found.cell[walked], new[walked].double())
        number.index_add_(0, found.cell[walked], torch.ones_like(new[walked], dtype=torch.float64))
    press, seen, unseen = (float(torch.cat(parts).mean()) for parts in means.values())
    each = (total / number.clamp(min=1) / unseen).view(SIZE, SIZE)
    return {
        "index": press / unseen,
        "seen": seen / unseen,
        "map": [[round(x, 3) for x in row] for row in each.tolist()],
    }


def reproduce(quick: bool = False, seeds: int = 0) -> dict[str, Any]:
    """Measure the index of every bonus with both televisions.

    Args:
        quick: one seed.
        seeds: how many seeds, from 0; 0 takes three, or one for the quick form.

    Returns:
        "rows" (bonus, tv, index and its interval, indices, seen, the first seed's map) and "met": whether the forward
        model of observations is caught by the television that is switched, and the bonuses of which it is claimed are
        not, with all seeds.
    """
    numbers = range(seeds or (1 if quick else 3))
    rows = []
    for tv in TVS:
        for name in ("pixels", "rnd", "icm", "lwm"):
            found = [measure(name, tv, seed) for seed in numbers]
            indices = [one["index"] for one in found]
            mean, (low, high) = mean_interval(torch.tensor(indices).double().numpy())
            rows.append({
                "bonus": name, "tv": tv, "index": mean, "low": low, "high": high, "indices": indices,
                "seen": sum(one["seen"] for one in found) / len(found), "wanted": wanted(name, tv),
                "map": found[0]["map"],
            })  # fmt: skip
    print_table(
        f"bonus of the television and of known cells, in units of unseen cells; {len(numbers)} seeds",
        ["", "television", "index", "each seed", "known cells", "wanted"],
        [
            [r["bonus"], r["tv"], r["index"], " ".join(f"{one:.2f}" for one in r["indices"]), r["seen"], r["wanted"]]
            for r in rows
        ],
        width=90,
    )
    return {"rows": rows, "met": met(rows)}


def wanted(name: str, tv: str) -> str:
    """The target of a row, in words; "" for none."""
    if (name, tv) == ("pixels", "press"):
        return f"above {ABOVE:g}"
    return f"below {BELOW:g}" if (name, tv) in CLAIMS else ""


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether every index is on the right side with every seed."""
    good = True
    for row in rows:
        if (row["bonus"], row["tv"]) == ("pixels", "press"):
            good &= min(row["indices"]) > ABOVE
        elif (row["bonus"], row["tv"]) in CLAIMS:
            good &= max(row["indices"]) < BELOW
    return good


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what each bonus sees: heat maps of the room, and the television's bonus as a bar beside them.

    Args:
        result: of :func:`reproduce`.
        path: the picture's file.

    Raises:
        ReproductionError: if matplotlib is not installed.
    """
    from mlbits.evals.reproductions.plots import figure, save

    canvas, panels = figure(len(result["rows"]) // len(TVS), 2.6, 2.9, rows=len(TVS))
    for panel, row in zip(panels, result["rows"], strict=True):
        panel.imshow(row["map"], vmin=0, vmax=1.2, cmap="viridis")
        panel.axvline(HALF - 0.5, color="white", linewidth=1)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(f"{row['bonus']}: television {row['index']:.2f}", fontsize=10)
        panel.set_xlabel(f"tv {row['tv']!r}; right half never seen", fontsize=8)
    save(canvas, path)
