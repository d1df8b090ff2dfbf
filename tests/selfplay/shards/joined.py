"""Workers that are threads of the test's process: links without torch.distributed, and runs of a few iterations."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from mlbits.selfplay.league.learners import divided, learner_groups, overlap
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.shards.links import Alone, Order, Orders
from mlbits.selfplay.shards.parts import Parts, joined, part_of


class Table:
    """Where the ranks lay down what they exchange."""

    def __init__(self, world):
        self.barrier = threading.Barrier(world, timeout=60)
        self.laid = [None] * world

    def exchange(self, rank, value):
        self.laid[rank] = value
        self.barrier.wait()
        found = list(self.laid)
        self.barrier.wait()
        return found


class Threads:
    """Links of a rank that is a thread."""

    def __init__(self, rank, places, table, tables):
        self.rank, self.places, self.table, self.communicating = rank, places, table, 0.0
        self.tables = tables

    def gather(self, value, group=0):
        members, table = self.tables[group]
        return torch.cat(table.exchange(members.index(self.rank), value))

    def exchange(self, message):
        return self.table.exchange(self.rank, message)


def settings_of(agent, env, *, shards=4, agent_settings=None, env_settings=None, **run):
    run = {"num_envs": 8, "total_steps": 4000, "video": False, "device": "cpu", "shards": shards, **run}
    return resolve(agent, env, preset="none", run=run, agent_settings=agent_settings, env_settings=env_settings)


def iterate(parts, settings, count, steps=0):
    """Play and learn ``count`` times; returns the environment steps and the last report."""
    report = None
    for _ in range(count):
        now = Orders(Order.ITERATE, steps, min(1.0, steps / settings.run.total_steps))
        rollouts, _, played = parts.collect(now)
        report = parts.learn(rollouts)
        parts.note(without_first=False)
        steps += played
    return steps, report


def run(settings, workers, count, checkpoint=None, steps=0, folder=None):
    """A run's checkpoint, its steps and last report, after ``count`` iterations on so many workers.

    Its folder, if there is one, gets its frozen copies.
    """
    places = divided(settings.run.shards, workers)
    table, tables = Table(workers), []
    for group in learner_groups(settings.run):
        members = [rank for rank, shards in enumerate(places) if overlap(shards, group.shards)]
        tables.append((members, Table(len(members))))

    def work(rank):
        links = Alone(settings.run.shards) if workers == 1 else Threads(rank, places, table, tables)
        parts = Parts(settings, links)
        parts.start()
        if checkpoint is not None:
            counters = {"env_steps": steps}
            message = part_of(checkpoint, counters, places[rank], settings.run.shards)
            assert parts.restore(message, folder, print) == ""
        found = iterate(parts, settings, count, steps)
        saved = parts.saved()
        parts.close()
        opponents = parts.sessions[0].opponents
        if opponents is not None and folder is not None and rank == 0:
            opponents.write(folder)
        return saved, found

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(work, range(workers)))
    return joined([saved for saved, _ in done]), *done[0][1]


def digest(checkpoint):
    """A hash of everything in a checkpoint."""
    found = hashlib.sha256(repr(checkpoint.state).encode())
    for part in (checkpoint.weights, checkpoint.arrays):
        for name in sorted(part):
            found.update(f"{name} {part[name].dtype} {tuple(part[name].shape)}".encode())
            found.update(part[name].contiguous().numpy().tobytes())
    return found.hexdigest()
