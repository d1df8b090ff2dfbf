"""Map the root folders into the ``mlbits`` package; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("envs", "agents", "selfplay", "evals")
commands = find_packages("src", include=["mlbits.cli", "mlbits.cli.*"])
found = find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")])

setup(
    packages=["mlbits", *commands, *(f"mlbits.{package}" for package in found)],
    package_dir={"mlbits": "src/mlbits", **{f"mlbits.{room}": room for room in ROOMS}},
)
