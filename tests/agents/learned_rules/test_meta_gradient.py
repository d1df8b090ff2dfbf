"""The meta-gradient against finite differences on frozen rollouts, also where a stop is put into the inner graph.

What the rule reads of the agents is detached, so it is frozen with the rollouts: recorded once, and read again by each
rule that differs a little.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mlbits.agents.learned_rules.meta_gradient import Coefficients, window
from mlbits.agents.learned_rules.populations import MLPAgents, State, TabularAgents
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig, Targets
from tests.agents.learned_rules.lessons import ACTIONS, COPIES, LIFETIMES, PREDICTIONS, STATES, STEPS, hyper, lesson

UPDATES, INPUTS = 3, 4
HEAVY = Coefficients(0.3, 0.2, 0.1, 0.4)  # so that each regulariser is a visible part of the gradient
ADVANTAGES = torch.randn(
    UPDATES + 1, STEPS, LIFETIMES, COPIES, generator=torch.Generator().manual_seed(5), dtype=torch.float64
)


def rule_of(seed: int = 2) -> LPGRule:
    return LPGRule(RuleConfig(predictions=PREDICTIONS, hidden=4), seed=seed).double()


def tables() -> tuple[Any, State, float]:
    table = torch.randn(
        LIFETIMES, STATES, ACTIONS + PREDICTIONS, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    return TabularAgents(STATES, ACTIONS, PREDICTIONS), {"table": table}, 1.0


def mlps() -> tuple[Any, State, float]:
    agents, generator = MLPAgents(INPUTS, ACTIONS, PREDICTIONS, hidden=5), torch.Generator().manual_seed(4)
    state = {name: value.double() for name, value in agents.initial(LIFETIMES, generator).items()}
    state["head"] = torch.randn(state["head"].shape, generator=generator, dtype=torch.float64)
    state |= {name: 0.1 + value for name, value in state.items() if name.startswith(("m.", "v."))}
    return agents, state | {"updates": torch.full((LIFETIMES,), 5.0, dtype=torch.float64)}, 1e-2


class Frozen:
    """A rule that always reads what it read the first time, update by update."""

    def __init__(self, rule: LPGRule) -> None:
        self.rule, self.read = rule, list[tuple[Tensor, ...]]()
        self.next = 0

    def __call__(self, *read: Tensor) -> Targets:
        if self.next == len(self.read):
            self.read.append(read)
        self.next += 1
        return self.rule(*self.read[self.next - 1])


def objective(rule: Any, kind: Any = tables, wrap: Any = lambda agents: agents, **more: Any) -> Tensor:
    """The meta-objective where the rollouts are the same whatever the agents do."""
    agents, state, scale = kind()
    inputs = INPUTS if kind is mlps else 0
    if isinstance(rule, Frozen):
        rule.next = 0
    rollouts, gains = iter([lesson(seed, inputs=inputs) for seed in range(UPDATES + 1)]), iter(ADVANTAGES)
    rates = hyper()._replace(learning_rate=scale * hyper().learning_rate)
    found = window(
        rule, wrap(agents), state, rates, lambda state: next(rollouts), lambda lesson: next(gains),
        updates=UPDATES, coefficients=HEAVY, **more,
    )  # fmt: skip
    return found.objective


def gradient(rule: LPGRule, **how: Any) -> dict[str, Tensor]:
    names, parameters = zip(*rule.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(objective(rule, **how), parameters), strict=True))


def differences(rule: Frozen, name: str, entries: list[int], step: float = 1e-5, **how: Any) -> list[float]:
    """Central differences in some entries of a parameter."""
    flat = dict(rule.rule.named_parameters())[name].detach().view(-1)
    found = []
    for entry in entries:
        ends = []
        for sign in (1, -1):
            before = float(flat[entry])
            flat[entry] += sign * step
            with torch.no_grad():
                ends.append(float(objective(rule, **how)))
            flat[entry] = before
        found.append((ends[0] - ends[1]) / (2 * step))
    return found


def check(rule: LPGRule, **how: Any) -> None:
    frozen = Frozen(rule)
    objective(frozen, **how)
    for name, gradients in gradient(rule, **how).items():
        entries = list(range(0, gradients.numel(), max(1, gradients.numel() // 3)))[:3]
        got, wanted = gradients.view(-1)[entries], differences(frozen, name, entries, **how)
        assert torch.allclose(got, got.new_tensor(wanted), rtol=1e-5, atol=1e-8), f"{name}: {got}, not {wanted}"


@pytest.mark.parametrize("kind", [tables, mlps])
def test_is_what_finite_differences_give(kind: Any) -> None:
    check(rule_of(), kind=kind)


def test_plain_form_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = gradient(rule_of())
    monkeypatch.setenv("MLBITS_KERNELS", "0")
    torch.testing.assert_close(gradient(rule_of()), fast, rtol=1e-9, atol=1e-12)


class Stopped:
    """Agents whose update is right in its numbers, and stops the gradient."""

    def __init__(self, agents: Any, how: str) -> None:
        self.agents, self.how = agents, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agents, name)

    def update(self, state: State, *rest: Any) -> State:
        new = self.agents.update(state, *rest)
        if self.how == "detached":
            return {name: value.detach() for name, value in new.items()}
        kept = {name: value.detach().clone() for name, value in state.items()}
        for name, value in new.items():  # a write in place, as optimisers do it
            kept[name].data.copy_(value)
        return kept


@pytest.mark.parametrize("how", ["detached", "in place"])
def test_a_stop_in_the_inner_graph_is_caught(how: str) -> None:
    with pytest.raises(AssertionError, match=r", not \["):
        check(rule_of(), wrap=lambda agents: Stopped(agents, how))


@pytest.mark.parametrize("name", Coefficients._fields)
def test_each_regulariser_is_part_of_the_objective(name: str) -> None:
    agents, state, _ = tables()

    def measured(coefficients: Coefficients) -> float:
        rollouts = iter([lesson(seed) for seed in range(UPDATES + 1)])
        found = window(
            rule_of(), agents, state, hyper(), lambda state: next(rollouts),
            lambda lesson: torch.zeros_like(lesson.reward), updates=UPDATES, coefficients=coefficients,
        )  # fmt: skip
        return float(found.objective.detach())

    none = Coefficients(0, 0, 0, 0)
    assert measured(none) == 0
    change = measured(none._replace(**{name: 1.0}))
    assert change < 0 if name in ("pi_hat", "y_hat") else change > 0


def test_a_window_measures_what_it_did() -> None:
    agents, state, _ = tables()
    lessons = [lesson(seed) for seed in range(UPDATES + 1)]
    rollouts = iter(lessons)
    found = window(
        rule_of(), agents, state, hyper(), lambda state: next(rollouts), lambda lesson: lesson.reward, updates=UPDATES
    )
    wanted = torch.stack([one.reward.mean((0, 2)) for one in lessons[1:]]).mean(0)
    torch.testing.assert_close(found.reward, wanted)
    assert not found.state["table"].requires_grad and not torch.equal(found.state["table"], state["table"])
    log_pi = torch.log_softmax(found.state["table"][..., :ACTIONS], -1)
    entropy = -(log_pi.exp() * log_pi).sum(-1)[torch.arange(LIFETIMES)[:, None], lessons[-1].obs].mean((0, 2))
    torch.testing.assert_close(found.policy_entropy, entropy)
    log_y = torch.log_softmax(found.state["table"][..., ACTIONS:], -1)
    entropy = -(log_y.exp() * log_y).sum(-1)[torch.arange(LIFETIMES)[:, None], lessons[-1].obs].mean((0, 2))
    torch.testing.assert_close(found.prediction_entropy, entropy)
