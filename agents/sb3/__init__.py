"""Stable-Baselines3's algorithms and policies as agents: settings, construction, acting, loading of saved models.

Their training loop does not belong here (:mod:`mlbits.selfplay.sb3_training`), nor do environments in SB3's form
(:mod:`mlbits.envs.doors`).
"""
