"""The network for orders: probabilities against a plain loop, sampling, legality, entropy gradients, and learning."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.networks.orders import OrderDistribution, OrderNetwork, OrderParams, fits_orders
from mlbits.agents.networks.policy_value import ActorCritic
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.agents.reinforce import Reinforce, ReinforceConfig
from mlbits.envs.core.order_space import OrderSpace
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu
from tests.agents.rollouts import draw

# Four areas in a circle. A unit's list: hold, two moves, two supports of moves; the list of builds: waive, three areas.
HOLD, MOVE, SUPPORT, BUILD, WAIVE = range(5)
AREAS, SLOTS, BUILDS = 4, 3, 5  # BUILDS is the number of the list of builds, counted from 1


def circle():
    near = np.array([[abs(a - b) in (1, 3) for a in range(AREAS)] for b in range(AREAS)])
    entries, start = [], [0]
    for a in range(AREAS):
        left, right, across = (a - 1) % AREAS, (a + 1) % AREAS, (a + 2) % AREAS
        entries += [(HOLD, a, -1, -1), (MOVE, a, -1, left), (MOVE, a, -1, right)]
        entries += [(SUPPORT, a, across, left), (SUPPORT, a, across, right)]
        start.append(len(entries))
    entries += [(WAIVE, -1, -1, -1), *((BUILD, a, -1, a) for a in range(3))]
    start.append(len(entries))
    table = np.array(entries).T
    return OrderSpace(SLOTS, np.array(start), dict(zip(("kind", "actor", "other", "target"), table, strict=True)), near)


SPACE = circle()
HIGH = np.array([[1, 1, 4]] * AREAS, np.int8)
OBSERVATIONS = spaces.Dict(
    {
        "areas": spaces.Box(np.zeros_like(HIGH), HIGH, dtype=np.int8),
        "status": spaces.Box(-1, 1, (2,), np.float32),
        "slots": spaces.MultiDiscrete([6] * SLOTS),
    }
)
WIDTH = 5


def seen(rows, seed=0):
    """Rows of observations with, in turn, units in areas 0 and 2, builds, one unit, and nothing to order."""
    generator = draw(seed)
    areas = torch.stack([torch.randint(0, n + 1, (rows, AREAS), generator=generator) for n in (1, 1, 4)], -1)
    slots = torch.tensor([[1, 3, 0], [BUILDS, BUILDS, BUILDS], [0, 0, 4], [0, 0, 0]])[torch.arange(rows) % 4]
    status = torch.rand(rows, 2, generator=generator)
    return {"areas": areas.to(torch.int8), "status": status, "slots": slots.to(torch.int32)}


def legal(obs, seed=1):
    """Masks: some choices in each slot, the whole list of builds, and only choice 0 if there is nothing to order."""
    slots = obs["slots"]
    mask = torch.rand(*slots.shape, WIDTH, generator=draw(seed)) < 0.6
    mask[..., 1] = True
    mask[slots == 0] = torch.arange(WIDTH) == 0
    mask[slots == BUILDS] = torch.arange(WIDTH) < 4
    return mask.flatten(1)


def made(seed=0, hidden=(8, 8)):
    """A network whose scores differ strongly."""
    network = OrderNetwork(OBSERVATIONS, SPACE, hidden, draw(seed))
    with torch.no_grad():
        for weight in (network.decoder.to_word, network.decoder.to_look):
            weight.mul_(100)
        network.decoder.from_given.mul_(5)
        network.decoder.bias.normal_(generator=draw(seed + 1))
    return network, OrderDistribution(network.decoder)


def by_loops(network, obs, mask, action, row):
    """Log probability and entropy of one row's orders, one slot and one order at a time."""
    decoder = network.decoder
    areas, board, _ = (part[row].double() for part in network.policy(obs))
    weights = {name: value.double() for name, value in decoder.named_parameters()}
    kinds = 5

    def word(entry):
        parts = [SPACE.entries[name][entry] for name in ("kind", "actor", "other", "target")]
        total = sum(weights[f"words.{k}"][part if part >= 0 else AREAS] for k, part in enumerate(parts))
        return total.clamp(min=0)

    given, used, log_prob, entropy = torch.zeros(32).double(), set(), 0.0, 0.0
    for slot in range(SLOTS):
        number = int(obs["slots"][row, slot]) - 1
        if number < 0:
            continue
        start = int(SPACE.list_start[number])
        hidden = board @ weights["from_board"] + weights["query_bias"] + given @ weights["from_given"]
        if number < AREAS:  # a unit's list: all its orders are of one area
            hidden = hidden + areas[number] @ weights["from_area"]
        hidden = hidden.clamp(min=0)
        looks = (hidden @ weights["to_look"]).view(2 * kinds, -1)
        choices = mask[row].view(SLOTS, WIDTH)[slot].nonzero().squeeze(1).tolist()
        scores = []
        for choice in choices:
            entry = start + choice
            kind, actor, other, target = (int(SPACE.entries[n][entry]) for n in ("kind", "actor", "other", "target"))
            score = hidden @ weights["to_word"] @ word(entry) + weights["bias"][entry]
            for at, query in ((target, looks[kind]), (other, looks[kinds + kind])):
                score = score + (query @ (areas[at] @ weights["look"]) if at >= 0 else 0.0)
            scores.append(torch.tensor(-1e9).double() if actor in used else score)
        log_p = torch.log_softmax(torch.stack(scores), 0)
        taken = int(action[row, slot])
        log_prob += float(log_p[choices.index(taken)].detach())
        entropy -= float((log_p.exp() * log_p).sum().detach())
        given = given + word(start + taken)
        used |= {int(SPACE.entries["actor"][start + taken])} - {-1}
    return log_prob, entropy


def test_it_fits_order_spaces_with_observations_of_areas():
    assert fits_orders(OBSERVATIONS, SPACE)
    assert not fits_orders(OBSERVATIONS, spaces.MultiDiscrete([5, 5, 5]))
    assert not fits_orders(OBSERVATIONS["status"], SPACE)
    assert not fits_orders(spaces.Dict({"areas": OBSERVATIONS["areas"]}), SPACE)


def test_log_prob_and_entropy_match_a_plain_loop():
    network, distribution = made()
    obs = seen(40)
    mask = legal(obs)
    params = network.policy(obs)
    action = distribution.sample(params, mask, draw(3))
    log_prob, entropy = distribution.log_prob_and_entropy(params, mask, action)
    assert torch.equal(distribution.log_prob(params, mask, action), log_prob)
    wanted = torch.tensor([by_loops(network, obs, mask, action, row) for row in range(40)])
    assert torch.allclose(log_prob, wanted[:, 0], atol=1e-4)
    assert torch.allclose(entropy, wanted[:, 1], atol=1e-4)
    assert wanted[:, 0].min() < -3 and wanted[3].tolist() == [0.0, 0.0]


def test_the_encoder_is_a_graph_convolution():
    network, _ = made()
    obs = seen(3)
    got = network.policy(obs)
    weights = dict(network.named_parameters())
    for row in range(3):
        status, areas = obs["status"][row], obs["areas"][row]
        scaled = areas.float() / torch.tensor([1.0, 1.0, 4.0])
        nodes = scaled @ weights["from_features"] + weights["place"] + status @ weights["from_status"]
        numbers = areas[:, 2].long()
        nodes = nodes + weights["tables.0"][numbers] * (numbers > 0)[:, None]
        nodes = nodes.clamp(min=0)
        for layer in range(2):
            own, near, everywhere = (weights[f"{name}.{layer}"] for name in ("own", "near", "all"))
            new = []
            for a in range(AREAS):
                beside = (nodes[(a - 1) % AREAS] + nodes[(a + 1) % AREAS]) / 2
                change = nodes[a] @ own + beside @ near + nodes.mean(0) @ everywhere + weights[f"biases.{layer}"]
                new.append((nodes[a] + change).clamp(min=0))
            nodes = torch.stack(new)
        assert torch.allclose(got.areas[row], nodes, atol=1e-5)
        board = nodes.mean(0) @ weights["pool"] + status @ weights["pool_status"] + weights["pool_bias"]
        assert torch.allclose(got.board[row], board.clamp(min=0), atol=1e-5)


def every_set(obs, mask):
    """All legal actions of a single row."""
    parts = mask[0].view(SLOTS, WIDTH)
    return torch.tensor(list(itertools.product(*(part.nonzero().squeeze(1).tolist() for part in parts))))


def one_row(slots):
    obs = {name: part[:1] for name, part in seen(4, seed=5).items()}
    obs["slots"] = torch.tensor([slots], dtype=torch.int32)
    return obs


@pytest.mark.parametrize("slots", [[1, 3, 0], [BUILDS, BUILDS, 0]])
def test_sets_of_orders_are_sampled_with_their_probabilities(slots):
    network, distribution = made(2)
    obs = one_row(slots)
    mask = legal(obs, seed=8)
    sets = every_set(obs, mask)
    repeated = OrderParams(*(part.expand(len(sets), *part.shape[1:]) for part in network.policy(obs)))
    chance = distribution.log_prob(repeated, mask.expand(len(sets), -1), sets).exp()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    assert (chance > 0.01).sum() > 5
    count = 20_000
    many = OrderParams(*(part.expand(count, *part.shape[1:]) for part in network.policy(obs)))
    drawn = distribution.sample(many, mask.expand(count, -1), draw(1))
    codes = torch.tensor([25, 5, 1])
    frequency = torch.bincount((drawn * codes).sum(1), minlength=125)[(sets * codes).sum(1)] / count
    assert float(frequency.sum()) == pytest.approx(1)
    assert ((frequency - chance).abs() < 5 * (chance * (1 - chance) / count).sqrt() + 1e-6).all()


def test_orders_depend_on_the_orders_before():
    network, distribution = made(2)
    obs = one_row([1, 3, 0])
    mask = torch.ones(5, SLOTS * WIDTH, dtype=torch.bool)
    params = OrderParams(*(part.expand(5, *part.shape[1:]) for part in network.policy(obs)))
    conditional = []
    for first in (0, 1):
        sets = torch.stack([torch.full((5,), first), torch.arange(5), torch.zeros(5).long()], 1)
        conditional.append(torch.softmax(distribution.log_prob(params, mask, sets), 0))
    assert (conditional[0] - conditional[1]).abs().max() > 0.01


def test_the_mode_is_the_most_probable_order_slot_by_slot():
    network, distribution = made(4)
    obs = one_row([1, 3, 0])
    mask = legal(obs, seed=3)
    params = network.policy(obs)
    mode = distribution.mode(params, mask)
    sets = every_set(obs, mask)
    many = OrderParams(*(part.expand(len(sets), *part.shape[1:]) for part in params))
    chance = distribution.log_prob(many, mask.expand(len(sets), -1), sets).exp()
    first = torch.stack([chance[sets[:, 0] == choice].sum() for choice in range(WIDTH)])
    assert mode[0, 0] == first.argmax()
    second = torch.where(sets[:, 0] == mode[0, 0], chance, 0.0)
    assert mode[0].tolist() == sets[second.argmax()].tolist()


def test_orders_are_legal_and_an_area_acts_once():
    network, distribution = made(6)
    obs = seen(2000, seed=2)
    mask = legal(obs)
    params = network.policy(obs)
    for action in (distribution.sample(params, mask, draw(0)), distribution.mode(params, mask)):
        assert mask.view(-1, SLOTS, WIDTH).gather(2, action.unsqueeze(2)).all()
        builds = action[1::4]
        for a, b in itertools.combinations(range(SLOTS), 2):
            assert not ((builds[:, a] == builds[:, b]) & (builds[:, a] > 0)).any()
        assert distribution.log_prob(params, mask, action).isfinite().all()


def test_if_only_areas_that_have_acted_are_legal_they_act_again():
    network, distribution = made(6)
    obs = one_row([BUILDS, BUILDS, 0])
    mask = torch.zeros(1, SLOTS, WIDTH, dtype=torch.bool)
    mask[0, :2, 2], mask[0, 2, 3] = True, True
    params = network.policy(obs)
    action = distribution.sample(params, mask.flatten(1), draw())
    assert action.tolist() == [[2, 2, 3]]  # and a slot without a list takes its first legal choice
    assert distribution.log_prob(params, mask.flatten(1), action).tolist() == [0.0]


def test_without_a_mask_everything_is_legal():
    network, distribution = made(6)
    params = network.policy(seen(50))
    everything = torch.ones(50, SLOTS * WIDTH, dtype=torch.bool)
    action = distribution.sample(params, None, draw())
    assert torch.equal(action, distribution.sample(params, everything, draw()))
    assert torch.equal(distribution.log_prob(params, None, action), distribution.log_prob(params, everything, action))


def test_gradients_reach_every_weight():
    network, distribution = made()
    obs = seen(200)
    mask = legal(obs)
    params, value = network(obs)
    action = distribution.sample(params, mask, draw())
    log_prob, entropy = distribution.log_prob_and_entropy(params, mask, action)
    (log_prob.mean() + 0.1 * entropy.mean() + value.square().mean()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.abs().sum() > 0, name


def test_the_gradient_matches_finite_differences():
    network, distribution = made()
    network.double()
    obs = seen(8)
    mask = legal(obs)
    action = distribution.sample(network.policy(obs), mask, draw())

    def loss():
        return distribution.log_prob(network.policy(obs), mask, action).sum()

    loss().backward()
    for name, weight in network.named_parameters():
        if name.startswith("critic"):
            continue
        flat, grad = weight.data.view(-1), weight.grad.view(-1)
        at = int(grad.abs().argmax())
        before, eps = float(flat[at]), 1e-6
        values = []
        for shift in (eps, -eps):
            flat[at] = before + shift
            values.append(float(loss().detach()))
        flat[at] = before
        assert (values[0] - values[1]) / (2 * eps) == pytest.approx(float(grad[at]), rel=1e-4, abs=1e-6), name


def every_action(obs, mask):
    """All sets of legal orders of one row, [M, K], including two builds in one area, whose probability is almost 0."""
    legal = [row.nonzero().flatten().tolist() for row in mask.view(SLOTS, WIDTH)]
    slots = obs["slots"][0].tolist()
    return torch.tensor(
        list(itertools.product(*(own if slot else own[:1] for slot, own in zip(slots, legal, strict=True))))
    )


@pytest.mark.parametrize("row", range(3), ids=["two units", "three builds", "one unit"])
def test_the_expected_gradient_of_the_entropy_bonus_is_that_of_the_entropy(row):
    """Summed over all sets of orders, weighted by probability, value and gradient are those of -sum p log p."""
    network, distribution = made()
    network.double()
    obs = seen(4)
    mask = legal(obs)[row : row + 1]
    obs = {name: part[row : row + 1] for name, part in obs.items()}
    actions = every_action(obs, mask)
    rows = torch.zeros(len(actions), dtype=torch.long)
    weights = [weight for name, weight in network.named_parameters() if not name.startswith("critic")]

    def both():
        params = network.policy({name: part[rows] for name, part in obs.items()})
        return distribution.log_prob_and_entropy(params, mask[rows], actions)

    log_prob, entropy = both()
    p = log_prob.exp()
    assert float(p.sum().detach()) == pytest.approx(1, abs=1e-12)
    true = -(p * log_prob).sum()
    wanted = torch.autograd.grad(true, weights, retain_graph=True)
    estimate = (p.detach() * entropy).sum()
    got = torch.autograd.grad(estimate, weights)
    assert float(estimate.detach()) == pytest.approx(float(true.detach()), abs=1e-10)
    assert max(float(gradient.abs().max()) for gradient in wanted) > 0.05
    for name, one, other in zip(dict(network.named_parameters()), got, wanted, strict=False):
        assert torch.allclose(one, other, atol=1e-9), name


def test_if_orders_do_not_depend_on_each_other_any_action_gives_the_gradient_of_the_entropy():
    """The baseline then cancels the score-function term: no noise, and no pull towards the sampled orders."""
    network, distribution = made()
    network.double()
    with torch.no_grad():
        network.decoder.from_given.zero_()
    obs = {name: part[:1] for name, part in seen(4).items()}
    mask = legal(seen(4))[:1]
    actions = every_action(obs, mask)
    weights = [w for name, w in network.named_parameters() if not name.startswith(("critic", "decoder.from_given"))]

    def gradients(action):
        entropy = distribution.log_prob_and_entropy(network.policy(obs), mask, action)[1]
        return torch.cat([part.flatten() for part in torch.autograd.grad(entropy.sum(), weights)])

    first = gradients(actions[:1])
    assert len(actions) > 5
    assert float(first.abs().max()) > 0.05
    for i in range(1, len(actions)):
        assert torch.allclose(gradients(actions[i : i + 1]), first, atol=1e-10)


def test_maximising_only_the_entropy_gives_a_uniform_distribution_over_the_sets_of_orders():
    """A first order that leaves the second a single choice must get the probability of one set of orders."""
    network, distribution = made()
    obs = {name: part[1:2] for name, part in seen(4).items()}
    obs["slots"] = torch.tensor([[BUILDS, BUILDS, 0]])
    mask = torch.zeros(1, SLOTS, WIDTH, dtype=torch.bool)
    mask[0, 0, [1, 2]] = True
    mask[0, 1, [1, 3]] = True  # after a build in area 0 only area 2 is left; after one in area 1, both are
    mask[0, 2, 0] = True
    sets, rows = torch.tensor([[1, 3, 0], [2, 1, 0], [2, 3, 0]]), torch.zeros(3, dtype=torch.long)
    obs, mask = {name: part[rows] for name, part in obs.items()}, mask.flatten(1)[rows]
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        log_prob, entropy = distribution.log_prob_and_entropy(network.policy(obs), mask, sets)
        optimizer.zero_grad()
        (-(log_prob.detach().exp() * entropy).sum()).backward()
        optimizer.step()
    p = distribution.log_prob(network.policy(obs), mask, sets).detach().exp()
    assert p.tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


# In agents


def test_ppo_and_reinforce_use_it_unless_set_to_mlps():
    ppo = PPO(PPOConfig(hidden=(8,)), OBSERVATIONS, SPACE)
    assert isinstance(ppo.core.network, OrderNetwork)
    assert isinstance(Reinforce(ReinforceConfig(hidden=(8,)), OBSERVATIONS, SPACE).core.network, OrderNetwork)
    mlps = PPO(PPOConfig(hidden=(8,), network="mlp", objective="adaptive_kl"), OBSERVATIONS, SPACE)
    assert isinstance(mlps.core.network, ActorCritic)
    plain = PPO(PPOConfig(hidden=(8,)), OBSERVATIONS, spaces.MultiDiscrete([5, 5, 5]))
    assert isinstance(plain.core.network, ActorCritic)
    entry = agent_entry("trpo")
    trpo = entry.make(entry.config_class()(hidden=(8,)), OBSERVATIONS, SPACE, seed=0, device="cpu")
    assert isinstance(trpo.core.network, ActorCritic)


def test_unsupported_settings_and_methods_are_rejected_by_name():
    with pytest.raises(AgentError, match=r"objective: got 'adaptive_kl' with the order network.*wanted 'clip'"):
        PPO(PPOConfig(objective="adaptive_kl"), OBSERVATIONS, SPACE)
    for config in (PPOConfig, ReinforceConfig):
        with pytest.raises(AgentError, match="network: got 'graph'; wanted"):
            config(network="graph")
    network, distribution = made()
    params = network.policy(seen(4))
    for call in (
        lambda: distribution.kl(params, params, None),
        lambda: distribution.fisher(params, None, torch.zeros(1)),
        lambda: distribution.entropy(params, None),
    ):
        with pytest.raises(AgentError, match=r"the order network.*wanted"):
            call()


def test_chunks_give_the_same_update():
    agents = [PPO(PPOConfig(hidden=(8, 8), num_steps=4, learning_rate=0.01), OBSERVATIONS, SPACE) for _ in range(2)]
    agents[1].core.chunk = 7
    results = [agent.learn(lesson(agent, 30), 0.0, draw(1)) for agent in agents]
    assert results[0] == pytest.approx(results[1], rel=1e-3, abs=1e-5)
    one, two = (agent.state_dict() for agent in agents)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def lesson(agent, copies, seed=0):
    """One step of games with units in areas 0 and 2, which win if one supports the move that the other makes."""
    obs = {name: part[torch.zeros(copies).long()] for name, part in seen(1, seed=3).items()}
    obs["areas"] = torch.randint(0, 2, obs["areas"].shape, generator=draw(seed), dtype=torch.int8)
    mask = torch.ones(copies, SLOTS, WIDTH, dtype=torch.bool)
    mask[:, 2, 1:] = False
    mask = mask.flatten(1)
    decision = agent.act(obs, mask, draw(seed + 1))
    orders = decision.action
    # Lists: hold, to the left, to the right, support across to the left, to the right.
    # To the left of area 0 is area 3, which is to the right of area 2; area 2's list has the same left and right.
    supported = ((orders[:, 0] == 1) & (orders[:, 1] == 4)) | ((orders[:, 0] == 2) & (orders[:, 1] == 3))

    def lead(value):
        if isinstance(value, dict):
            return {name: part.view(1, copies, 1, *part.shape[1:]) for name, part in value.items()}
        return value.view(1, copies, 1, *value.shape[1:])

    ended = torch.ones(1, copies, dtype=torch.bool)
    return Rollout(
        obs=lead(obs), last_obs={name: part.unsqueeze(1) for name, part in obs.items()}, final_obs=lead(obs),
        sample=lead(decision.sample), log_prob=lead(decision.log_prob), reward=lead(supported.float()),
        terminated=ended, truncated=~ended, legal_mask=lead(mask), active=None,
    )  # fmt: skip


def test_it_learns_to_support_the_move_that_it_makes():
    config = PPOConfig(hidden=(16, 16), num_steps=1, learning_rate=0.01, anneal_lr=False, entropy_coef=0.03)
    agent = PPO(config, OBSERVATIONS, SPACE, seed=1)
    win_rates = []
    for turn in range(25):
        rollout = lesson(agent, 64, seed=10 * turn)
        win_rates.append(float(rollout.reward.mean()))
        agent.learn(rollout, 0.0, draw(turn))
    assert win_rates[0] < 0.2
    assert np.mean(win_rates[-5:]) > 0.8
    assert math.isfinite(sum(float(value.double().sum()) for value in agent.state_dict().values()))


def test_rows_that_have_nothing_to_order_are_certain():
    """In a part of a batch all players may have to wait at the same time."""
    network, distribution = made()
    obs = seen(5)
    obs["slots"] = torch.zeros_like(obs["slots"])
    params, mask = network.policy(obs), legal(obs)
    action = distribution.sample(params, mask, draw())
    assert not action.any()
    log_prob, entropy = distribution.log_prob_and_entropy(params, mask, action)
    assert not log_prob.any()
    assert not entropy.any()


@pytest.mark.parametrize("greedy", [True, False])
def test_on_a_gpu_orders_are_the_cpu_s_and_are_waited_for_once(greedy):
    """How much is legal in each slot is read at once, before the first is filled."""
    obs = seen(8)
    mask = legal(obs)
    mask[3] = False
    mask[3, [2, WIDTH + 1, 2 * WIDTH + 4]] = True  # nothing to order, and the first choice is not legal

    def orders(network, obs, mask, generator):
        distribution = OrderDistribution(network.decoder)
        with torch.no_grad():
            params = network.policy(obs)
            return distribution.mode(params, mask) if greedy else distribution.sample(params, mask, generator)

    wanted = orders(made()[0], obs, mask, draw(5))
    assert wanted[3].tolist() == [2, 1, 4]
    with stand_in_gpu() as counts:
        network, there = made()[0].to("cuda"), {name: value.to("cuda") for name, value in obs.items()}
        allowed, generator = mask.to("cuda"), torch.Generator("cuda").manual_seed(5)
        before = counts.snapshot()
        found = orders(network, there, allowed, generator)
        assert counts.since(before).waits == 1
        assert found.tolist() == wanted.tolist()
