"""The engine: compiled drivers that reset, step and observe all copies of a game, on the CPU and on a GPU, and batches.

Rules of single games and their declaration (``core``) and interfaces to other libraries (``doors``) do not belong here.
"""
