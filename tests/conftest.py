"""What all tests share: one torch thread, and the option that lets slow tests run."""

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: asked for with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
