"""Benchmarks: how fast everything runs, beside other libraries."""
