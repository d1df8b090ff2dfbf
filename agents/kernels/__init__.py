"""Kernels: fast implementations of updates and passes, which take tensors and return tensors.

Each has a plain implementation that tests compare it with. Modules, configs and replay buffers do not belong here.
"""
