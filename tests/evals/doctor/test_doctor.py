"""``mlbits doctor``: each thing that can be wrong is a line, and nothing is a traceback."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlbits.cli import main
from mlbits.envs.engine import driver
from mlbits.evals.doctor import caches, examine, gpus, machine, packages, trials, try_kernels
from mlbits.evals.doctor.findings import Finding, findings_of, try_apart


def found(part, section="gpu"):
    return list(findings_of(section, [part]))


def only(part):
    (one,) = found(part)
    return one


def test_the_quick_examination(capsys, tmp_path):
    status = main(["doctor", "--quick", "--json", str(tmp_path / "found.json")])
    shown, data = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert status == (1 if data["broken"] else 0)
    sections = [line for line in shown.splitlines() if line and not line.startswith(" ")][:-1]
    assert sections == ["versions", "processor", "gpu", "caches", "extras"]
    assert {one["section"] for one in data["findings"]} == set(sections)
    assert f"torch {torch.__version__}" in " ".join(shown.split())
    names = [(one["section"], one["name"]) for one in data["findings"]]
    assert len(set(names)) == len(names)


def test_something_broken_is_said_in_the_end_with_status_1(capsys, monkeypatch):
    def fine():
        yield Finding("gpu", "a", "fine", "all is well")

    def drawn_and_quartered():
        yield Finding("gpu", "b", "slow", "slow")
        raise ImportError("libcuda.so.1: no such file\nand more")

    monkeypatch.setattr(examine, "PARTS", {"gpu": (fine, drawn_and_quartered)})
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "gpu",
        "          all is well",
        "  slow    slow",
        "  broken  drawn and quartered: ImportError: libcuda.so.1: no such file",
        "",
        "broken: drawn and quartered; slow here: b",
    ]
    monkeypatch.setattr(examine, "PARTS", {"gpu": (fine,)})
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is broken"


def test_what_is_warned_of_is_a_line():
    def part():
        warnings.warn("CUDA initialization: the driver is too old", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        yield Finding("gpu", "a", "fine", "text")

    assert [one.text for one in found(part)] == [
        "text",
        "part warns: UserWarning: CUDA initialization: the driver is too old",
    ]


# Caches


def test_no_home_folder(monkeypatch):
    for name in ("HOME", "MLBITS_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    one = only(caches.rules_cache)
    assert (one.state, one.text.split(",")[0]) == ("slow", "no home folder (HOME is not set")
    monkeypatch.setattr(caches, "_writable", lambda folder: False)
    assert only(caches.kernels_cache).state == "slow"


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path / "file" / "below"))
    one = only(caches.rules_cache)
    assert one.state == "slow"
    assert "cannot be written, so that rules are compiled in every process; wanted MLBITS_CACHE_DIR" in one.text
    assert not one.facts["writable"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_a_cache_of_a_file_system_that_takes_no_files(monkeypatch):
    """Of root too, whom os.access would not tell."""
    monkeypatch.setenv("MLBITS_CACHE_DIR", "/proc/mlbits")
    one = only(caches.rules_cache)
    assert (one.state, one.facts["writable"]) == ("slow", False)


def test_a_cache_into_which_others_may_write(monkeypatch, tmp_path):
    folder = tmp_path / "drivers"
    folder.mkdir()
    (folder / "one").write_bytes(b"x" * 3 * 2**20)
    folder.chmod(0o777)
    monkeypatch.setenv("MLBITS_CACHE_DIR", str(tmp_path))
    one = only(caches.rules_cache)
    assert one.state == "slow"
    assert f"others may write into {folder}" in one.text
    assert "1 file, 3.0 MiB" in one.text
    folder.chmod(0o700)
    assert only(caches.rules_cache).state == "fine"


# GPUs


def test_a_torch_whose_cuda_is_broken(monkeypatch):
    def fail():
        raise RuntimeError("CUDA driver initialization failed\nsee the log")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    one = only(gpus.torch_gpus)
    assert one.state == "broken"
    assert one.text.endswith("cannot use CUDA: RuntimeError: CUDA driver initialization failed")
    assert [one.state for one in found(gpus.nvidia_driver)] == ["broken"]


@pytest.mark.parametrize(
    ("built", "file", "state", "words"),
    [
        (None, False, "missing", "was built for the CPU alone: everything runs on the CPU"),
        ("13.0", False, "missing", "was built for CUDA 13.0: everything runs on the CPU"),
        (None, True, "broken", "was built for the CPU alone; wanted a CUDA build of torch"),
        ("13.0", True, "broken", "finds no GPU: the driver may be too old, or CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_gpu_that_torch_does_not_use(built, file, state, words, monkeypatch, tmp_path):
    (tmp_path / "nvidia0").write_text("")
    monkeypatch.setattr(gpus, "_DEVICE_FILE", tmp_path / ("nvidia0" if file else "none"))
    monkeypatch.setattr(gpus, "_DRIVER_FILE", tmp_path / "none")
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    one = only(gpus.torch_gpus)
    assert one.state == state
    assert words in one.text


def test_gpus_and_their_memory(monkeypatch):
    card = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((60, 4)[index] * 2**30, 80 * 2**30))
    first, second = found(gpus.torch_gpus)
    assert first.state == "fine"
    assert first.text == ("cuda:0: NVIDIA H100, compute capability 9.0, 132 multiprocessors, 60.0 of 80.0 GiB free")
    assert second.state == "slow"
    assert second.text.endswith("another program has nearly all of its memory")


@pytest.mark.parametrize(("gpu", "state"), [(True, "broken"), (False, "missing")])
def test_without_numba_cuda(gpu, state, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    one = only(gpus.numba_cuda)
    assert one.state == state
    assert 'pip install "mlbits[gpu]"' in one.text
    assert only(trials.on_a_gpu).state == "missing"


# Trials


@pytest.mark.parametrize(
    ("gpu", "tried", "state", "words"),
    [
        (False, {"error": "no NVVM"}, "broken", "they do not compile: no NVVM"),
        (False, {"compile_seconds": 1.0, "whole": False}, "broken", "the compiler's text is not whole"),
        (False, {"compile_seconds": 1.25, "whole": True}, "missing", "compiled in 1.2 s; not run, since no GPU"),
        (True, {"error": "ended by signal 11"}, "broken", "ended by signal 11"),
        (True, {"equal": False}, "broken", "they do not play as on the CPU"),
        (True, {"equal": True, "compile_seconds": 2, "load_seconds": 0.25, "steps_per_second": 5e9}, "fine",
         "compiled in 2.0 s, loaded from the cache in 0.25 s, 5,000.0 M steps/s of GridWorld; plays as on the CPU"),
    ],
)  # fmt: skip
def test_rules_on_a_gpu(gpu, tried, state, words, monkeypatch):
    pytest.importorskip("numba_cuda")
    asked = []
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(trials, "_tried", lambda what: asked.append(what) or tried)
    one = only(trials.on_a_gpu)
    assert (one.state, asked) == (state, ["cuda" if gpu else "ptx"])
    assert words in one.text


def test_the_simulator_is_not_tried(monkeypatch):
    pytest.importorskip("numba_cuda")
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr(trials, "_tried", lambda what: pytest.fail("tried"))
    assert only(trials.on_a_gpu).state == "missing"


@pytest.mark.parametrize(("core", "state"), [(0.97, "fine"), (0.1, "slow")])
def test_rules_on_the_cpu(core, state, monkeypatch):
    tried = {"compile_seconds": 2, "load_seconds": 0.25, "steps_per_second": 1e8, "core": core}
    monkeypatch.setattr(trials, "_tried", lambda what: tried)
    one = only(trials.on_the_cpu)
    assert one.state == state
    assert ("got 10% of a core" in one.text) == (state == "slow")


def test_rules_are_compiled_loaded_and_run(monkeypatch):
    monkeypatch.setattr(driver, "_loaded", {})
    got = try_kernels.on_cpu()
    assert set(got) == {"compile_seconds", "load_seconds", "steps_per_second", "core"}
    assert min(got.values()) > 0


@pytest.mark.slow
def test_the_trials_themselves(monkeypatch):
    for part, name in ((trials.on_the_cpu, "cpu"), (trials.on_a_gpu, "gpu"), (trials.processes, "workers")):
        one = only(part)
        assert one.name == name
        assert one.state != "broken", one.text


MODULES = {
    "says": ("print('noise'); print('{\"a\": 1}')", {"a": 1}),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {"error": "ended by signal 11"}),
    "fails": ("raise ImportError('no CUDA')", {"error": "ImportError: no CUDA"}),
    "says_nothing": ("", {"error": "ended with status 0"}),
    "hangs": ("import time; time.sleep(60)", {"error": "not done in 1 s"}),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_is_tried_apart_may_crash_or_hang(name, tmp_path):
    text, wanted = MODULES[name]
    (tmp_path / f"{name}.py").write_text(text)
    seconds = 1 if name == "hangs" else 60
    assert try_apart(name, seconds=seconds, environment={**os.environ, "PYTHONPATH": str(tmp_path)}) == wanted


# Packages and the machine

REQUIRES = [
    "numpy<3,>=2.0", "no_such_library>=1", 'numba-cuda[cu13]>=0.20; sys_platform != "darwin" and extra == "gpu"',
    'no_such_plot>=3; extra == "plot"', 'pytest>=8; extra == "test"', 'mlbits[plot]; extra == "dev"',
    'old; python_version < "3.8" and extra == "box2d"',
]  # fmt: skip


def test_what_is_missing_and_what_it_would_bring(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(sys, "platform", "linux")
    by_name = {one.name: one for one in [*found(packages.versions), *found(packages.extras)]}
    assert set(by_name) == {"mlbits", "libraries", "no_such_library", "gpu", "plot"}
    assert by_name["libraries"].text.startswith("numpy ")
    assert by_name["no_such_library"].state == "broken"
    assert by_name["plot"].state == "missing"
    assert by_name["plot"].text == 'plot: mlbits plot; missing: no_such_plot (pip install "mlbits[plot]")'


def test_every_extra_for_users_has_a_description():
    extras = {extra for _, extra in packages.requirements() if extra} - set(packages._FOR_CONTRIBUTORS)
    assert extras <= set(packages.EXTRAS)


def test_a_source_folder_that_was_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    *_, last = found(packages.versions)
    assert (last.state, "was not installed" in last.text or "not installed here" in last.text) == ("broken", True)


def test_limits_of_containers(tmp_path):
    assert machine.cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cgroup_cores(tmp_path) == 1.5
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.cgroup_cores(tmp_path) == 0.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert machine.cgroup_cores(tmp_path) == 1.5


def states(part):
    return {one.name: (one.state, one.text) for one in found(part, "processor")}


def test_what_is_slow_here_and_why(monkeypatch):
    here = SimpleNamespace(name="Old", isa="baseline", fast_bfloat16=False, cores=4)
    monkeypatch.setattr(machine, "describe", lambda: here)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0, 0))
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 1.5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(machine, "available_bytes", lambda: 2**29)
    got = states(machine.processor) | states(machine.cores) | states(machine.threads) | states(machine.memory)
    slow = {name for name, (state, _) in got.items() if state == "slow"}
    assert slow >= {"processor", "cores", "load", "threads", "memory"}
    for name, words in {"processor": "no AVX2", "cores": "the time of 1.5", "load": "other programs take the time",
                        "threads": "more than the 4 cores", "memory": "0.5 free: little"}.items():  # fmt: skip
        assert words in got[name][1]
    here.isa = "avx2"
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0, 0))
    monkeypatch.setattr(machine, "cgroup_cores", lambda: math.inf)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    got = states(machine.processor) | states(machine.cores) | states(machine.threads)
    assert {state for state, _ in got.values()} == {"fine"}


def test_settings_that_make_things_slow():
    got = list(machine.settings({"NUMBA_DISABLE_JIT": "1", "MLBITS_KERNELS": "1", "NUMBA_ENABLE_CUDASIM": "1"}))
    assert [one.name for one in got] == ["NUMBA_DISABLE_JIT", "NUMBA_ENABLE_CUDASIM"]
    assert {one.state for one in got} == {"slow"}
