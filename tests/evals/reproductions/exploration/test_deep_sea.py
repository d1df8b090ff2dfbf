"""The DeepSea reproduction: what it runs, and when its target is met; whole runs are slow."""

import pytest

from mlbits.evals.reproductions.exploration import deep_sea


def runs(monkeypatch, count, none):
    """The reproduction with made-up returns; also what it would have run."""
    asked, returns = [], {"count": iter(count), "none": iter(none)}

    def train(agent, env, seed, *flags):
        asked.append((agent, env, seed, flags))
        arm = "none" if "none" in flags else "count"
        return {"return_mean": next(returns[arm]), "env_steps": 10, "cpu_seconds": 1.0}

    monkeypatch.setattr(deep_sea, "train_in_process", train)
    return asked


@pytest.mark.parametrize(("last", "none", "met"), [(0.99, -0.01, True), (0.5, -0.01, False), (0.99, 0.95, False)])
def test_all_seeds_have_to_solve_it_and_none_without_the_bonus(monkeypatch, last, none, met):
    asked = runs(monkeypatch, [0.99, 0.9, 0.99, 0.99, last], [none])
    found = deep_sea.reproduce(quick=True)
    assert found["met"] is met
    assert [(agent, env, seed) for agent, env, seed, _ in asked[:5]] == [
        ("ppo", "mlbits/DeepSea-v0", k) for k in range(5)
    ]
    assert len(asked) == 6
    assert "--agent.bonus" in asked[5][3]
    assert all("--env.size" in flags and flags[flags.index("--env.size") + 1] == "20" for *_, flags in asked)


@pytest.mark.slow
def test_one_seed_finds_the_treasure():
    assert deep_sea.reproduce(quick=True, seeds=1)["met"]
