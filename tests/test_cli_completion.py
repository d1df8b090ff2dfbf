"""Shell completion: the scripts know every command and flag, and bash completes from them."""

import re
import shutil
import subprocess

import pytest

from mlbits.agents import AGENTS
from mlbits.cli import COMMANDS, main
from mlbits.cli.installation import completion
from mlbits.selfplay.runs.flags import parse_train
from tests.evals.recorded import write_run


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The file of bash's script."""
    path = tmp_path_factory.mktemp("completion") / "mlbits.bash"
    path.write_text(completion.bash_script())
    return path


@pytest.fixture
def complete(script, tmp_path):
    """Completes the last of some words in a folder with two runs."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    for name in ("runs/maze", "runs/pole"):
        write_run(tmp_path / name, {})

    def run(*words):
        quoted = " ".join(f"'{word}'" for word in words)
        code = f"source '{script}'; COMP_WORDS=(mlbits {quoted}); COMP_CWORD={len(words)}; _mlbits; "
        done = subprocess.run(
            [bash, "--norc", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert not done.stderr
        return done.stdout.split()

    return run


def test_every_command_is_known():
    assert set(completion._WORDS) == set(completion.flags_of_commands()) == set(COMMANDS)


@pytest.mark.parametrize(
    "command", sorted(set(COMMANDS) - {"train", "sweep", "meta-train", "solve", "diplomacy", "data"})
)
def test_the_flags_are_those_of_the_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", capsys.readouterr().out))
    known = {flag for kind in completion.flags_of_commands()[command] for flag in completion.flags_of(kind)}
    assert known <= shown
    others = {"--help", "--env-json", *(flag for flag in shown if flag.startswith("--env."))}
    assert {plain(flag) for flag in shown - others} == {plain(flag) for flag in known}


def plain(flag):
    """A switch without its "no-"."""
    return re.sub(r"(--|\.)no-", r"\1", flag)


def test_the_flags_of_a_pair_are_understood():
    """Each flag of an agent and an environment in the tables is one that training takes."""
    tables = completion._tables()
    assert set(tables["agents"]) == set(AGENTS)
    for flag in ("--agent.clip-coef", "--agent.objective"):
        assert flag in tables["agents"]["ppo"]
    assert "--env.slip" in tables["envs"]["mlbits/GridWorld-v0"]
    switches = [
        f for f in (*tables["agents"]["ppo"], *tables["flags"]["train"]) if ".no-" in f or f.startswith("--no-")
    ]
    assert len(switches) > 3
    parse_train(["ppo", "mlbits/GridWorld-v0", *switches])


def test_bash_completes_commands_names_and_flags(complete):
    assert complete("tr") == ["train"]
    assert set(complete("")) == set(COMMANDS)
    assert complete("train", "q-") == ["q-learning"]
    assert complete("train", "ppo", "mlbits/Gr") == ["mlbits/GridWorld-v0"]
    assert complete("train", "ppo", "mlbits/GridWorld-v0", "--agent.cl") == ["--agent.clip-coef"]
    assert complete("train", "ppo", "mlbits/GridWorld-v0", "--env.s") == ["--env.slip", "--env.step-cost"]
    assert complete("train", "ppo", "mlbits/GridWorld-v0", "--no-v") == ["--no-video"]
    assert complete("train", "dqn", "mlbits/CartPole-v0", "--agent.clip") == []
    assert complete("train", "ppo", "mlbits/GridWorld-v0", "--agent.objective", "") == ["adaptive_kl", "clip", "dpo"]
    assert complete("train", "ppo", "mlbits/GridWorld-v0", "--track", "w") == ["wandb"]
    assert complete("sweep", "ppo", "mlbits/GridWorld-v0", "--agent.objective", "") == ["adaptive_kl", "clip", "dpo"]
    assert complete("sweep", "ppo", "mlbits/Gr") == ["mlbits/GridWorld-v0"]
    assert complete("sweep", "ppo", "mlbits/GridWorld-v0", "--sp") == ["--space"]
    assert complete("plot", "--x", "") == ["cpu", "steps", "wall"]
    assert complete("list", "--env", "mlbits/Car") == ["mlbits/CartPole-v0"]
    assert complete("list", "") == ["agents", "envs", "evals", "presets"]


def test_bash_completes_runs(complete):
    assert complete("eval", "runs/m") == ["runs/maze"]
    assert complete("plot", "runs/maze", "") == ["runs", "runs/maze", "runs/pole"]
    assert complete("tournament", "ran") == ["random"]


def test_the_scripts_are_printed(capsys):
    for shell, part in (("bash", "complete -o filenames -F _mlbits mlbits"), ("zsh", "bashcompinit"), ("fish", "-l")):
        assert main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"# mlbits' completion for {shell}; ")
        assert part in text
        assert "mlbits/GridWorld-v0" in text
        assert "agent.clip-coef" in text
    assert main(["completion", "tcsh"]) == 2
    assert "wanted" in capsys.readouterr().err


def test_fishs_lines_are_whole():
    lines = completion.fish_script().splitlines()
    told = [line for line in lines if line.startswith("complete ")]
    assert len(told) > 500
    form = r"complete -c mlbits( -f -n '[^']+' (-a '[^']+'|-l '[^']+'( -x -a '[^']+')?)| -n '[^']+' -l '[^']+' -r -F)"
    assert [line for line in told if not re.fullmatch(form, line)] == []
    assert "complete -c mlbits -f -n '__fish_seen_subcommand_from plot' -l 'x' -x -a 'steps cpu wall'" in told


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_reads_its_script(shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell}")
    path = tmp_path / "script"
    path.write_text(completion.zsh_script() if shell == "zsh" else completion.fish_script())
    done = subprocess.run([program, "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
