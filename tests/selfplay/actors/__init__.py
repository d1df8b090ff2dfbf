"""Runs with actors."""
