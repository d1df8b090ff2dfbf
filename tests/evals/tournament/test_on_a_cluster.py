"""A tournament on several nodes of a Ray cluster, one of which is killed, ends with the same files byte for byte."""

import contextlib

import pytest

from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.tournament import MATCHES, hold_tournament

WORDS = ["random", *(f"mcts@simulations={count}" for count in range(2, 9))]
CONFIG = TournamentConfig(games=8, num_envs=8, seed=5)  # 28 pairs, a batch each
FILES = (MATCHES, "standings.json", "payoffs.csv")


def held(folder, **more):
    hold_tournament(WORDS, CONFIG, env="mlbits/TicTacToe-v0", out=folder, **more)
    return [(folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return held(tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.others = [made.add_node(**node) for _ in range(2)]
    yield made
    with contextlib.suppress(Exception):
        ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_processes_play_the_same_tournament(tmp_path, whole):
    assert held(tmp_path / "out", jobs=2) == whole
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*FILES, "standings.csv", "payoffs.png", "tournament.json"}


@pytest.mark.slow
def test_a_killed_node_changes_nothing(tmp_path, whole, cluster):
    killed = []

    def report(played, total):
        if played >= total / 2 and not killed:
            killed.append(played)
            cluster.remove_node(cluster.others[0], allow_graceful=False)

    assert held(tmp_path / "out", cluster=cluster.address, report=report) == whole
    assert killed
    assert killed[0] < 28 * 8
