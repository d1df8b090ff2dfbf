"""The rule's network: what its targets depend on, and what they do not."""

from __future__ import annotations

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig, Targets, log_softmax
from tests.agents.learned_rules.lessons import PREDICTIONS

STEPS, COUNT = 8, 3


@pytest.fixture(scope="module")
def rule() -> LPGRule:
    return LPGRule(RuleConfig(predictions=PREDICTIONS, hidden=6), seed=3).double()


def read(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y, next_y = log_softmax(torch.randn(2, STEPS, COUNT, PREDICTIONS, generator=generator, dtype=torch.float64)).exp()
    return {
        "reward": torch.randn(STEPS, COUNT, generator=generator, dtype=torch.float64),
        "terminated": torch.zeros(STEPS, COUNT, dtype=torch.bool),
        "truncated": torch.zeros(STEPS, COUNT, dtype=torch.bool),
        "chosen": torch.rand(STEPS, COUNT, generator=generator, dtype=torch.float64),
        "y": y,
        "next_y": next_y,
    }


def differing(a: Targets, b: Targets) -> list[int]:
    """The steps at which targets differ, in the first sequence."""
    apart = (a.pi_hat != b.pi_hat)[:, 0] | (a.log_y_hat != b.log_y_hat)[:, 0].any(-1)
    return apart.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("name", ["reward", "chosen", "y", "next_y"])
def test_a_target_depends_on_its_step_and_later_ones_alone(rule: LPGRule, name: str) -> None:
    plain, other = read(), read()
    other[name][5, 0] += 0.1
    assert differing(rule(**plain), rule(**other)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_nothing_flows_from_an_episode_into_the_one_before(rule: LPGRule, end: str) -> None:
    plain, other = read(), read()
    for values in (plain, other):
        values[end][3, 0] = True
    other["reward"][5, 0] += 1
    other["y"][4, 0] = 1 / PREDICTIONS
    assert differing(rule(**plain), rule(**other)) == [4, 5]


def test_sequences_are_apart(rule: LPGRule) -> None:
    plain, other = read(), read()
    other["reward"][:, 1] += 1
    assert differing(rule(**plain), rule(**other)) == []


def test_what_follows_counts_if_truncated_and_not_if_terminated(rule: LPGRule) -> None:
    for end, counts in (("terminated", False), ("truncated", True)):
        plain, other = read(), read()
        for values in (plain, other):
            values[end][3, 0] = True
        other["next_y"][3, 0] = 1 / PREDICTIONS
        assert (3 in differing(rule(**plain), rule(**other))) == counts, end
    ended = [read() for _ in range(2)]
    ended[0]["terminated"][3, 0], ended[1]["truncated"][3, 0] = True, True
    assert 3 in differing(rule(**ended[0]), rule(**ended[1]))


def test_gradients_reach_the_rule_and_not_what_it_reads(rule: LPGRule) -> None:
    values = read()
    for name in ("chosen", "y", "next_y"):
        values[name].requires_grad_()
    targets = rule(**values)
    gradients = torch.autograd.grad(
        targets.pi_hat.sum() + targets.log_y_hat[..., 0].sum(),
        [*rule.parameters(), values["chosen"], values["y"], values["next_y"]],
        allow_unused=True,
    )
    assert all(found is not None and bool(found.abs().sum() > 0) for found in gradients[:-3])
    assert gradients[-3:] == (None, None, None)


def test_plain_form_gives_the_same(rule: LPGRule, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = rule(**read())
    monkeypatch.setenv("MLBITS_KERNELS", "0")
    torch.testing.assert_close(rule(**read()), fast, rtol=1e-12, atol=1e-12)


def test_the_seed_decides_the_weights() -> None:
    a, b, c = (LPGRule(RuleConfig(hidden=4), seed=seed).heads for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_log_softmax_is_torchs() -> None:
    logits = 50 * torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(log_softmax(logits), torch.log_softmax(logits, -1), rtol=1e-12, atol=1e-12)


def test_one_prediction_is_refused() -> None:
    with pytest.raises(AgentError, match="predictions: got 1; wanted"):
        RuleConfig(predictions=1)
