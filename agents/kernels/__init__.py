"""Kernels: fast paths of updates. Tensors in, tensors out; no module, config or replay buffer is seen here."""
