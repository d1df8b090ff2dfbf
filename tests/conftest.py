"""What all tests share: one torch thread."""

import torch


def pytest_configure(config):
    torch.set_num_threads(1)
