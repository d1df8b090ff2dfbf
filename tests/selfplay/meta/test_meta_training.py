"""Runs of meta-training: the folder, curves, exact resuming, the rule at the end, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mlbits.agents.agent import AgentError
from mlbits.agents.learned_rules.config import MetaLPGConfig
from mlbits.agents.learned_rules.files import load_rule
from mlbits.cli import main
from mlbits.cli.training.meta_train import parse
from mlbits.envs.core.errors import GameError, MlbitsError, UnknownIdError
from mlbits.selfplay.callbacks import Callbacks, callbacks_of
from mlbits.selfplay.meta.evaluation import Evaluator
from mlbits.selfplay.meta.session import ENV, open_meta_session
from mlbits.selfplay.runs.config import ConfigError, Settings, resolve
from mlbits.selfplay.runs.folder import new_folder
from mlbits.selfplay.runs.one_writer import InUseError, one_writer
from mlbits.selfplay.training import resume, train

# 8 agents x 2 copies x 10 steps x (2 + 1): 480 steps an iteration; lives of 6 updates.
SMALL = {"copies": 2, "num_steps": 10, "inner_updates": 2, "predictions": 3, "hidden": 4, "lifetime": 3}
STEPS = 8 * 2 * 10 * 3


def settings(iterations: int = 6, levels: str = "small", run: Any = None, **more: Any) -> Settings:
    usual = {"num_envs": 16, "total_steps": iterations * STEPS, "eval_every": 3 * STEPS, "checkpoint_every": 2 * STEPS,
             "record_every": 1, "eval_episodes": 4, "device": "cpu", "seed": 1}  # fmt: skip
    return resolve(
        "meta-lpg", ENV, preset="none", run={**usual, **(run or {})}, agent_settings={**SMALL, "levels": levels, **more}
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    return load_file(newest / "weights.safetensors") | load_file(newest / "arrays.safetensors")


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meta") / "run"
    train(settings(), folder, console=False)
    return folder


def test_a_run_has_its_curves_and_its_rule(run: Path) -> None:
    records = lines(run)
    learned = [record for record in records if "learn/reward" in record]
    assert [record["env_steps"] for record in learned] == [STEPS * k for k in range(1, 7)]
    for name in ("policy_entropy", "prediction_entropy", "grad_norm", "pi_hat_square", "lifetimes_ended"):
        assert f"learn/{name}" in learned[-1], name
    assert learned[-1]["learn/lifetimes_ended"] >= 8  # each lives at most 6 updates, of 12
    evaluated = [record for record in records if "return/eval" in record]
    assert [record["env_steps"] for record in evaluated] == [STEPS * 3, STEPS * 6]
    for name in (
        "rule/final_reward",
        "rule/final_reward_a2c",
        "rule/lifetime_reward_random",
        "prediction/r2_discount_0.9",
    ):
        assert name in evaluated[-1], name
    assert evaluated[0]["rule/final_reward_a2c"] == evaluated[1]["rule/final_reward_a2c"]
    summary, rule = json.loads((run / "summary.json").read_text()), load_rule(run / "rule.safetensors")
    assert summary["rule"] == str(run / "rule.safetensors") and summary["env_steps"] == 6 * STEPS
    assert torch.equal(rule.rule.heads, weights(run)["rule.heads"])
    assert rule.learning_rate in (20, 40, 80) and rule.alpha in (0.1, 0.5, 1)
    assert rule.about["env_steps"] == 6 * STEPS and rule.about["levels"]["numbers"] == [0, 2**32]
    assert rule.about["evaluation"]["rewards"]["final_reward"] == summary["return_mean"]


def test_the_rule_moves_and_its_learning_rate_falls(run: Path) -> None:
    first = open_meta_session(settings()).learner.state_dict()
    assert not torch.equal(first["rule.heads"], weights(run)["rule.heads"])
    rates = [record["learn/learning_rate"] for record in lines(run) if "learn/reward" in record]
    assert rates[0] == pytest.approx(2e-3) and rates == sorted(rates, reverse=True) and rates[-1] < 1e-3


def interrupted(folder: Path, after: int, config: Settings) -> None:
    def stop(under_way: Any) -> None:
        if under_way.env_steps >= after:
            raise RuntimeError("the power went out")

    called: Callbacks | None = callbacks_of(None, on_iteration=stop, on_evaluation=None, on_checkpoint=None)
    with pytest.raises(RuntimeError, match="power"):
        train(config, folder, console=False, callbacks=called)
    # The run saved itself as it failed; what is left is an older checkpoint, as after a kill.
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)


@pytest.mark.parametrize("levels", ["small", "small:1,chain_short:1"])
def test_an_interrupted_run_ends_as_one_that_was_not(levels: str, run: Path, tmp_path: Path) -> None:
    config = settings(levels=levels, run={"keep_checkpoints": 5})
    whole = run
    if levels != "small":
        whole = tmp_path / "whole"
        train(config, whole, console=False)
    interrupted(tmp_path / "run", 5 * STEPS, config)
    resume(tmp_path / "run", console=False)
    wanted, got = weights(whole), weights(tmp_path / "run")
    assert wanted.keys() == got.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], got[name])] == []
    timed = ("speed/", "time/")
    for one, other in zip(lines(whole), lines(tmp_path / "run"), strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(timed)} == {
            k: v for k, v in other.items() if not k.startswith(timed)
        }
    digests = [load_rule(folder / "rule.safetensors").rule.heads for folder in (whole, tmp_path / "run")]
    assert torch.equal(*digests)


def test_a_run_has_one_writer(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with one_writer(tmp_path / "run"), pytest.raises(InUseError):
        resume(tmp_path / "run", total_steps=8 * STEPS, console=False)


def test_mlp_agents_are_trained_on_planes(tmp_path: Path) -> None:
    config = settings(iterations=2, levels="chain_distraction", run={"eval_every": 0})
    folder, summary = train(config, tmp_path / "run", console=False)
    assert summary["env_steps"] == 2 * STEPS and (folder / "rule.safetensors").exists()
    assert any(name.endswith("agents.first") for name in weights(folder))


def test_the_command_trains_resumes_exports_and_says_what_next(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    words = ["meta-train", "lpg", *flags, "--num-envs=16", f"--total-steps={STEPS}", "--eval-episodes=2", "--quiet"]
    assert main([*words, "--out", str(folder), "--device=cpu", "--seed=1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("reward ") and "; A2C " in said and ", random play " in said
    assert f"use: mlbits train lpg ENV --agent.rule {folder}/rule.safetensors" in said
    assert main(["resume", str(folder)]) == 0
    assert f"{folder} is finished: it has its {STEPS} steps" in capsys.readouterr().out
    assert main(["export", str(run), "--rule", str(tmp_path / "my.safetensors")]) == 0
    assert f"--agent.rule {tmp_path}/my.safetensors" in capsys.readouterr().out
    assert load_rule(tmp_path / "my.safetensors").rule.heads.equal(load_rule(run / "rule.safetensors").rule.heads)
    assert main(["eval", str(folder)]) == 2
    assert "meta-lpg: is a rule in training, which plays nothing itself; wanted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ([], ConfigError, "meta-train: the rule is missing; wanted mlbits meta-train lpg"),
        (["lgp"], UnknownIdError, "did you mean 'lpg'"),
        (["lpg", "--copies", "0"], MlbitsError, "copies: got 0; wanted"),
    ],
)
def test_wrong_words_are_named(words: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse(words)


@pytest.mark.parametrize(
    ("more", "run", "error", "said"),
    [
        ({"copies": 3}, {}, ConfigError, "num_envs and copies: got 16 and 3; wanted a multiple"),
        ({"levels": "tiny"}, {}, UnknownIdError, "tiny"),
        ({"levels": "small:0"}, {}, GameError, "levels: got the weight '0' of 'small'"),
        ({"num_steps": 40}, {}, AgentError, "num_steps and inner_updates: got 40 and 2, in lifetimes of 60 steps"),
        ({}, {"pool": "latest"}, ConfigError, "pool: got 'latest'; wanted none where a rule is trained"),
    ],
)
def test_settings_that_do_not_fit_are_named(more: Any, run: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        open_meta_session(settings(run=run, **more))


def test_another_environment_is_refused() -> None:
    config = resolve("meta-lpg", "mlbits/GridWorld-v0", preset="none")
    with pytest.raises(ConfigError, match="env: got mlbits/GridWorld-v0; wanted mlbits meta-train lpg"):
        open_meta_session(config)


def test_a_run_of_an_agent_has_no_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_folder(resolve("ppo", "mlbits/GridWorld-v0"), tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--rule", str(tmp_path / "rule")]) == 2
    assert "is a run of ppo; wanted one of mlbits meta-train lpg" in capsys.readouterr().err


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    config = MetaLPGConfig(**{**SMALL, "lifetime": 10, "num_steps": 20, "copies": 8}, table_rates=(80.0,))
    yield Evaluator(config, ["small"], 6, torch.device("cpu"))


def test_evaluations_are_repeatable_and_a_rule_that_does_nothing_is_random_play(evaluator: Evaluator) -> None:
    session = open_meta_session(settings())
    rule: Any = session.learner
    rule = rule.rule
    first, again = evaluator.measure(rule, [0]), evaluator.measure(rule, [0])
    assert first == again
    with torch.no_grad():
        rule.heads[:, 0], rule.heads_bias[0] = 0, 0  # pi_hat is 0
    scalars, evaluation = evaluator.measure(rule, [0])
    assert scalars["rule/lifetime_reward"] == pytest.approx(scalars["rule/lifetime_reward_random"])
    assert evaluation["episodes"] == 6 and scalars["rule/lifetime_reward_a2c"] > scalars["rule/lifetime_reward_random"]
