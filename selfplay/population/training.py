"""The trainer of populations: the loop of all runs, with a session that plays many policies."""

from __future__ import annotations

import functools

from mlbits.selfplay import loop
from mlbits.selfplay.population.session import open_population_session

# A trainer's two functions (mlbits.selfplay.training): the loop's, with this session.
train = functools.partial(loop.train, open_session=open_population_session)
resume = functools.partial(loop.resume, open_session=open_population_session)
