"""Benchmarks: the speed of the suite beside other libraries; measurements of how good agents are belong elsewhere."""
