"""Runs whose copies are cut into shards, which one process or several hold."""
