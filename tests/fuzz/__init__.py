"""Damaged and hostile input for every reader of files: ``python -m tests.fuzz [READER...] [--inputs N] [--seed S]``.

A reader may refuse an input with one of our errors, in one line, or accept it. Anything else is a fault: another
exception, more than five seconds, more than a gigabyte, and damage that is accepted where digests or ranges promise
that it is not. Inputs are made from sound ones by a seeded generator (``damage``), which knows JSON, and
from the kept inputs in ``corpus/READER/``: each was a fault once. With ``--atheris`` the inputs are chosen by coverage
instead (pip install atheris; CPython 3.11 to 3.13 on Linux). An input that is a fault is written to ``fuzz-faults/``.

``python -m tests.fuzz --list`` names the readers. Those called ``state-...`` run compiled rules with bounds checks on.
"""
