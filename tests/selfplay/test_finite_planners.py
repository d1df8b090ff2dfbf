"""Agents that plan stop at numbers that are not finite, too, and keep their last good checkpoint."""

import pytest
from safetensors.torch import load_file

from mlbits.envs.engine.batch import GameBatch
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.saved_agents import load_agent
from mlbits.selfplay.training import train

RUN = {"num_envs": 4, "total_steps": 400, "eval_every": 0, "eval_episodes": 1, "checkpoint_every": 20, "video": False}
SMALL = {"width": 8, "blocks": 1, "simulations": 2, "buffer_size": 400, "batch_size": 8, "learning_starts": 8}
SEARCH = {"hidden": (16,), "num_steps": 2, "round_steps": 4, "buffer_size": 2000, "batch_size": 32}
AGENTS = {
    "alphazero": ("mlbits/TicTacToe-v0", SMALL | {"num_steps": 2}),
    "ibr": ("mlbits/MatrixGame-v0", SEARCH),
    "fppi1": ("mlbits/MatrixGame-v0", SEARCH),
    "fppi2": ("mlbits/MatrixGame-v0", SEARCH),
    "equilibrium": ("mlbits/MatrixGame-v0", SEARCH),
}


CASES = [("alphazero", "1e30"), ("ibr", "nan")]
MORE = [(agent, value) for agent in AGENTS for value in ("nan", "1e30") if (agent, value) not in CASES]


@pytest.mark.parametrize(("agent", "value"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)])
def test_a_reward_that_is_not_finite_stops_a_planner(agent, value, tmp_path, monkeypatch):
    env, settings = AGENTS[agent]
    made = resolve(agent, env, preset="none", run=RUN, agent_settings=settings)
    step, steps = GameBatch.step, []

    def poisoned(self, action):
        found = step(self, action)
        if self.num_envs == RUN["num_envs"]:
            steps.append(1)
            if len(steps) == 31:
                found.reward[1, 0] = float(value)
        return found

    monkeypatch.setattr(GameBatch, "step", poisoned)
    with pytest.raises(NotFiniteError) as stopped:
        train(made, tmp_path / "run", console=False)
    error = stopped.value
    assert (error.env, error.quantity, error.copy) == (env, "reward", 1)
    assert error.env_steps == 4 * 31
    (*_, kept) = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert str(error).endswith(f"the last good checkpoint stays: {kept}")
    weights = load_file(kept / "weights.safetensors")
    assert all(tensor.float().isfinite().all() for tensor in weights.values())
    load_agent(tmp_path / "run")
