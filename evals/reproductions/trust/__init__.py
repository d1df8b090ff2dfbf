"""Reproductions of what is promised of runs: nothing that was saved is lost."""
