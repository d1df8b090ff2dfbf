"""The rules of datasets as games: draw an example, show it, reward the answer."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule


@rule
def reset(state: Any, params: Any) -> None:
    """Draw an example."""
    state.example = params.members[params.first + randint(state, params.examples)]
    state.answer = -1


@rule
def paid(state: Any, params: Any, answer: Any) -> Any:
    """The reward of an answer to the current example."""
    row = state.example if params.by_example != 0 else params.labels[state.example]
    return params.rewards[row, answer]


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Reward the answer and end the episode."""
    state.answer = actions[0]
    rewards[0] = paid(state, params, state.answer)
    return True, False


@rule
def write_1(example: Any, params: Any, out: Any) -> None:
    """Features of one axis."""
    for k in range(out.shape[0]):
        out[k] = params.features[example, k]


@rule
def write_2(example: Any, params: Any, out: Any) -> None:
    """Features of two axes."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            out[row, column] = params.features[example, row * out.shape[1] + column]


@rule
def write_3(example: Any, params: Any, out: Any) -> None:
    """Features of three axes."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                out[i, j, k] = params.features[example, (i * out.shape[1] + j) * out.shape[2] + k]


@rule
def write_feedback(state: Any, params: Any, out: Any) -> None:
    """The reward of each answer, once an answer has been given; 0 before."""
    for answer in range(out.shape[0]):
        out[answer] = paid(state, params, answer) if state.answer >= 0 else 0.0


@rule(inline=False)
def observe_1(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features."""
    write_1(state.example, params, out)


@rule(inline=False)
def observe_2(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features."""
    write_2(state.example, params, out)


@rule(inline=False)
def observe_3(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features."""
    write_3(state.example, params, out)


@rule(inline=False)
def observe_all_1(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features, and the feedback."""
    write_1(state.example, params, out.features)
    write_feedback(state, params, out.feedback)


@rule(inline=False)
def observe_all_2(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features, and the feedback."""
    write_2(state.example, params, out.features)
    write_feedback(state, params, out.feedback)


@rule(inline=False)
def observe_all_3(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The features, and the feedback."""
    write_3(state.example, params, out.features)
    write_feedback(state, params, out.feedback)


# Rules by feedback, and by the number of axes of an example.
OBSERVE = {
    "bandit": (observe_1, observe_2, observe_3),
    "full": (observe_all_1, observe_all_2, observe_all_3),
}
