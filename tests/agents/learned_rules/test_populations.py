"""Updates of many agents at once: the closed form against autograd, Adam against torch's, and what stays as it was."""

from __future__ import annotations

import pytest
import torch

from mlbits.agents.learned_rules.populations import Hyper, MLPAgents, State, TabularAgents, look
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig, Targets, log_softmax
from tests.agents.learned_rules.lessons import (
    ACTIONS,
    COPIES,
    LIFETIMES,
    PREDICTIONS,
    STATES,
    STEPS,
    hyper,
    lesson,
)

LEAD = (STEPS, LIFETIMES, COPIES)


def targets(dtype: torch.dtype = torch.float64) -> Targets:
    generator = torch.Generator().manual_seed(9)
    pi_hat = torch.randn(LEAD, generator=generator, dtype=dtype)
    return Targets(pi_hat, log_softmax(torch.randn(*LEAD, PREDICTIONS, generator=generator, dtype=dtype)))


def tables(dtype: torch.dtype = torch.float64) -> State:
    shape = LIFETIMES, STATES, ACTIONS + PREDICTIONS
    return {"table": torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=dtype)}


@pytest.fixture
def tabular() -> TabularAgents:
    return TabularAgents(STATES, ACTIONS, PREDICTIONS)


def test_closed_form_is_autograds_gradient(tabular: TabularAgents, monkeypatch: pytest.MonkeyPatch) -> None:
    state, seen = tables(), lesson(0)
    closed = tabular.update(state, seen, look(tabular, state, seen), targets(), hyper())["table"]
    monkeypatch.setenv("MLBITS_KERNELS", "0")
    plain = tabular.update(state, seen, look(tabular, state, seen), targets(), hyper())["table"]
    torch.testing.assert_close(closed, plain, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(plain, state["table"])


def test_closed_form_in_float32_is_within_1e_6(tabular: TabularAgents, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torch.float32
    state, seen = tables(kind), lesson(0, dtype=kind)
    small = hyper(kind)._replace(learning_rate=torch.ones(LIFETIMES))
    closed = tabular.update(state, seen, look(tabular, state, seen), targets(kind), small)["table"]
    monkeypatch.setenv("MLBITS_KERNELS", "0")
    plain = tabular.update(state, seen, look(tabular, state, seen), targets(kind), small)["table"]
    assert float((closed - plain).abs().max()) < 1e-6


def test_an_update_worked_out_by_hand(tabular: TabularAgents) -> None:
    one = lesson(0)
    first = torch.zeros(LEAD, dtype=torch.int64)
    one = one._replace(obs=first, next_obs=first, action=first)
    state = {"table": torch.zeros(LIFETIMES, STATES, ACTIONS + PREDICTIONS, dtype=torch.float64)}
    pi_hat = torch.full(LEAD, 2.0, dtype=torch.float64)
    y_hat = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1], dtype=torch.float64)
    there = Targets(pi_hat, y_hat.log().expand(*LEAD, PREDICTIONS))
    fixed = Hyper(torch.ones(LIFETIMES, dtype=torch.float64), torch.ones(LIFETIMES, dtype=torch.float64))
    table = tabular.update(state, one, look(tabular, state, one), there, fixed)["table"]
    # pi is uniform: 2 (onehot - 1/3). y is uniform too: its gradient is y (log y_hat - mean of log y_hat).
    wanted = [4 / 3, -2 / 3, -2 / 3, *(0.2 * (y_hat.log() - y_hat.log().mean())).tolist()]
    torch.testing.assert_close(table[1, 0], torch.tensor(wanted, dtype=torch.float64))
    assert not table[:, 1:].any()


def test_an_update_changes_nothing_in_place(tabular: TabularAgents) -> None:
    state, seen = tables(), lesson(0)
    before = state["table"].clone()
    tabular.update(state, seen, look(tabular, state, seen), targets(), hyper())
    assert torch.equal(state["table"], before)


def test_agents_learn_from_their_own_lifetime_alone(tabular: TabularAgents) -> None:
    state, seen, other = tables(), lesson(0), lesson(0)
    other.action[:, 1] = (other.action[:, 1] + 1) % ACTIONS
    a, b = (tabular.update(state, one, look(tabular, state, one), targets(), hyper())["table"] for one in (seen, other))
    assert (a != b).flatten(1).any(1).tolist() == [False, True, False]


def test_what_a_rule_says_does_not_depend_on_the_number_of_actions() -> None:
    """Actions that are never taken and almost never probable change neither targets nor the rest of the update."""
    rule = LPGRule(RuleConfig(predictions=PREDICTIONS, hidden=5), seed=1).double()
    few, many = (TabularAgents(STATES, count, PREDICTIONS) for count in (ACTIONS, ACTIONS + 4))
    state, seen, found = tables(), lesson(0), []
    never = torch.full((LIFETIMES, STATES, 4), -60.0, dtype=torch.float64)
    padded = torch.cat([state["table"][..., :ACTIONS], never, state["table"][..., ACTIONS:]], -1)
    from mlbits.agents.learned_rules.meta_gradient import targets_of

    for agents, table in ((few, state["table"]), (many, padded)):
        outputs = look(agents, {"table": table}, seen)
        said = targets_of(rule, seen, outputs)
        found.append((said, agents.update({"table": table}, seen, outputs, said, hyper())["table"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    kept = torch.cat([found[1][1][..., :ACTIONS], found[1][1][..., ACTIONS + 4 :]], -1)
    torch.testing.assert_close(kept, found[0][1], rtol=1e-10, atol=1e-10)


def test_acting_probabilities_add_up(tabular: TabularAgents) -> None:
    obs = lesson(0).obs[0]
    sums = tabular.acting(tables())(obs)
    logits = tables()["table"][torch.arange(LIFETIMES)[:, None], obs, :ACTIONS]
    torch.testing.assert_close(sums, torch.softmax(logits, -1).cumsum(-1))


INPUTS = 4


def test_mlp_agents_move_as_torchs_adam_moves_them() -> None:
    agents = MLPAgents(INPUTS, ACTIONS, PREDICTIONS, hidden=6)
    generator = torch.Generator().manual_seed(0)
    state = {name: value.double() for name, value in agents.initial(LIFETIMES, generator).items()}
    state["head"] = torch.randn(state["head"].shape, generator=generator, dtype=torch.float64)
    mine = {name: value[1].clone().requires_grad_() for name, value in agents.params(state).items()}
    small = hyper()._replace(learning_rate=torch.full((LIFETIMES,), 1e-2, dtype=torch.float64))
    optimizer = torch.optim.Adam(mine.values(), lr=1e-2, eps=1e-5)
    for seed in range(3):
        seen, said = lesson(seed, inputs=INPUTS), targets()
        state = agents.update(state, seen, look(agents, state, seen), said, small)
        hidden = torch.relu(seen.obs[:, 1] @ mine["first"] + mine["first_bias"])
        out = hidden @ mine["head"] + mine["head_bias"]
        log_pi, log_y = torch.log_softmax(out[..., :ACTIONS], -1), torch.log_softmax(out[..., ACTIONS:], -1)
        taken = log_pi.gather(-1, seen.action[:, 1, :, None])[..., 0]
        apart = torch.nn.functional.kl_div(said.log_y_hat[:, 1], log_y, log_target=True, reduction="none").sum(-1)
        loss = -(said.pi_hat[:, 1] * taken - 0.5 * apart).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in mine.items():
        torch.testing.assert_close(state[name][1], value.detach(), rtol=1e-6, atol=1e-7)


def test_mlp_agents_act_as_they_say() -> None:
    agents = MLPAgents(INPUTS, ACTIONS, PREDICTIONS, hidden=6)
    state = agents.initial(LIFETIMES, torch.Generator().manual_seed(0))
    state["head"] = torch.randn(state["head"].shape, generator=torch.Generator().manual_seed(1))
    seen = lesson(0, inputs=INPUTS, dtype=torch.float32)
    sums = agents.acting(state)(seen.obs[0])
    torch.testing.assert_close(sums, look(agents, state, seen).log_pi[0].exp().cumsum(-1))
