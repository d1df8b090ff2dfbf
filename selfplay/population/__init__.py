"""Runs of populations: many policies played in one batch, their sessions, and each member as an agent of its own."""
