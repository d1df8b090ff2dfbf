"""Runs whose next rollout other processes play while the learner learns."""
