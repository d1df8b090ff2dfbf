"""A made-up rule for all tests of this folder."""

import pytest

from tests.agents.disco.made_up import made_up_rule


@pytest.fixture
def rule(tmp_path):
    with made_up_rule(tmp_path) as path:
        yield path
