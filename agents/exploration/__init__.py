"""Exploration by intrinsic rewards: a bonus for what is new, as a setting of the agents that learn on the shared loop.

``settings`` declares the settings, ``explorer`` is what agents hold, and each bonus is a file: ``count``, ``rnd``,
``icm``, ``latent_world_model``. What an agent does at random (epsilon, noise) does not belong here.
"""
