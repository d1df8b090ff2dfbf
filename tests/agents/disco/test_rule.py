"""The discovered rule: against another library, its LSTM against torch's, resets, causality, the order of actions."""

import numpy as np
import pytest
import torch

from mlbits.agents.disco.rule import Experience, Memory, Predictions, Rule, lstm, of_action, signed_log
from mlbits.agents.disco.rule_file import SHAPES
from tests.agents.disco.made_up import arrays, as_bytes, draw

T, B, A = 6, 3, 4
ROWS = (T + 1) * B


def rule(seed=0):
    return Rule({name: torch.from_numpy(value) for name, value in arrays(seed, 0.2).items()})


def predictions(seed):
    generator = draw(seed)
    sizes = ((A,), (600,), (A, 600), (A, 601), (A, A))
    return Predictions(*(torch.randn(ROWS, *size, generator=generator) for size in sizes))


def experience(seed=0, ends=0.3):
    generator = draw(seed)

    def numbers(*size):
        return torch.randn(*size, generator=generator)

    terminated = torch.rand(T, B, generator=generator) < ends
    return Experience(
        following=torch.arange(B, ROWS).view(T, B), action=torch.randint(A, (T, B), generator=generator),
        reward=numbers(T, B), terminated=terminated, ended=terminated, behaviour=numbers(T, B, A), value=numbers(ROWS),
        advantage=numbers(T, B), normalised=numbers(T, B), q=numbers(T, B, A), q_advantage=numbers(T, B, A),
        q_normalised=numbers(T, B, A),
    )  # fmt: skip


def memory(seed=3):
    return Memory(*torch.randn(2, 128, generator=draw(seed)))


def same(one, two):
    return [torch.allclose(a, b, atol=1e-5) for a, b in zip(one, two, strict=True)]


def test_numbers_agree_with_disco_torch(tmp_path):
    """Three updates in a row; its windows have no episodes cut by a limit, and a last action, which nobody reads."""
    pytest.importorskip("disco_torch", reason="the oracle is not installed: pip install --no-deps disco-torch==0.4.0")
    from disco_torch.load_weights import load_disco103_weights
    from disco_torch.types import UpdateRuleInputs
    from disco_torch.update_rule import DiscoUpdateRule

    path = tmp_path / "rule.npz"
    path.write_bytes(as_bytes(arrays(0, 0.2)))
    theirs, ours = DiscoUpdateRule(), rule()
    load_disco103_weights(theirs, path)

    def grid(one):
        names = ("logits", "y", "z", "q", "aux_pi")
        return {name: part.view(T + 1, B, *part.shape[1:]) for name, part in zip(names, one, strict=True)}

    def padded(part):
        return torch.cat([part, part[:1]])

    mine, state = Rule.new_lifetime("cpu"), theirs.meta_net.initial_meta_rnn_state()
    for k in range(3):
        seen, online, target = experience(k), predictions(10 + k), predictions(20 + k)
        inputs = UpdateRuleInputs(
            observations=torch.zeros(T + 1, B), actions=padded(seen.action), rewards=seen.reward,
            is_terminal=seen.terminated.float(), agent_out=grid(online),
            behaviour_agent_out={**grid(online), "logits": padded(seen.behaviour)},
        )  # fmt: skip
        inputs.extra_from_rule = {
            "v_scalar": seen.value.view(T + 1, B), "adv": seen.advantage, "normalized_adv": seen.normalised,
            "q": padded(seen.q), "qv_adv": padded(seen.q_advantage), "normalized_qv_adv": padded(seen.q_normalised),
            "target_out": grid(target),
        }  # fmt: skip
        with torch.no_grad():
            wanted, state = theirs.meta_net(inputs, state)
        aims, mine = ours(seen, online, target, mine)
        for part, name in zip(aims, ("pi", "y", "z"), strict=True):
            torch.testing.assert_close(part, wanted[name], rtol=1e-4, atol=1e-5)
        assert all(same(mine, state))


def test_the_lstm_is_torchs_with_one_added_to_the_forget_gate():
    """Torch orders the gates enter, forget, candidate, leave."""
    cell = torch.nn.LSTMCell(5, 8)
    x, state = torch.randn(3, 5, generator=draw()), Memory(*torch.randn(2, 3, 8, generator=draw(1)))
    enter, forget, candidate, leave = (
        x @ cell.weight_ih.t() + cell.bias_ih + state.hidden @ cell.weight_hh.t() + cell.bias_hh
    ).chunk(4, -1)
    found = lstm(torch.cat([enter, candidate, forget - 1, leave], -1), state.cell)
    assert all(same(found, cell(x, tuple(state))))


def test_shapes_for_any_number_of_actions_and_small_parts_by_hand():
    aims, after = rule()(experience(), predictions(1), predictions(2), memory())
    assert [tuple(part.shape) for part in aims] == [(T, B, A), (T, B, 600), (T, B, 600)]
    assert [tuple(part.shape) for part in after] == [(128,), (128,)]
    assert signed_log(torch.tensor([np.e - 1, 0, -(np.e**2 - 1)])).tolist() == pytest.approx([1, 0, -2], abs=1e-6)
    table = torch.arange(6.0).view(1, 2, 3)
    assert of_action(table, torch.tensor([[2, 0]])).tolist() == [[2, 3]]
    assert of_action(table[0][None, None], torch.tensor([[1]])).tolist() == [[[3, 4, 5]]]


def test_the_order_of_actions_does_not_matter():
    """Permuted actions give permuted targets of the policy, and the same of y and z."""
    order = torch.tensor([2, 0, 3, 1])
    seen, online, target = experience(), predictions(1), predictions(2)
    place = order.argsort()
    moved = seen._replace(
        action=place[seen.action],
        **{name: getattr(seen, name)[..., order] for name in ("behaviour", "q", "q_advantage", "q_normalised")},
    )

    def permuted(one):
        return one._replace(policy=one.policy[:, order], z=one.z[:, order], q=one.q[:, order])

    aims, _ = rule()(seen, online, target, memory())
    again, _ = rule()(moved, permuted(online), permuted(target), memory())
    assert all(same(again, aims._replace(policy=aims.policy[..., order])))


def test_targets_look_ahead_to_the_end_of_the_episode_and_no_further():
    """Copy 0 ends with step 2: its steps up to there do not depend on rewards after it, those of copy 1 do."""
    seen = experience(ends=0.0)
    ended = seen.ended.clone()
    ended[2, 0] = True
    for terminated in (ended, seen.terminated):  # by itself, or by a limit
        seen = seen._replace(ended=ended, terminated=terminated)
        reward = seen.reward.clone()
        reward[3:] += 5
        before, _ = rule()(seen, predictions(1), predictions(2), memory())
        after, _ = rule()(seen._replace(reward=reward), predictions(1), predictions(2), memory())
        for one, two in zip(before, after, strict=True):
            changed = (one - two).abs().amax(-1) > 1e-6
            assert changed.tolist() == [[False, True, True]] * 3 + [[True] * 3] * 3
    reward = seen.reward.clone()
    reward[:3] += 5  # what was before does not matter: the rule reads backwards
    after, _ = rule()(seen._replace(reward=reward), predictions(1), predictions(2), memory())
    assert all(same([part[3:] for part in after], [part[3:] for part in before]))


def test_whether_an_episode_terminated_is_seen():
    seen = experience(ends=0.0)
    ended = seen.ended.clone()
    ended[2] = True
    cut, _ = rule()(seen._replace(ended=ended), predictions(1), predictions(2), memory())
    over, _ = rule()(seen._replace(ended=ended, terminated=ended), predictions(1), predictions(2), memory())
    assert not torch.allclose(cut.policy[:3], over.policy[:3])
    assert torch.allclose(cut.policy[3:], over.policy[3:])


def test_the_lifetime_gates_the_targets_and_moves_with_each_update():
    one, after = rule()(experience(), predictions(1), predictions(2), memory(3))
    two, _ = rule()(experience(), predictions(1), predictions(2), memory(4))
    assert not any(same(one, two))
    assert not any(same(after, memory(3)))
    assert set(SHAPES) == set(rule()._weights)
