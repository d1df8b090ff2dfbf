"""Tests of a card: ``pytest -m gpu``. See ``conftest`` for how they run where there is none."""
