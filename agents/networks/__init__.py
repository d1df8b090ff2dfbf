"""Networks: modules from observations to policies, values and orders, and what acting with them needs.

Losses and updates do not belong here (the algorithms' own files), nor do distributions and returns (``maths``) or
compiled passes (``kernels``).
"""
