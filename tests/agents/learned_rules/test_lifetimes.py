"""Lifetimes: play, ages, what ends them and what begins then, the bandit, values, and saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.learned_rules.bandit import Bandit
from mlbits.agents.learned_rules.lifetimes import Lifetimes, Player, by_rule, live
from mlbits.agents.learned_rules.meta_gradient import Window, window
from mlbits.agents.learned_rules.populations import Hyper, TabularAgents
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
from mlbits.agents.learned_rules.teachers import A2C, nothing
from mlbits.agents.learned_rules.values import TabularValues
from tests.agents.learned_rules.levels import Grids

L, E, T, M = 3, 4, 20, 5


def lifetimes(levels: Any = None, seed: int = 0, **more: Any) -> Lifetimes:
    settings = {"predictions": M, "num_steps": T, "updates": 2, "learning_rates": (10.0, 40.0), "alphas": (0.5,)}
    return Lifetimes(levels or Grids(L, E), discount=0.9, seed=seed, **{**settings, **more})


def over(entropy: float = 1.0) -> Window:
    """A window after which nothing has changed, with this entropy in lifetime 1."""
    group = lifetimes()
    entropies = torch.ones(L)
    entropies[1] = entropy
    return Window(torch.zeros(()), group.state, torch.zeros(L), entropies, torch.ones(L), {})


def test_a_lesson_is_what_was_played() -> None:
    """Each observation is followed by the next step's, and by the episode's last one where it ended."""
    levels = Grids(L, E, horizon=7)
    agents = TabularAgents(levels.num_states, levels.num_actions, M)
    before = levels.batch.obs[:, 0].view(L, E).clone()
    lesson = Player(levels, agents, L, T, torch.Generator().manual_seed(0))(agents.initial(L, torch.Generator()))
    ended = lesson.terminated | lesson.truncated
    assert torch.equal(lesson.obs[0], before.long())
    assert torch.equal(lesson.next_obs[:-1][~ended[:-1]], lesson.obs[1:][~ended[:-1]])
    assert bool(lesson.truncated.any()) and bool((lesson.next_obs[:-1][ended[:-1]] != lesson.obs[1:][ended[:-1]]).any())
    again = Grids(L, E, horizon=7)
    for t in range(T):
        step = again.batch.step(lesson.action[t].view(-1, 1))
        assert torch.equal(step.reward.view(L, E), lesson.reward[t])
        assert torch.equal(step.terminated.view(L, E), lesson.terminated[t])
        assert torch.equal(step.truncated.view(L, E), lesson.truncated[t])
        last = torch.where(ended[t], step.final_obs.view(L, E), step.obs.view(L, E))
        assert torch.equal(last.long(), lesson.next_obs[t])


def test_actions_are_drawn_as_the_policy_has_them() -> None:
    levels = Grids(2, 500)
    agents = TabularAgents(levels.num_states, levels.num_actions, M)
    state = agents.initial(2, torch.Generator())
    state["table"][0, :, :4] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    state["table"][1, :, :4] = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    lesson = Player(levels, agents, 2, T, torch.Generator().manual_seed(1))(state)
    for number, wanted in enumerate([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]):
        found = torch.bincount(lesson.action[:, number].flatten(), minlength=4) / (T * 500)
        assert found.tolist() == pytest.approx(wanted, abs=0.02)  # four standard deviations


def test_returns_are_counted() -> None:
    group = lifetimes(Grids(L, E, horizon=7))
    lesson = group.player(group.state)
    assert group.player.steps == L * E * T
    ends = (lesson.terminated | lesson.truncated).sum((0, 2))
    torch.testing.assert_close(group.player.mean_returns(), lesson.reward.sum((0, 2)) / ends)


def test_ages_are_staggered_and_a_lifetime_ends_when_its_updates_are_over() -> None:
    group = lifetimes(Grids(200, 1))
    assert len(group.ages.unique()) > 30 and int(group.ages.min()) >= 0 and int(group.ages.max()) < 50
    levels = Grids(L, E)
    group = lifetimes(levels)
    group.ages[:] = torch.tensor([0, 48, 47])
    group.state = {"table": torch.ones_like(group.state["table"])}
    group.values.state["value"][:] = 1
    group.player.returns[:] = torch.tensor([[6.0, 2.0]])
    group.arms[:] = 0
    group.go_on(over()._replace(state=group.state))
    assert group.ages.tolist() == [2, 0, 49] and levels.renewed == [1]
    assert group.state["table"].flatten(1).sum(1).tolist() == pytest.approx([64 * 9, 0, 64 * 9])
    assert group.values.state["value"].sum(1).tolist() == [64, 0, 64]
    assert group.player.returns.tolist() == [[6, 2], [0, 0], [6, 2]]
    assert group.bandit.state["count"].tolist() == [1, 0] and float(group.bandit.state["latest"][0, 0]) == 3
    assert group.ended.tolist() == [1, 0]


def test_a_lifetime_whose_policy_has_collapsed_ends_early() -> None:
    group = lifetimes()
    group.ages[:] = 0
    group.go_on(over(entropy=0.005))
    assert group.ages.tolist() == [2, 0, 2] and group.ended.tolist() == [1, 1]


def test_lifetimes_shorter_than_a_window_are_refused() -> None:
    with pytest.raises(AgentError, match=r"num_steps and inner_updates: got 600 and 2, in lifetimes of 1000 steps"):
        lifetimes(num_steps=600)
    assert lifetimes(num_steps=500).lengths().tolist() == [2, 2, 2]


def test_a_saved_group_goes_on_bit_for_bit() -> None:
    rule = LPGRule(RuleConfig(predictions=M, hidden=4), seed=0)

    def go_on(group: Lifetimes) -> dict[str, torch.Tensor]:
        for _ in range(3):
            group.ages += 15  # so that some end
            group.go_on(
                window(rule, group.population, group.state, group.hyper, group.player, group.advantages, updates=2)
            )
        return group.state_dict()

    first = lifetimes()
    go_on(first)
    kept = first.state_dict()
    wanted = go_on(first)
    other = lifetimes(seed=9)
    other.load_state_dict(kept)
    got = go_on(other)
    assert wanted.keys() == got.keys() and int(wanted["ended"][0]) > int(kept["ended"][0])
    assert all(torch.equal(value, got[name]) for name, value in wanted.items())


def test_a_state_of_another_shape_is_refused() -> None:
    with pytest.raises(AgentError, match="table: got"):
        lifetimes().load_state_dict(lifetimes(predictions=M + 1).state_dict())


def test_the_bandit_prefers_what_served_lifetimes_well() -> None:
    bandit = Bandit((10.0, 20.0), (0.1, 0.5))
    assert bandit.learning_rate.tolist() == [10, 10, 20, 20] and bandit.probabilities().tolist() == [0.25] * 4
    bandit.note(torch.tensor([0, 0, 1]), torch.tensor([0.1, 0.3, 0.4]))
    # The mean of all is .8 / 3, and counts as ten lifetimes of each arm; bonuses are .2 / sqrt(2), .2, .2, .2.
    of_all = 0.8 / 3
    means = [(0.4 + 10 * of_all) / 12, (0.4 + 10 * of_all) / 11, of_all, of_all]
    scores = (torch.tensor(means) + torch.tensor([0.2 / 2**0.5, 0.2, 0.2, 0.2])) / 0.3
    torch.testing.assert_close(bandit.probabilities(), torch.softmax(scores, 0))
    assert bandit.best() == int(scores.argmax()) == 1
    drawn = torch.bincount(bandit.draw(20_000, torch.Generator().manual_seed(0)), minlength=4) / 20_000
    torch.testing.assert_close(drawn, bandit.probabilities(), atol=0.015, rtol=0)


def test_the_bandit_forgets_all_but_the_latest_lifetimes() -> None:
    bandit = Bandit((10.0,), (0.1,))
    bandit.note(torch.zeros(120, dtype=torch.int64), torch.arange(120.0))
    assert sorted(bandit.state["latest"][0].tolist()) == list(range(20, 120)) and float(bandit.state["count"]) == 120


@pytest.fixture(scope="module")
def lives() -> dict[str, torch.Tensor]:
    """Rewards of one lifetime by three teachers, in gridworlds alike."""
    found = {}
    for name in ("random", "a2c", "rule"):
        levels = Grids(4, 16, updates=60)
        agents = TabularAgents(levels.num_states, levels.num_actions, M)
        values = TabularValues(4, levels.num_states, 0.3)
        untrained = by_rule(LPGRule(RuleConfig(predictions=M, hidden=4), seed=0))
        teacher = {"random": nothing, "a2c": A2C(values, discount=0.95), "rule": untrained}[name]
        hyper = Hyper(torch.full((4,), 60.0), torch.full((4,), 0.5))
        found[name] = live(teacher, levels, agents, hyper, updates=60, num_steps=T, seed=0).rewards
    return found


def test_a2c_learns_and_what_teaches_nothing_does_not(lives: dict[str, torch.Tensor]) -> None:
    early, late = (
        {name: float(one[part].mean()) for name, one in lives.items()} for part in (slice(0, 10), slice(-10, None))
    )
    assert late["a2c"] > early["a2c"] + 0.03 and late["a2c"] > late["random"] + 0.03
    assert abs(late["random"] - early["random"]) < 0.005
    assert lives["rule"].shape == (60, 4)


def test_random_agents_stay_as_they_were_born() -> None:
    levels = Grids(2, 3)
    agents = TabularAgents(levels.num_states, levels.num_actions, M)
    hyper = Hyper(torch.ones(2), torch.ones(2))
    life = live(nothing, levels, agents, hyper, updates=2, num_steps=5, seed=0)
    assert not life.state["table"].any()
