"""The replay buffer against a plain list of everything that was played, and against the papers' formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.agents.agent import AgentError, ReplaySpec, Rollout, rows
from mlbits.agents.memory.replay import Replay, replay_bytes
from tests.agents.memory.plays import GAMMA, Play, everything, hand_written, image, index, vector
from tests.agents.rollouts import draw


def check(play, drawn, n_step, steps):
    """Compare every sampled transition with the list; returns the (time, copy, seat) of each."""
    held, places = play.held(steps), []
    for k in range(len(drawn.reward)):
        place = play.where(drawn.obs[k])
        places.append(place)
        assert place in held
        time, copy, seat = place
        step = play.record[time]
        reward, discount, following, next_mask, ended = play.window(*place, n_step)
        assert torch.equal(drawn.obs[k], vector(step["obs"][copy, seat]))
        assert drawn.action[k] == step["action"][copy, seat]
        assert float(drawn.reward[k]) == pytest.approx(reward, abs=1e-5)
        assert float(drawn.discount[k]) == pytest.approx(discount, rel=1e-6)
        assert torch.equal(drawn.next_obs[k], vector(following))
        assert (drawn.mask is None) == (drawn.next_mask is None) == (not play.masked)
        if play.masked:
            assert torch.equal(drawn.mask[k], step["mask"][copy, seat])
            if discount and not ended:
                assert torch.equal(drawn.next_mask[k], next_mask)
    return places


# By hand


def transitions(replay, n_step, discount=0.5):
    """All transitions in the buffer: {action: (reward, discount, next observation)}."""
    drawn = replay.sample(400, draw(), n_step=n_step, discount=discount)
    parts = (drawn.action.tolist(), drawn.reward.tolist(), drawn.discount.tolist(), drawn.next_obs.flatten().tolist())
    assert torch.equal(drawn.obs.flatten(), 10.0 * drawn.action)
    return {action: rest for action, *rest in sorted(zip(*parts, strict=True))}


def small(capacity=6, num_steps=3, exponent=0.0):
    zero = torch.zeros(1, 1, dtype=torch.int64)
    return Replay(ReplaySpec(num_steps, capacity, exponent), torch.zeros(1, 1, 1), zero, None)


@pytest.mark.parametrize("own", [2, 400])
def test_other_players_steps_are_not_sampled_and_the_learners_are_equally_likely(own):
    """Half of the stored steps are the learner's, or almost none."""
    flat = torch.zeros(200, 4, 1)
    active = torch.zeros(800, dtype=torch.bool)
    active[torch.randperm(800, generator=draw())[:own]] = True
    replay = Replay(ReplaySpec(200, 1600), torch.zeros(4, 1, 1), torch.zeros(4, 1, dtype=torch.int64), None)
    ends = torch.zeros(200, 4, dtype=torch.bool)
    replay.add(
        Rollout(
            flat[..., None], flat[0][..., None], flat[..., None], flat.long(), flat, flat, ends, ends, None,
            active.view(200, 4, 1),
        )
    )  # fmt: skip
    drawn = torch.bincount(replay.sample(200 * own, draw()).slot, minlength=800)
    assert not drawn[~active].any()
    assert drawn[active].float().mean() == 200
    assert drawn[active].min() > 100
    assert drawn[active].max() < 300


def test_one_step_by_hand():
    replay = small()
    replay.add(hand_written(terminated=[1], truncated=[3]))
    assert len(replay) == replay.added == 6
    assert transitions(replay, 1) == {
        0: [1, 0.5, 10],
        1: [2, 0.0, 15],  # terminated: no bootstrap
        2: [4, 0.5, 30],
        3: [8, 0.5, 35],  # truncated: bootstrap from the episode's final observation
        4: [16, 0.5, 50],
        5: [32, 0.5, 60],
    }


def test_three_steps_by_hand():
    replay = small()
    replay.add(hand_written(terminated=[1], truncated=[4]))
    assert transitions(replay, 3) == {
        0: [1 + 2 / 2, 0.0, 15],
        1: [2, 0.0, 15],
        2: [4 + 8 / 2 + 16 / 4, 0.125, 45],
        3: [8 + 16 / 2, 0.25, 45],
        4: [16, 0.5, 45],
        5: [32, 0.5, 60],  # the newest step: the next steps are not known yet
    }


def test_a_step_that_is_both_terminated_and_truncated_counts_as_terminated():
    replay = small()
    replay.add(hand_written(terminated=[2], truncated=[2]))
    assert transitions(replay, 1)[2] == [4, 0.0, 25]
    assert transitions(replay, 3)[1] == [2 + 4 / 2, 0.0, 25]


def test_new_steps_extend_the_newest_window_and_overwrite_the_oldest_steps():
    replay = small(capacity=7)
    replay.add(hand_written())
    assert transitions(replay, 2)[5] == [32, 0.5, 60]
    replay.add(hand_written(steps=3))
    assert len(replay) == 7
    assert replay.added == 9
    held = replay.sample(400, draw(), n_step=2, discount=0.5)
    found = {(int(obs), float(reward)) for obs, reward in zip(held.obs.flatten(), held.reward, strict=True)}
    # steps 2 to 5 of the first rollout, and 0 to 2 of the second, whose first follows the last of the first rollout
    assert found == {(20, 4 + 4.0), (30, 8 + 8.0), (40, 16 + 16.0), (50, 32 + 0.5), (0, 2.0), (10, 4.0), (20, 4.0)}


def test_windows_do_not_extend_across_a_cut():
    replay = small(capacity=12)
    replay.cut()  # has no effect on an empty buffer
    replay.add(hand_written())
    replay.cut()
    assert transitions(replay, 3)[5] == [32, 0.5, 60]
    replay.add(hand_written())
    held = replay.sample(400, draw(), n_step=3, discount=0.5)
    last = held.next_obs.flatten() == 60  # windows at the end of either rollout
    assert set(held.reward[last].tolist()) == {32.0, 16 + 16.0, 8 + 8 + 8.0}
    assert set(held.discount[last & (held.reward == 32)].tolist()) == {0.5, 0.25}


# Against the list


@given(
    copies=st.integers(1, 3), seats=st.integers(1, 2), rounds=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    spare=st.integers(0, 13), n_step=st.integers(1, 7), masked=st.booleans(), owned=st.sampled_from([1.0, 0.6]),
    ends=st.sampled_from([(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.2)]), cuts=st.sets(st.integers(0, 7)),
    exponent=st.sampled_from([0.0, 0.7]), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_sampled_transitions_are_those_that_were_played(
    copies, seats, rounds, spare, n_step, masked, owned, ends, cuts, exponent, seed
):
    play = Play(copies, seats, seed, *ends, masked, owned)
    streams = copies * seats
    replay = play.replay((8 + spare) * streams + spare % streams, num_steps=4, exponent=exponent)
    steps, life = 8 + spare, 0
    for k, length in enumerate(rounds):
        replay.add(play.rollout(length, life))
        for tensor in play.reused.values():
            tensor.fill_(True if tensor.dtype == torch.bool else 77)
        assert len(replay) == min(len(play.record), steps) * streams
        if k in cuts:
            replay.cut()
            play.cut()
            life += 1
    held = play.held(steps)
    everywhere = play.held(10**9)
    assert replay.added == len(everywhere)
    if not held:
        with pytest.raises(AgentError, match="no transition that may be sampled"):
            replay.sample(1, draw(seed), n_step=n_step, discount=GAMMA)
        return
    drawn = replay.sample(3 * len(held), draw(seed), n_step=n_step, discount=GAMMA, weight_exponent=0.5)
    places = check(play, drawn, n_step, steps)
    if exponent:
        assert set(places) == held  # new transitions have equal priorities, so each is sampled
        assert torch.equal(drawn.weight, torch.ones(len(places)))
    else:
        assert drawn.weight is None


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("owned", [1.0, 0.5])
def test_uniform_sampling_is_uniform_over_the_transitions_that_may_be_sampled(masked, owned):
    play = Play(copies=3, seats=2, seed=3, masked=masked, owned=owned)
    replay = play.replay(10 * 6, num_steps=4)
    for _ in range(6):
        replay.add(play.rollout(4))
    held = sorted(play.held(10))
    drawn = replay.sample(60_000, draw(1), discount=GAMMA)
    numbers = torch.unique(drawn.slot, return_counts=True)[1] / 60_000
    assert len(numbers) == len(held)
    assert (len(held) < 60) == (masked or owned < 1)
    deviation = math.sqrt((1 - 1 / len(held)) / len(held) / 60_000)
    assert (numbers - 1 / len(held)).abs().max() < 5 * deviation


@pytest.mark.parametrize("seen", [index, image, everything])
def test_observations_of_any_kind_are_stored_unchanged(seen):
    plain, other = Play(seed=5, copies=3), Play(seed=5, copies=3, seen=seen)
    one, two = plain.replay(27), other.replay(27)
    for _ in range(5):
        one.add(plain.rollout(3))
        two.add(other.rollout(3))
    drawn = one.sample(200, draw(2), n_step=3)
    shown = two.sample(200, draw(2), n_step=3)
    assert torch.equal(drawn.slot, shown.slot)
    assert torch.equal(drawn.reward, shown.reward)
    for name in ("obs", "next_obs"):
        wanted, got = seen(getattr(drawn, name)[:, 0]), getattr(shown, name)
        pairs = [(wanted, got)] if not isinstance(wanted, dict) else [(wanted[key], got[key]) for key in wanted]
        for value, kept in pairs:
            assert kept.dtype == value.dtype
            assert torch.equal(kept, value)


def test_actions_of_any_shape_and_type_are_stored():
    obs, action = torch.zeros(2, 1, 1), torch.zeros(2, 1, 3)
    replay = Replay(ReplaySpec(2, 8), obs, action, None)
    sample = torch.randn(2, 2, 1, 3, generator=draw())
    flags = torch.zeros(2, 2, dtype=torch.bool)
    number = torch.arange(4.0).view(2, 2, 1)
    replay.add(Rollout(number[..., None], obs, number[..., None], sample, number, number, flags, flags, None, None))
    drawn = replay.sample(50, draw())
    assert torch.equal(drawn.action, sample.flatten(0, 2)[drawn.obs.flatten().long()])


def test_of_a_rollout_longer_than_the_buffer_the_end_is_stored():
    play = Play(seed=1, copies=2)
    replay = play.replay(2 * 7, num_steps=3)
    replay.add(play.rollout(3))
    replay.add(play.rollout(19))
    assert len(replay) == 14
    assert set(check(play, replay.sample(400, draw(), n_step=4, discount=GAMMA), 4, 7)) == play.held(7)


# Priorities


def prioritised(exponent=0.6, count=8):
    """A buffer of one stream whose transitions 0..count-1 have errors 0.5, 1, 1.5, ..., and these errors."""
    replay = small(capacity=count, num_steps=1, exponent=exponent)
    replay.add(hand_written(steps=count))
    error = 0.5 * (torch.arange(count) + 1.0)
    replay.set_priority(torch.arange(count), -error)  # the sign is ignored
    return replay, error.double() + 1e-6


@pytest.mark.parametrize("exponent", [0.3, 0.6, 1.0])
def test_sampling_is_in_proportion_to_priorities_to_the_exponent(exponent):
    """Schaul et al., equation 1: P(i) = p_i ** alpha / sum_k p_k ** alpha, p_i = |error_i| + a small constant."""
    replay, error = prioritised(exponent)
    wanted = error**exponent / (error**exponent).sum()
    frequency = torch.zeros(8, dtype=torch.float64)
    for seed in range(400):
        frequency += torch.bincount(replay.sample(64, draw(seed)).slot, minlength=8) / (400 * 64)
    assert ((frequency - wanted).abs() < 5 * (wanted * (1 - wanted) / (400 * 64)).sqrt()).all()


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_correct_the_bias_to_the_power_beta(beta):
    """Section 3.4: w_i = (1 / (N P(i))) ** beta, divided by the highest weight of the minibatch."""
    replay, error = prioritised(0.6)
    likely = error**0.6 / (error**0.6).sum()
    drawn = replay.sample(32, draw(1), weight_exponent=beta)
    wanted = (1 / (8 * likely[drawn.slot])) ** beta
    assert drawn.weight.dtype == torch.float32
    assert torch.allclose(drawn.weight.double(), wanted / wanted.max(), rtol=1e-6)
    assert drawn.weight.max() == 1


def test_weighted_samples_estimate_the_uniform_mean_without_bias():
    """With beta = 1 and one sample per part of the total, E[sum_i w_i x_i / sum_i w_i] is close to the plain mean."""
    replay, _ = prioritised(1.0)
    value = torch.tensor([5.0, -3.0, 2.0, -8.0, -1.0, 0.0, 4.0, 7.0])
    drawn = replay.sample(40_000, draw(0), weight_exponent=1.0)
    weighted = (drawn.weight * value[drawn.slot]).sum() / drawn.weight.sum()
    assert float(weighted) == pytest.approx(0.75, abs=0.05)
    assert float(value[drawn.slot].mean()) == pytest.approx(1.4722, abs=0.05)  # 53 / 36: weighted by priority


def test_a_minibatch_has_one_sample_from_each_part_of_the_total():
    replay = small(capacity=8, num_steps=1, exponent=1.0)
    replay.add(hand_written(steps=8))
    for seed in range(20):
        assert replay.sample(8, draw(seed)).slot.tolist() == list(range(8))


def test_new_transitions_get_the_highest_priority_so_far():
    replay = small(capacity=8, num_steps=1, exponent=1.0)
    replay.add(hand_written(steps=2))  # the first priorities are 1
    replay.set_priority(torch.tensor([0, 1]), torch.tensor([3.0, 1.0]))
    replay.set_priority(torch.tensor([0]), torch.tensor([0.5]))  # no transition has priority 3 now, but it still counts
    replay.add(hand_written(steps=1))
    drawn = replay.sample(9000, draw(), weight_exponent=1.0)
    frequency = torch.bincount(drawn.slot, minlength=3) / 9000
    assert torch.allclose(frequency, torch.tensor([0.5, 1.0, 3.0]) / 4.5, atol=0.001)


def test_excluded_transitions_are_never_sampled_whatever_the_priorities_of_others():
    play = Play(copies=2, seats=2, seed=8, masked=True, owned=0.5)
    replay = play.replay(4 * 20, num_steps=4, exponent=0.8)
    for seed in range(40):
        replay.add(play.rollout(4))
        drawn = replay.sample(16, draw(seed), n_step=3, discount=GAMMA, weight_exponent=0.7)
        check(play, drawn, 3, 20)
        assert torch.isfinite(drawn.weight).all()
        replay.set_priority(drawn.slot, 10 * torch.rand(16, generator=draw(seed + 1000)))


def test_importance_weights_count_only_transitions_that_may_be_sampled():
    """P(i) is over the transitions that may be sampled; N cancels, since the highest weight is 1."""
    play = Play(copies=2, seats=2, seed=8, owned=0.5)
    replay = play.replay(4 * 8, num_steps=4, exponent=1.0)
    replay.add(play.rollout(4))
    slots = torch.unique(replay.sample(200, draw()).slot)
    error = torch.rand(len(slots), generator=draw(3)) + 0.1
    replay.set_priority(slots, error)
    drawn = replay.sample(64, draw(1), weight_exponent=0.5)
    chosen = error[torch.searchsorted(slots, drawn.slot)]
    assert torch.allclose(drawn.weight, (chosen.min() / chosen) ** 0.5, rtol=1e-4)


# Memory, saving, errors


def tensors_of(replay):
    kept = {}
    tree = vars(replay._tree) if replay._tree else {}
    for name, value in {**vars(replay), **vars(replay._seen), **tree}.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        kept |= {f"{name}.{key}": part for key, part in parts if isinstance(part, torch.Tensor)}
    return kept


@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("masked", [False, True])
def test_memory_is_as_computed_in_advance_and_stays_constant(masked, exponent):
    play = Play(copies=4, seats=2, seed=2, masked=masked, seen=everything, terminates=0.01, truncates=0.01)
    replay = play.replay(8 * 32, num_steps=4, exponent=exponent)
    fixed = {name for name in tensors_of(replay) if not name.startswith("_free")}
    before = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in tensors_of(replay).items()}
    size = sum(tensor.untyped_storage().nbytes() for tensor in tensors_of(replay).values())
    mask = play.mask if masked else None
    action = torch.zeros(4, 2, dtype=torch.int64)
    most = replay_bytes(play.spec(8 * 32, 4, exponent), everything(play.moment(0, 0)), action, mask)
    assert size == most - (16 * 8 * 32 if exponent else 0)  # the capacity is a power of two: no unused leaves
    for seed in range(30):
        replay.add(play.rollout(4))
        drawn = replay.sample(8, draw(seed), n_step=2)
        if exponent:
            replay.set_priority(drawn.slot, drawn.reward)
    after = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in tensors_of(replay).items()}
    assert {name: after[name] for name in fixed} == {name: before[name] for name in fixed}
    assert len(replay) == 8 * 32


@pytest.mark.parametrize("rounds", [1, 3, 9])
@pytest.mark.parametrize(("masked", "owned", "exponent"), [(False, 1.0, 0.0), (True, 0.5, 0.0), (True, 0.5, 0.7)])
def test_a_restored_buffer_continues_bit_for_bit(rounds, masked, owned, exponent):
    plays = [Play(copies=3, seed=4, masked=masked, owned=owned, seen=everything) for _ in range(2)]
    one, two = (play.replay(3 * 17, num_steps=4, exponent=exponent) for play in plays)
    for k in range(rounds):
        for play in plays:
            rollout = play.rollout(4)
            if play is plays[0]:
                one.add(rollout)
        if exponent:
            drawn = one.sample(5, draw(k))
            one.set_priority(drawn.slot, 9 * drawn.reward)
    saved = {name: value.clone() for name, value in one.state_dict().items()}
    assert {value.device.type for value in saved.values()} == {"cpu"}
    two.load_state_dict(saved)
    for k in range(6):
        drawn = [replay.sample(20, draw(k), n_step=3, weight_exponent=0.6) for replay in (one, two)]
        for value, same in zip(*drawn, strict=True):
            parts = [(value, same)] if not isinstance(value, dict) else [(value[key], same[key]) for key in value]
            assert all(part is other is None or torch.equal(part, other) for part, other in parts)
        for replay, play, of in zip((one, two), plays, drawn, strict=True):
            if exponent:
                replay.set_priority(of.slot, of.reward)
            replay.add(play.rollout(4))
    state, same = one.state_dict(), two.state_dict()
    assert state.keys() == same.keys()
    assert all(torch.equal(state[name], same[name]) for name in state)


def test_only_the_filled_part_is_saved():
    play = Play(copies=2)
    replay = play.replay(1000)
    replay.add(play.rollout(3))
    state = {name: len(value) for name, value in replay.state_dict().items()}
    assert {state[name] for name in ("action.all", "reward.all", "last.all", "seen.at", "seen.next")} == {6}
    assert state["seen.ring.obs"] == 8  # with what followed


def test_the_state_of_a_different_buffer_is_rejected():
    play = Play(copies=2)
    replay, other = play.replay(40), Play(copies=2, seen=index).replay(40)
    replay.add(play.rollout(3))
    with pytest.raises(ValueError, match=r"replay.ring.obs: got \(8, 2\); wanted \(42,\)"):
        other.load_state_dict(replay.state_dict())
    for _ in range(6):
        replay.add(play.rollout(3))
    with pytest.raises(ValueError, match=r"replay.action: got \(40,\); wanted \(12,\)"):
        Play(copies=2).replay(12).load_state_dict(replay.state_dict())
    with pytest.raises(KeyError, match="priority"):
        Play(copies=2).replay(40, exponent=0.5).load_state_dict(replay.state_dict())


def test_too_small_a_capacity_is_rejected():
    play = Play(copies=3, seats=2)
    play.replay(2 * 3 * 6)
    with pytest.raises(
        AgentError,
        match=r"^buffer_size: got 35, which is 5 steps of 6 copies and seats; wanted at least two rollouts: 36",
    ):
        play.replay(2 * 3 * 6 - 1)


def test_sampling_from_a_buffer_without_usable_transitions_is_an_error():
    for exponent in (0.0, 1.0):
        play = Play(copies=2, masked=True, terminates=0.0, truncates=1.0)
        replay = play.replay(20, exponent=exponent)
        with pytest.raises(AgentError, match="no transition that may be sampled"):
            replay.sample(1, draw())
        replay.add(play.rollout(3))  # masked and truncated at every step: nothing may be sampled
        assert len(replay) == 6
        assert replay.added == 0
        with pytest.raises(AgentError, match="no transition that may be sampled"):
            replay.sample(1, draw())


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_sampling_after_all_usable_transitions_were_overwritten_is_an_error(exponent):
    play = Play(copies=2, terminates=0.0, truncates=0.0, owned=0.999)
    replay = play.replay(2 * 6, exponent=exponent)
    replay.add(play.rollout(3))
    assert len(replay.sample(4, draw()).slot) == 4
    play.owned = 0.0
    for _ in range(2):
        replay.add(play.rollout(3))
    assert replay.added == 6
    with pytest.raises(AgentError, match="no transition that may be sampled; wanted some of the learner's own"):
        replay.sample(4, draw())


def test_the_latest_rollout_is_available():
    play = Play()
    replay = play.replay(40)
    assert replay.latest is None
    rollout = play.rollout(3)
    replay.add(rollout)
    assert replay.latest is rollout
    assert rows(rollout.obs, 3).shape == (6, 2)


@pytest.mark.parametrize("owned", [1.0, 0.6])
@pytest.mark.parametrize("exponent", [0.0, 0.7])
def test_minibatches_sampled_together_equal_those_sampled_one_by_one(owned, exponent):
    """Also if some of the stored transitions may not be sampled, which takes repeated draws."""
    play = Play(copies=3, owned=owned)
    replay = play.replay(60, exponent=exponent)
    for _ in range(5):
        replay.add(play.rollout(3))
    together = replay.sample(8, draw(5), n_step=2, minibatches=4)
    generator = draw(5)
    apart = [replay.sample(8, generator, n_step=2) for _ in range(4)]
    for name in ("obs", "action", "reward", "discount", "next_obs", "slot"):
        wanted = torch.cat([getattr(one, name) for one in apart])
        assert torch.equal(getattr(together, name), wanted), name
    if exponent:
        assert torch.equal(together.weight, torch.cat([one.weight for one in apart]))
