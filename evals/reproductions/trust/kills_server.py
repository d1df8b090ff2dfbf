"""Imported by the process that those of ``reproduce kills`` are forked from: it has what each of them would load again.

That is modules, and Numba's tables, which the first compiled function fills. Nothing here may start a thread.
"""

import importlib

import tensorboard.plugins.hparams.plugin_data_pb2  # noqa: F401

import mlbits
import mlbits.evals.tournament.command
import mlbits.selfplay.loop
import mlbits.selfplay.offline.session
import mlbits.selfplay.runs.flags
from mlbits.agents import AGENTS
from mlbits.evals.reproductions.trust.kills import KINDS

for module in ("mlbits.cli", "mlbits.training"):  # the program that the processes run
    importlib.import_module(module)
for words in KINDS.values():
    command, name = words.split()[:2]
    if command == "train":
        importlib.import_module(AGENTS[name].module)
mlbits.make_batch("mlbits/CartPole-v0", 1)
