"""The everyday commands: plot, compare, list of one environment or agent."""

import json

import pytest

from mlbits.cli import main
from tests.evals.recorded import write_run

CURVES = {"return/eval": {100: 1.0, 200: 3.0}, "learn/loss": {100: 0.5}}


@pytest.fixture
def said(capsys):
    """Run a command that must end with a status; returns its output, or its one-line error."""

    def run(*words, status=0):
        capsys.readouterr()
        assert main([str(word) for word in words]) == status
        out, err = capsys.readouterr()
        if status == 2:
            assert err.count("\n") == 1, err
            return err.removeprefix("error: ").rstrip()
        return out + err

    return run


def test_plot_draws_runs_and_prints_their_last_values(said, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / f"runs/{seed}", {"return/eval": {100: 1.0, 200: 3.0 + 2 * seed}}, seed=seed)
    write_run(tmp_path / "runs/again", CURVES, seed=1)
    out = tmp_path / "out.svg"
    text = said("plot", tmp_path / "runs", "--out", out, "--x", "steps", "--smooth", "1")
    assert (
        "ppo on mlbits/CartPole-v0: return/eval 4, mean of 2 seeds, 95% interval -8.706 to 16.71 at 200 steps" in text
    )
    assert f"picture: {out}" in text
    assert f"left out {tmp_path / 'runs/again'}: it has the settings and seed 1 of another run" in text
    assert "environment steps" not in text
    assert "<svg" in out.read_text()


def test_plot_refuses_what_it_cannot_draw(said, tmp_path):
    run = write_run(tmp_path / "maze", CURVES)
    assert said("plot", status=2) == "runs: got none; wanted mlbits plot RUN ..., folders of runs"
    assert "did you mean" in said("plot", tmp_path / "mase", status=2)
    assert said("plot", run, "--tag", "return/evel", status=2).startswith("--tag: unknown curve 'return/evel'; did you")
    assert said("plot", run, "--out", "a.jpg", status=2).startswith("--out: got a.jpg; wanted a file that ends in .png")
    assert "its folder does not exist" in said("plot", run, "--out", tmp_path / "no/a.png", status=2)
    assert "cpu time" in said("plot", run, "--x", "cpu", status=2)


def test_compare_prints_a_table_and_writes_json(said, tmp_path):
    for name, agent in (("a", "ppo"), ("b", "dqn")):
        write_run(tmp_path / f"runs/{name}", CURVES, agent=agent)
    text = said("compare", tmp_path / "runs", "--json", tmp_path / "out.json")
    assert "settings that differ" in text
    assert "3" in next(line for line in text.splitlines() if line.startswith("return "))
    assert [group["agent"] for group in json.loads((tmp_path / "out.json").read_text())["groups"]] == ["ppo", "dqn"]


def test_compare_refuses_less_than_two_runs(said, tmp_path):
    run = write_run(tmp_path / "maze", CURVES)
    assert said("compare", status=2) == "runs: got none; wanted mlbits compare RUN RUN ..., folders of runs"
    assert said("compare", run, status=2) == f"runs: got only {run}; wanted two or more to compare"
    assert "not found" in said("compare", run, tmp_path / "none", status=2)


def test_list_tells_all_about_an_environment_and_an_agent(said, tmp_path):
    written = ["--picture", tmp_path / "env.png", "--json", tmp_path / "out.json"]
    text = said("list", "--env", "mlbits/GridWorld-v0", "--env.map", "S.G", "--agent", "ppo", *written)
    assert "observation space  Discrete(3)" in text
    assert "--agent.discount" in text
    assert "--env.slip" in text
    assert (tmp_path / "env.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["env"]["observation_space"], found["agent"]["name"]) == ("Discrete(3)", "ppo")
    assert "--agent.clip" in said("list", "--agent", "ppo")


def test_list_refuses_what_does_not_go_together(said, tmp_path):
    assert said("list", "--env", "mlbits/GridWrld-v0", status=2).endswith("did you mean 'mlbits/GridWorld-v0'?")
    assert said("list", "envs", "--agent", "ppo", status=2).startswith("what: got 'envs' and --env or --agent")
    assert said("list", "--picture", tmp_path / "a.png", status=2).startswith("--picture, --json: are of one")
    assert said("list", "--agent", "ppo", "--picture", tmp_path / "a.png", status=2).startswith(
        "--picture: an agent has"
    )


def test_export_writes_a_file_and_says_how_it_compares(said, tmp_path):
    run, out = tmp_path / "run", tmp_path / "agent.pt"
    tiny = "--total-steps 64 --num-envs 4 --eval-episodes 1 --agent.num-steps 16 --agent.hidden 8 --quiet".split()
    said("train", "ppo", "mlbits/GridWorld-v0", "--env.map", "S.G", "--out", run, "--preset", "none", *tiny)
    text = said("export", run, "--torchscript", out)
    assert "input obs: int32 [batch]\noutputs: action, probabilities, value\n" in text
    assert f"torchscript: {out}; equal to the agent on 100 random observations (largest difference" in text
    assert said("export", run, status=2).endswith("wanted --onnx FILE, --torchscript FILE or --rule FILE")
    assert "its folder does not exist" in said("export", run, "--onnx", tmp_path / "no/a.onnx", status=2)
    assert "no run here" in said("export", tmp_path / "none", "--torchscript", out, status=2)
