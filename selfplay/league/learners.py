"""The learners of a run, their names, and which of them learn from which of its shards.

A run without a league has one learner. A league in S shards has its L learners in min(S, L) groups. With as many shards
as learners or more, each group is one learner with one shard or several, from whose gradients it takes the mean. With
fewer, each shard is a group of its own, whose copies are divided among its learners. Groups learn apart, on different
processes or machines if there are several, and meet after each iteration to exchange the results of games and what
they have learned.

Example:
    >>> [(list(group.learners), list(group.shards)) for group in divided_in_groups(3, 4)]
    [([0], [0, 1]), ([1], [2]), ([2], [3])]
    >>> [(list(group.learners), list(group.shards)) for group in divided_in_groups(4, 2)]
    [([0, 1], [0]), ([2, 3], [1])]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mlbits.selfplay.league.matchmaking import Role
from mlbits.selfplay.runs.config import RunConfig


@dataclass(frozen=True, slots=True)
class LearnerGroup:
    """Learners that learn from the same shards.

    Attributes:
        learners: their numbers.
        shards: the numbers of the shards.
    """

    learners: range
    shards: range


def roles_of(run: RunConfig) -> list[Role]:
    """The role of each learner of a run."""
    if run.pool != "league":
        return ["main"]
    counts: dict[Role, int] = {
        "main": run.main_agents, "main_exploiter": run.main_exploiters, "league_exploiter": run.league_exploiters
    }  # fmt: skip
    return [role for role, count in counts.items() for _ in range(count)]


def learner_names(roles: Sequence[Role]) -> list[str]:
    """main, main-exploiter, ...; numbered where there are several of one role."""
    names = []
    for number, role in enumerate(roles):
        name = role.replace("_", "-")
        several = roles.count(role) > 1
        names.append(f"{name}-{list(roles[:number]).count(role) + 1}" if several else name)
    return names


def learner_groups(run: RunConfig) -> list[LearnerGroup]:
    """The groups of a run's learners, in the order of their shards."""
    return divided_in_groups(len(roles_of(run)), run.shards)


def divided_in_groups(learners: int, shards: int) -> list[LearnerGroup]:
    """Groups of so many learners and shards, as even as possible."""
    count = min(learners, shards)
    both = zip(divided(learners, count), divided(shards, count), strict=True)
    return [LearnerGroup(own, theirs) for own, theirs in both]


def divided(number: int, parts: int) -> list[range]:
    """The numbers from 0 in so many ranges, as even as possible.

    Example:
        >>> divided(4, 3)
        [range(0, 2), range(2, 3), range(3, 4)]
    """
    least, more = divmod(number, parts)
    ends = [least * k + min(k, more) for k in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(ends)]


def overlap(one: range, other: range) -> range:
    """The numbers that are in both ranges."""
    return range(max(one.start, other.start), min(one.stop, other.stop))
