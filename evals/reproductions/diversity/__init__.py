"""Reproductions of diversity: populations that go round a wall both ways, and archives of elites."""
