"""The package: everything is in the wheel, everything imports, and imports run one way."""

import ast
import importlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest
import setuptools
from packaging.version import Version

import mlbits
from mlbits.agents import AGENTS
from mlbits.evals import EVALS

ROOT = Path(__file__).parents[1]
ROOMS = ("envs", "agents", "selfplay", "evals")  # in the order in which they may import each other


def sources():
    """Files of the package by their names within it, from the rooms and from src."""
    front = ROOT / "src" / "mlbits"
    found = {f"mlbits/{path.relative_to(front)}": path for path in (*front.glob("*.*"), *front.glob("cli/**/*.py"))}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"mlbits/{path.relative_to(ROOT)}"] = path
    return found


def modules():
    names = [name.removesuffix(".py").replace("/", ".") for name in sources() if name.endswith(".py")]
    return sorted(name.removesuffix(".__init__") for name in names)


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "front"


def imports_of(path):
    """Modules of ours that a file imports, wherever in it, relative imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; wanted mlbits...."
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_is_pinned_that_only_a_cuda_build_brings():
    """Each build of torch, JAX and numba-cuda needs its own; an additional pin makes the install impossible."""
    pins = (ROOT / "constraints.txt").read_text().lower()
    assert "torch==" in pins
    assert re.findall(r"^(?:cuda-|nvidia-|triton|pytorch-triton|jax-cuda).*$", pins, re.M) == []


def test_the_version_is_said_once():
    assert mlbits.__version__ == importlib.metadata.version("mlbits")
    assert str(Version(mlbits.__version__)) == mlbits.__version__


@pytest.mark.parametrize("module", modules())
def test_every_module_imports(module):
    importlib.import_module(module)


def test_there_are_modules_to_test():
    assert {"mlbits", "mlbits.cli", "mlbits.envs.core.game", "mlbits.agents.ppo", "mlbits.selfplay.loop"} < set(
        modules()
    )


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    """envs <- agents <- selfplay <- evals <- the command line."""
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for path in (ROOT / room).rglob("*.py"):
        for name in imports_of(path):
            if name.split(".")[0] in ROOMS:
                pytest.fail(f"{path.relative_to(ROOT)} imports {name}; wanted mlbits.{name}")
            if name.split(".")[0] != "mlbits" or name == "mlbits":
                continue
            target = name.split(".")[1]
            front = target in ("version", "__version__", "make_batch", "make_game", "register", "registered")
            assert target in allowed or front, f"{path.relative_to(ROOT)} imports {name}"


# What the folders of agents/ may import of agents/, besides themselves; the algorithms' own files may import all.
WITHIN_AGENTS = {
    "kernels": set(),
    "maths": {"agent", "kernels"},
    "memory": {"agent", "maths"},
    "networks": {"agent", "kernels", "maths", "memory", "passes"},
    "passes": {"agent", "kernels", "networks"},
    "planning": {"agent"},
    "search": {"agent", "best_response", "players"},
    "bots": {"agent", "maths", "search"},
    "sb3": {"agent", "maths"},
    "learned_rules": {"agent", "kernels", "maths"},
    "disco": {"agent", "maths", "networks"},
}


@pytest.mark.parametrize("folder", WITHIN_AGENTS)
def test_kernels_see_tensors_alone_and_folders_of_agents_import_one_way(folder):
    allowed = WITHIN_AGENTS[folder] | {folder}
    for path in (ROOT / "agents" / folder).glob("*.py"):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[:2] == ["mlbits", "agents"] and len(parts) > 2:
                assert parts[2] in allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_has_at_most_twenty_files(room):
    for folder in [ROOT / room, *(path for path in (ROOT / room).rglob("*") if path.is_dir())]:
        assert len(list(folder.glob("*.py"))) <= 20, folder


def test_the_core_knows_no_game_and_agents_know_none_by_name():
    games = {path.stem if path.is_file() else path.name for path in (ROOT / "envs").iterdir()}
    games -= {"core", "engine", "doors", "exact", "registry", "registry_table", "origins", "__init__", "__pycache__"}
    # Agents for one family of games, which their docstrings say.
    made_for = {"diplomacy.py": {"diplomacy"}, "imitation.py": {"diplomacy"}, "ccdr.py": {"policy_similarity"}}
    for room in ("envs/core", "envs/engine", "envs/doors", "envs/exact", "agents"):
        for path in (ROOT / room).rglob("*.py"):
            for name in imports_of(path):
                parts = name.split(".")
                if parts[:2] == ["mlbits", "envs"] and len(parts) > 2:
                    assert parts[2] not in games - made_for.get(path.name, set()), f"{path.name} imports {name}"


def test_importing_the_package_is_light():
    """Torch and the rest are loaded when they are needed, so that the command line answers at once."""
    code = "import sys, mlbits, mlbits.cli; print(*sorted({'torch', 'scipy', 'PIL', 'tensorboard'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_file_is_a_drawer_for_everything():
    for path in ROOT.rglob("*.py"):
        if not {".venv", "build", "site-packages"} & set(path.parts):
            assert path.stem not in ("utils", "util", "common", "helpers", "helper", "misc"), path


def test_every_directory_of_code_is_a_package():
    for name, path in sources().items():
        if name.endswith(".py"):
            assert (path.parent / "__init__.py").exists(), path


def test_links_for_type_checkers_point_to_the_rooms():
    for room in ROOMS:
        link = ROOT / "src" / "mlbits" / room
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / room


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tree, without the network."""
    if Version(setuptools.__version__) < Version("77"):
        pytest.skip("setuptools 77 is needed to build")
    copy = tmp_path_factory.mktemp("tree")
    for name in (*ROOMS, "src"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-q", "-w", "dist"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_tree_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == set(sources())
    assert {"mlbits/py.typed", "mlbits/selfplay/runs/presets.toml"} <= names
    for name, path in sources().items():
        assert wheel.read(name) == path.read_bytes(), name


def test_the_wheel_says_what_pyproject_says(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = wheel.read(name).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Version: {mlbits.__version__}\n" in metadata
    for requirement in project["dependencies"]:
        package = re.split(r"[><=]", requirement)[0]
        assert f"Requires-Dist: {package}" in metadata
    (entries,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "mlbits = mlbits.cli:main" in wheel.read(entries).decode()
    assert any(name.endswith("LICENSE") for name in wheel.namelist())


@pytest.mark.slow
def test_a_game_is_played_on_the_page_that_the_installed_wheel_serves(wheel, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra web is not installed")
    from websockets.sync.client import connect

    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, wheel.filename], check=True)
    words = "play mlbits/TicTacToe-v0 --web --port 0 --against random --seed 1 --games games".split()
    code = f"import mlbits.cli as c; assert c.__file__.startswith({str(site)!r}); raise SystemExit(c.main({words}))"
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            link = next(line.split()[-1] for line in server.stdout if " play at " in line)
            for name in ("", "play.js", "play.css"):
                with urllib.request.urlopen(link + name) as answer:
                    assert answer.read() == (ROOT / "evals/play/web" / (name or "page.html")).read_bytes()
            with connect(link.replace("http", "ws") + "socket", origin=link.rstrip("/")) as socket:
                socket.send(json.dumps({"new": {}}))
                while not (view := json.loads(socket.recv(60)).get("view", {})).get("over"):
                    if view.get("yours"):
                        action = [slot["choices"][0][0] for slot in view["slots"]]
                        socket.send(json.dumps({"move": {"turn": view["turn"], "action": action}}))
        finally:
            server.send_signal(signal.SIGINT)
            left, _ = server.communicate(timeout=60)
    assert server.returncode == 0 and left.endswith("the server has stopped; what was played is saved\n")
    assert len(list((tmp_path / "games").glob("TicTacToe-*.html"))) == 1


def top_level_imports():
    found = set()
    for name, path in sources().items():
        if name.endswith(".py"):
            found |= {module.split(".")[0] for module in imports_of(path)}
    return found - set(sys.stdlib_module_names) - {"mlbits"}


def test_whatever_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    declared = {re.split(r"[><=\[]", name)[0].lower() for name in (*project["dependencies"], *extras)}
    packages = {
        "PIL": "pillow",
        "docstring_parser": "docstring-parser",
        "stable_baselines3": "stable-baselines3",
        "sb3_contrib": "sb3-contrib",
    }
    packages |= {"sklearn": "scikit-learn"}
    brought = {"jax", "IPython"}  # by gymnax, and by the notebook that runs us
    for module in top_level_imports() - brought:
        assert packages.get(module, module).lower() in declared, module


def test_the_readme_lists_everything_that_is_registered():
    readme = (ROOT / "README.md").read_text()
    for game_id in mlbits.registered():
        if game_id.startswith("mlbits/"):
            assert f"| `{game_id}` |" in readme, game_id
    for name in AGENTS:
        assert f"| `{name}` |" in readme, name


def test_the_readme_tells_how_to_repeat_every_result():
    readme = (ROOT / "README.md").read_text()
    if "@RESULTS@" in readme:
        pytest.skip("the results are being written")
    for name in EVALS:
        assert f"mlbits reproduce {name}" in readme, name
