"""FuzzyBear: go home, or meet a bear that may be a teddy. Data of a clever walker mislead a model that omits the bear.

Description:
    A walker stands before a forest. Home is safe and pays a little. In the forest there is a bear: a teddy,
    which is pleasant to hug, or a grizzly, which is not. The walker sees which one it is before deciding to hug
    it. Going home is best, since half of the bears are grizzlies.

    The trap is for models fitted to others' walks: whoever sees the bear and hugs only teddies leaves data in
    which hugs nearly always pay, so that a model of the reward given the actions alone recommends the forest.
    ``mlbits reproduce fuzzybear`` shows it, and docs/causal.md the correction.

    Source: Rezende et al., "Causally correct partial models for reinforcement learning" (2020), section 2.

Actions:
    Discrete(2):

    | action | at the start | in the forest |
    |---|---|---|
    | 0 | go home | run away |
    | 1 | enter the forest | hug the bear |

Observations:
    Discrete(3): 0 at the start (and at home), 1 in the forest before a teddy, 2 before a grizzly.

Rewards:
    0.6 at home, 0 for running away, 1 for hugging a teddy, -0.5 for hugging a grizzly. On average 0.6 for going
    home, 0.5 for entering the forest and hugging only teddies, 0.25 for hugging every bear, 0.3625 at random.

Start:
    Before the forest.

End:
    Termination at home, after running and after a hug: one or two steps. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, BROWN, GREEN, GREY, INK, RED, YELLOW, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import number

START, TEDDY, GRIZZLY = 0, 1, 2
HOME_REWARD, TEDDY_REWARD, GRIZZLY_REWARD = 0.6, 1.0, -0.5


@rule
def reset(state: Any, params: Any) -> None:
    """Stand before the forest."""
    state.place = START
    state.last = -1


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Go home or enter the forest; then run from the bear or hug it."""
    place, action = state.place, actions[0]
    state.last = action
    if place == START:
        if action == 1:
            state.place = TEDDY if uniform(state) < params.teddy else GRIZZLY
            return False, False
        rewards[0] = HOME_REWARD
    elif action == 1:
        rewards[0] = TEDDY_REWARD if place == TEDDY else GRIZZLY_REWARD
    return True, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The start, or the bear."""
    out[0] = state.place


def fuzzy_bear(teddy: float = 0.5) -> Game:
    """A FuzzyBear game.

    Args:
        teddy: probability that the bear is a teddy, 0..1; above 0.6 the forest is the better choice.

    Raises:
        GameError: for a probability out of range.
    """
    params = make_params([("teddy", "f8")], {"teddy": number("teddy", teddy, 0.0, 1.0)})
    return Game(
        name="FuzzyBear",
        state_fields=[("place", "i4"), ("last", "i4")],
        state_ranges={"place": (START, GRIZZLY), "last": (-1, 1)},
        params=params,
        observation_space=spaces.Discrete(3),
        action_space=spaces.Discrete(2),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
    )


def _text(state: Any, params: Any) -> str:
    place, elapsed = int(state.place), int(state.elapsed)
    if place == START:
        return "before the forest\n" if elapsed == 0 else "at home\n"
    did = "" if elapsed < 2 else (": ran away", ": hugged it")[int(state.last)]
    return f"before a {('teddy', 'grizzly')[place - 1]}{did}\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """Home on the left, the walker, and the forest with its bear on the right."""
    place, at_home = int(state.place), int(state.place) == START and int(state.elapsed) > 0
    canvas = Canvas(420, 220)
    canvas.pen.rectangle([30, 110, 90, 160], fill=YELLOW)
    canvas.polygon([(22, 110), (60, 74), (98, 110)], RED)
    canvas.text(60, 178, "home 0.6", size=13)
    for x, top in ((296, 66), (340, 54), (384, 66)):
        canvas.polygon([(x - 24, 128), (x, top), (x + 24, 128)], GREEN)
        canvas.pen.rectangle([x - 4, 128, x + 4, 150], fill=BROWN)
    x = 60 if at_home else (180 if place == START else 240)
    canvas.disc(x, 128, 9, BLUE)
    canvas.line([(x, 136), (x, 158)], BLUE, 5)
    if place != START:
        shade = YELLOW if place == TEDDY else GREY
        for ear in (-13, 13):
            canvas.disc(340 + ear, 124, 8, shade, outline=INK)
        canvas.disc(340, 138, 19, shade, outline=INK)
        for eye in (-7, 7):
            canvas.disc(340 + eye, 134, 2.5, INK)
        canvas.line([(333, 146), (340, 149 if place == TEDDY else 143), (347, 146)], INK, 2)
        canvas.text(340, 178, "teddy: hug 1" if place == TEDDY else "grizzly: hug -0.5", size=13)
    else:
        canvas.text(340, 178, f"teddy in {100 * float(params.teddy):.0f}%", size=13)
    canvas.text(12, 206, _text(state, params).strip(), size=13, anchor="lm")
    return canvas.array()
