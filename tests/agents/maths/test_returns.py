"""Returns and advantages against sums by their definitions, and numbers worked out by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlbits.agents.agent import Rollout
from mlbits.agents.maths.returns import ReturnRange, RewardScale, gae, next_values, rewards_to_go, whole_returns
from tests.agents.maths.test_open_decisions import one_seat

SHAPES = [(1, 1, 1), (2, 3, 1), (7, 5, 2), (40, 4, 3)]


def randoms(shape, seed, ends=0.25):
    """A window in float64: rewards, values, and episodes that terminate, are truncated, or both at once."""
    draw = torch.Generator().manual_seed(seed)
    steps, copies, seats = shape

    def numbers(*size):
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    def flags():
        return torch.rand(steps, copies, generator=draw) < ends

    return {
        "reward": numbers(*shape), "value": numbers(*shape), "last": numbers(copies, seats),
        "final": numbers(*shape), "terminated": flags(), "truncated": flags(),
        "active": torch.rand(shape, generator=draw) < 0.5,
    }  # fmt: skip


def advantages(window, discount, gae_lambda, active=None):
    ends = window["terminated"], window["truncated"]
    following = next_values(window["value"], window["last"], window["final"], *ends)
    return gae(
        window["reward"], window["value"], following, *ends,
        discount=discount, gae_lambda=gae_lambda, active=active,
    )  # fmt: skip


def value_after(window, t, b, p):
    """The next value of step t by its definition: 0 after the end, the last observation's where truncated."""
    if window["terminated"][t, b]:
        return 0.0
    if window["truncated"][t, b]:
        return float(window["final"][t, b, p])
    return float(window["last"][b, p] if t + 1 == len(window["value"]) else window["value"][t + 1, b, p])


def slow_gae(window, discount, gae_lambda):
    """A_t = sum over l of (gamma lambda)^l delta_{t+l}, up to the end of the episode or window."""
    reward, value = window["reward"], window["value"]
    result = torch.zeros_like(reward)
    for t, b, p in np.ndindex(*reward.shape):
        for k in range(t, len(reward)):
            delta = reward[k, b, p] + discount * value_after(window, k, b, p) - value[k, b, p]
            result[t, b, p] += (discount * gae_lambda) ** (k - t) * delta
            if window["terminated"][k, b] or window["truncated"][k, b]:
                break
    return result


def episodes(window, b):
    """(first step, last step, whether it ended) of each episode of copy b."""
    ended = (window["terminated"] | window["truncated"])[:, b].tolist()
    first, found = 0, []
    for t, end in enumerate(ended):
        if end:
            found.append((first, t, True))
            first = t + 1
    return [*found, *([(first, len(ended) - 1, False)] if first < len(ended) else [])]


def slow_gae_with_turns(window, discount, gae_lambda):
    """Each seat's own decisions only, with its rewards until the next one, then the plain double sum."""
    reward, value, active = window["reward"], window["value"], window["active"]
    result = torch.zeros_like(reward)
    for b, p in np.ndindex(*reward.shape[1:]):
        for first, last, _ in episodes(window, b):
            times = [t for t in range(first, last + 1) if active[t, b, p]]
            deltas = []
            for k, t in enumerate(times):
                until = times[k + 1] if k + 1 < len(times) else last + 1
                earned = float(reward[t:until, b, p].sum())
                following = float(value[until, b, p]) if until <= last else value_after(window, last, b, p)
                deltas.append(earned + discount * following - float(value[t, b, p]))
            for k, t in enumerate(times):
                result[t, b, p] = sum((discount * gae_lambda) ** (j - k) * deltas[j] for j in range(k, len(times)))
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0), (0.0, 0.5)])
def test_gae_equals_the_double_sum(shape, discount, gae_lambda):
    for seed in range(3):
        window = randoms(shape, seed)
        assert torch.allclose(advantages(window, discount, gae_lambda), slow_gae(window, discount, gae_lambda))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.9, 0.8), (1.0, 1.0), (0.5, 0.0)])
def test_gae_in_turn_based_games_equals_the_double_sum_over_own_decisions(shape, discount, gae_lambda):
    for seed in range(3):
        window = randoms(shape, 10 + seed)
        fast = advantages(window, discount, gae_lambda, window["active"])
        assert torch.allclose(fast, slow_gae_with_turns(window, discount, gae_lambda))


def test_gae_needs_no_mask_if_all_seats_act():
    window = randoms((20, 3, 2), 5)
    everyone = torch.ones(20, 3, 2, dtype=torch.bool)
    assert torch.allclose(advantages(window, 0.9, 0.7), advantages(window, 0.9, 0.7, everyone))


def worked(terminated=(0, 0, 0), truncated=(0, 0, 0)):
    """Rewards 1, 2, 3; values 0.5, 1, 1.5 and 2 after; an episode cut in step 1 ends at a value of 4."""

    def column(*numbers):
        return torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1)

    window = {
        "reward": column(1, 2, 3), "value": column(0.5, 1, 1.5), "last": torch.full((1, 1), 2.0).double(),
        "final": column(7, 4, 7), "terminated": torch.tensor(terminated).bool()[:, None],
        "truncated": torch.tensor(truncated).bool()[:, None],
    }  # fmt: skip
    return advantages(window, 0.9, 0.5).flatten().tolist()


def test_gae_worked_by_hand():
    # deltas 1.4, 2.35, 3.3; gamma lambda = 0.45
    assert worked() == pytest.approx([3.12575, 3.835, 3.3])


def test_next_value_is_zero_if_terminated_and_the_last_observations_if_truncated():
    # terminated in step 1: delta 2 - 1 = 1; truncated there: 2 + 0.9 * 4 - 1 = 4.6
    assert worked(terminated=(0, 1, 0)) == pytest.approx([1.4 + 0.45 * 1.0, 1.0, 3.3])
    assert worked(truncated=(0, 1, 0)) == pytest.approx([1.4 + 0.45 * 4.6, 4.6, 3.3])


def test_terminated_and_truncated_counts_as_terminated():
    assert worked(terminated=(0, 1, 0), truncated=(0, 1, 0)) == worked(terminated=(0, 1, 0))


def test_an_episode_cut_in_the_last_step_does_not_read_the_next_episodes_value():
    assert worked(truncated=(0, 0, 1))[2] == pytest.approx(3 + 0.9 * 7 - 1.5)
    assert worked(terminated=(0, 0, 1))[2] == pytest.approx(3 - 1.5)


def test_seats_in_turn_worked_by_hand():
    """Two seats in turn, gamma = 0.5, lambda = 1, no values: one discount per decision, not per tick."""
    reward = torch.tensor([[0.0, 8], [2, 0], [0, 0], [4, 16]]).view(4, 1, 2)
    active = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool().view(4, 1, 2)
    never = torch.zeros(4, 1, dtype=torch.bool)
    ends = never.clone()
    ends[3] = True
    to_go = rewards_to_go(reward, ends, never, discount=0.5, active=active)
    # seat 0: decision 0 earns 0 + 2, decision 2 earns 0 + 4; seat 1: the 8 came before its first decision.
    assert to_go[:, 0, 0].tolist() == [2 + 0.5 * 4, 0, 4, 0]
    assert to_go[:, 0, 1].tolist() == [0, 0 + 0.5 * 16, 0, 16]
    whole = whole_returns(reward, ends, never, discount=0.5, active=active)
    assert whole[:, 0, 0].tolist() == [4, 0, 4, 0]
    assert whole[:, 0, 1].tolist() == [0, 8, 0, 8]


def test_rewards_to_go_and_whole_returns_worked_by_hand():
    reward = torch.tensor([1.0, 2, 4, 8, 16]).view(5, 1, 1)
    never = torch.zeros(5, 1, dtype=torch.bool)
    ends = torch.tensor([0, 0, 1, 0, 0]).bool()[:, None]
    for terminated, truncated in ((ends, never), (never, ends)):  # nothing is bootstrapped, so both are equal
        to_go = rewards_to_go(reward, terminated, truncated, discount=0.5)
        assert to_go.flatten().tolist() == [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16]
        whole = whole_returns(reward, terminated, truncated, discount=0.5)
        assert whole.flatten().tolist() == [3, 3, 3, 16, 16]


def test_whole_returns_are_the_rewards_to_go_of_each_episodes_first_decision():
    window = randoms((30, 4, 2), 8)
    ends = window["terminated"], window["truncated"]
    for active in (None, window["active"]):
        to_go = rewards_to_go(window["reward"], *ends, discount=0.9, active=active)
        whole = whole_returns(window["reward"], *ends, discount=0.9, active=active)
        for b, p in np.ndindex(4, 2):
            for first, last, _ in episodes(window, b):
                times = [t for t in range(first, last + 1) if active is None or active[t, b, p]]
                for t in range(first, last + 1):
                    wanted = to_go[times[0], b, p] if t in times else 0.0
                    assert whole[t, b, p] == pytest.approx(float(wanted))


@pytest.mark.parametrize("bad", [{"discount": 1.01}, {"discount": -0.1}, {"gae_lambda": 2.0}])
def test_factors_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="wanted numbers from 0 to 1"):
        advantages(randoms((3, 2, 1), 0), **{"discount": 0.9, "gae_lambda": 0.9, **bad})


def test_shapes_that_do_not_agree_are_refused_and_named():
    window = randoms((3, 2, 1), 0)
    ends = window["terminated"], window["truncated"]
    wanted = r"got reward \(3, 2, 1\), value \(2, 2, 1\)"
    with pytest.raises(ValueError, match=wanted):
        gae(window["reward"], window["value"][:2], window["value"], *ends, discount=0.9, gae_lambda=0.9)
    with pytest.raises(ValueError, match=r"\[T, B\] twice"):
        one_seat = (window["reward"][..., 0], window["value"][..., 0], window["value"][..., 0])
        gae(*one_seat, ends[0].T, ends[1].T, discount=0.9, gae_lambda=0.9)


def rollout_of(window, active=None):
    return Rollout(
        obs=None, last_obs=None, final_obs=None, sample=None, log_prob=None, reward=window["reward"].float(),
        terminated=window["terminated"], truncated=window["truncated"], legal_mask=None, active=active,
    )  # fmt: skip


def running_returns(windows, discount):
    """The discounted return so far of each copy and seat, over all windows, [T, B, P] each."""
    carry, result = 0.0, []
    for window in windows:
        for t, reward in enumerate(window["reward"].float().double().numpy()):
            carry = discount * carry + reward
            result.append(carry)
            ended = (window["terminated"] | window["truncated"])[t].numpy()
            carry = np.where(ended[:, None], 0.0, carry)
    return np.array(result)


def test_reward_scale_is_the_standard_deviation_of_all_returns_so_far():
    scale, windows = RewardScale(0.9), [randoms((9, 3, 2), seed) for seed in range(4)]
    for k, window in enumerate(windows):
        scaled = scale(rollout_of(window))
        deviation = running_returns(windows[: k + 1], 0.9).std()
        assert torch.allclose(scaled, window["reward"].float() / deviation, rtol=1e-5)


def test_reward_scale_counts_a_seats_decisions_worked_by_hand():
    """gamma = 1/2. Seat 0 decides in steps 0, 2 and 5; seat 1 in 1 and 4, and is seat 0's opponent in turn. The game
    ends in step 3.

    Seat 0: 8 + 1 = 9 by its first decision, 9 / 2 + 2 + 4 = 10.5 by its second; then anew: the 64 of step 4 comes
    before any decision, and 16 by its third. Seat 1: the 100 of step 0 is no decision's; 6 + 2 + 4 = 12 by its first,
    anew 3 + 5 = 8 by its second.
    """
    reward = torch.tensor([[8.0, 100], [1, 6], [2, 2], [4, 4], [64, 3], [16, 5]]).view(6, 1, 2)
    active = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0], [0, 1], [1, 0]]).bool().view(6, 1, 2)
    ends = torch.zeros(6, 1, dtype=torch.bool)
    ends[3] = True
    window = {"reward": reward, "terminated": ends, "truncated": torch.zeros_like(ends)}
    scale = RewardScale(0.5)
    scaled = scale(rollout_of(window, active))
    deviation = np.std([9, 10.5, 16, 12, 8])
    assert torch.allclose(scaled, reward / float(deviation), rtol=1e-6)
    # The running sum continues: 16 / 2 + 7 of a next decision that ends the game.
    more = {"reward": torch.tensor([[7.0, 0]]).view(1, 1, 2), "terminated": torch.tensor([[True]])}
    more["truncated"] = ~more["terminated"]
    scaled = scale(rollout_of(more, torch.tensor([[[True, False]]])))
    assert torch.allclose(scaled, more["reward"] / float(np.std([9, 10.5, 16, 12, 8, 15])), rtol=1e-6)


def test_reward_scale_is_the_same_for_turn_based_and_simultaneous_play():
    """An additional tick between two decisions changes nothing, as in GAE."""
    at_once, in_turns = RewardScale(0.9), RewardScale(0.9)
    for seed in range(3):
        window = randoms((9, 3, 1), seed)
        idle = {name: torch.zeros_like(window[name]) for name in ("reward", "terminated", "truncated")}
        slow = {  # each step's reward comes in two parts, and its end in the second
            name: torch.stack([half * window[name].float() if name == "reward" else idle[name], last], 1).flatten(0, 1)
            for name, half, last in (
                ("reward", 0.25, 0.75 * window["reward"].float()),
                ("terminated", 0, window["terminated"]),
                ("truncated", 0, window["truncated"]),
            )
        }
        active = torch.tensor([True, False]).repeat(9).view(18, 1, 1).expand(18, 3, 1)
        first, second = at_once(rollout_of(window)), in_turns(rollout_of(slow, active))
        assert torch.allclose(second.view(9, 2, 3, 1).sum(1), first, rtol=1e-5)


def test_reward_scale_ignores_other_players_seats():
    windows = [randoms((9, 3, 2), seed) for seed in range(3)]
    active = torch.zeros(9, 3, 2, dtype=torch.bool)
    active[..., 0] = True  # seat 1 is another player's
    scale = RewardScale(0.9)
    for k, window in enumerate(windows):
        window["reward"][..., 1] *= 1000
        scaled = scale(rollout_of(window, active))
        deviation = running_returns(windows[: k + 1], 0.9)[..., 0].std()
        assert torch.allclose(scaled[..., 0], window["reward"][..., 0].float() / deviation, rtol=1e-5)


def test_reward_scale_is_restored_from_a_saved_state():
    first, second = RewardScale(0.9), RewardScale(0.9)
    first(rollout_of(randoms((9, 3, 2), 0)))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    following = rollout_of(randoms((9, 3, 2), 1))
    assert torch.equal(first(following), second(following))


def test_reward_scale_settles_open_decisions_of_a_replay_worked_by_hand():
    """gamma = 1/2. The seat acts at steps 0, 2 and 3 of 5 and at 1 of the next 3, where the game ends; then at 0.

    3 by its first decision, 3 / 2 + 4 by its second; its third waits at the end: 8 + 16, then 32, and the seat acts:
    5.5 / 2 + 56. The fourth gets 64 until the game ends. It is a new game after that: 5 by the fifth.
    """
    scale = RewardScale(0.5)
    scale.update(one_seat([1, 0, 1, 1, 0], False, [1, 2, 4, 8, 16]))
    assert (scale.count, scale.mean) == (2, pytest.approx((3 + 5.5) / 2))
    scale.update(one_seat([0, 1, 0], False, [32, 60, 4], terminated=[2]))
    seen = [3, 5.5, 5.5 / 2 + 56, (5.5 / 2 + 56) / 2 + 64]
    assert (scale.count, scale.unit) == (4, pytest.approx(np.std(seen), rel=1e-6))
    scale.update(one_seat([1, 1], True, [5, 7]))
    assert (scale.count, scale.unit) == (5, pytest.approx(np.std([*seen, 5]), rel=1e-6))


@pytest.mark.parametrize("acts", [False, True])
def test_reward_scale_of_a_replay_leaves_out_what_a_limit_kept_unknown(acts):
    """The seat waits when its game is truncated: its last decision counts only if it would have acted there."""
    scale = RewardScale(0.5)
    scale.update(one_seat([1, 1, 0, 1, 1], False, [1, 2, 4, 8, 0], truncated=[2], final_active=[2] if acts else []))
    seen = [1.0, 6.5, 8.0] if acts else [1.0, 8.0]
    assert (scale.count, scale.mean) == (len(seen), pytest.approx(np.mean(seen)))


def test_reward_scale_of_a_replay_does_not_depend_on_where_rollouts_end():
    whole, parts = RewardScale(0.9), RewardScale(0.9)
    window = randoms((24, 3, 2), 5)
    active = torch.rand(24, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    final = torch.ones(24, 3, 2, dtype=torch.bool)

    def part(low, high):
        rollout = rollout_of({name: value[low:high] for name, value in window.items()}, active[low:high])
        return dataclasses.replace(rollout, last_active=active[min(high, 23)], final_active=final[low:high])

    whole.update(part(0, 24))
    for low in range(0, 24, 4):
        restored = RewardScale(0.9)
        restored.load_state_dict(parts.state_dict())
        parts = restored
        parts.update(part(low, low + 4))
    assert (parts.count, parts.unit) == (whole.count, pytest.approx(whole.unit, rel=1e-6))


def test_returns_that_are_all_the_same_are_scaled_to_one_and_none_by_one():
    one = {"reward": torch.full((4, 3, 1), 0.25), "terminated": torch.ones(4, 3).bool()}
    one["truncated"] = ~one["terminated"]
    scale = RewardScale(0.9)
    assert scale(rollout_of(one)).flatten().tolist() == [1.0] * 12
    nothing = {**one, "reward": torch.zeros(4, 3, 1)}
    assert RewardScale(0.9)(rollout_of(nothing)).abs().max() == 0
    assert RewardScale(0.9).unit == 1.0


# The range of returns


def rewarded(reward, ended=(), seats=None):
    """Rewards [T, 1, P] of one copy, whose episodes end in the steps ``ended``."""
    reward = torch.tensor(reward, dtype=torch.float32).view(len(reward), 1, -1)
    flags = torch.tensor([[t in ended] for t in range(len(reward))])
    active = None if seats is None else torch.tensor(seats).expand(reward.shape).clone()
    return SimpleNamespace(reward=reward, terminated=flags, truncated=torch.zeros_like(flags), active=active)


def test_the_range_of_returns_by_hand():
    """s <- s / 2 + r: 1, 2.5, -2.75, then anew: -1, 0.5."""
    seen = ReturnRange(0.5)
    seen.check(rewarded([1.0, 2.0, -4.0], ended=[2]), -9.0, 9.0)
    assert (seen.low, seen.high) == (-2.75, 2.5)
    seen.check(rewarded([-1.0, 1.0]), -9.0, 9.0)
    assert (seen.low, seen.high) == (-2.75, 2.5)
    seen.check(rewarded([3.0]), -9.0, 9.0)  # 0.5 / 2 + 3: the running sum continues in the next rollout
    assert seen.high == 3.25


def test_a_constant_reward_sums_to_the_discounted_return():
    seen = ReturnRange(0.9)
    with pytest.warns(UserWarning, match="from 1 to 10 were seen, and the support is 0 to 9.5"):
        seen.check(rewarded([1.0] * 300), 0.0, 9.5)
    assert seen.high == pytest.approx(10, rel=1e-4)


def test_the_range_of_returns_ignores_other_players_seats():
    seen = ReturnRange(1.0)
    seen.check(rewarded([[1.0, 99.0], [1.0, -99.0]], seats=[True, False]), -5.0, 5.0)
    assert (seen.low, seen.high) == (1.0, 2.0)


def test_the_range_of_returns_counts_a_seats_decisions():
    """gamma = 1/2: the 5 before any decision belong to none; 8 - 6 = 2 by the first (8 never was a return); and
    2 / 2 - 1 - 3 = -3 by the second, once the next rollout has it. Nothing more is earned while the seat waits."""

    def rewards_of(reward, acts, last, ended=()):
        part = rewarded(reward, ended)
        part.active, part.last_active = torch.tensor(acts).bool().view(-1, 1, 1), torch.tensor([[last]])
        return part

    one, two = ReturnRange(0.5), ReturnRange(0.5)
    one.check(rewards_of([5.0, 8.0, -6.0, -1.0], [0, 1, 0, 1], last=False), -9.0, 9.0)
    assert (one.low, one.high) == (2.0, 2.0)
    two.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for seen in (one, two):
        seen.check(rewards_of([-3.0, 1.0], [0, 1], last=True), -9.0, 9.0)
        assert (seen.low, seen.high) == (-3.0, 2.0)  # -3 / 2 + 1 = -0.5 by the third, known as the seat acts again
        seen.check(rewards_of([2.0, 7.0], [1, 0], last=False, ended=[0]), -9.0, 9.0)
        assert (seen.low, seen.high) == (-3.0, 2.0)  # -0.5 / 2 + 2 = 1.75 at the end; the 7 belongs to no decision


def test_the_range_of_returns_is_restored_from_a_saved_state():
    one, two = ReturnRange(0.5), ReturnRange(0.5)
    assert one.state_dict() == {}  # nothing seen yet: an infinite range cannot be saved
    two.check(rewarded([9.0]), -9.0, 9.0)
    two.load_state_dict(one.state_dict())
    assert two.state_dict() == {}
    one.check(rewarded([4.0]), -9.0, 9.0)
    two.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for seen in (one, two):
        seen.check(rewarded([1.0]), -9.0, 9.0)
        assert (seen.low, seen.high, seen.warned) == (3.0, 4.0, False)
