"""Names of settings in Stable-Baselines3, CleanRL and our earlier versions, for suggesting our name.

Only ``gamma`` is accepted, in place of ``discount``; for the other names the error suggests ours.

Example:
    >>> from mlbits.agents.ppo import PPOConfig
    >>> suggestions("n_steps", PPOConfig)
    ['num_steps']
    >>> canonical({"gamma": 0.9}, PPOConfig)
    {'discount': 0.9}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

ACCEPTED = {"gamma": "discount"}

# Names of one setting, ours first. A name may be in several groups, since it means different things elsewhere.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("discount", "gamma"),
    # the run
    ("total_steps", "total_timesteps", "n_timesteps", "updates", "gradient_steps", "n_updates"),
    ("data", "dataset", "dataset_id"),
    ("num_envs", "n_envs"),
    ("threads", "num_threads"),
    ("eval_every", "eval_freq"),
    ("eval_episodes", "n_eval_episodes"),
    ("checkpoint_every", "save_freq"),
    ("keep_best", "best_model_save_path"),
    ("stop_at_return", "reward_threshold"),
    ("stop_without_improvement", "max_no_improvement_evals"),
    ("video", "capture_video"),
    ("opponent_fraction", "opponent_share"),
    ("pool_fraction", "pool_share"),
    # rollouts and epochs
    ("num_steps", "n_steps"),
    ("epochs", "n_epochs", "update_epochs"),
    ("minibatches", "num_minibatches", "batch_size", "minibatch_size"),
    ("gae_lambda", "lam"),
    # losses
    ("clip_coef", "clip_range"),
    ("entropy_coef", "ent_coef"),
    ("temperature", "ent_coef", "alpha", "autotune"),
    ("temperature_start", "init_temperature"),
    ("value_coef", "vf_coef"),
    ("target_kl", "kl_stop", "kl_bound", "max_kl"),
    ("adaptive_target_kl", "kl_target"),
    ("normalize_advantage", "norm_adv"),
    ("normalize_obs", "norm_obs", "normalize_observations"),
    ("normalize_reward", "norm_reward", "normalize_rewards"),
    ("learning_rate", "lr", "actor_learning_rate", "critic_learning_rate", "temperature_learning_rate"),
    ("actor_learning_rate", "policy_lr"),
    ("critic_learning_rate", "q_lr"),
    ("critic_updates", "n_critic_updates"),
    ("cg_iterations", "cg_max_steps"),
    ("line_search_steps", "line_search_max_iter"),
    ("shrink", "line_search_shrinking_factor"),
    # networks
    ("hidden", "net_arch"),
    ("log_std", "log_std_init"),
    ("atoms", "n_atoms", "n_quantiles"),
    ("v_min", "support_low"),
    ("v_max", "support_high"),
    # replay and exploration
    ("buffer_size", "capacity"),
    ("learning_starts", "warmup"),
    ("replay_ratio", "updates_per_step", "gradient_steps"),
    ("num_steps", "train_freq", "train_frequency"),
    ("n_step", "n_steps"),
    ("target_every", "target_update_interval", "target_network_frequency"),
    ("epsilon", "exploration_schedule"),
    ("epsilon_start", "exploration_initial_eps", "start_e"),
    ("epsilon_end", "exploration_final_eps", "end_e"),
    ("epsilon_fraction", "exploration_fraction"),
    ("noise", "exploration_noise", "noise_std", "action_noise"),
    ("target_noise", "policy_noise", "target_policy_noise"),
    ("target_noise_clip", "noise_clip"),
    ("policy_delay", "policy_frequency"),
)


def synonyms(name: str) -> list[str]:
    """All other names of a setting, in the order of ``GROUPS``."""
    return list(dict.fromkeys(other for group in GROUPS if name in group for other in group if other != name))


def suggestions(name: str, config_class: Any) -> list[str]:
    """The settings of a config that have the given name elsewhere, in the order of ``GROUPS``."""
    known = {field.name for field in dataclasses.fields(config_class)}
    return [other for other in synonyms(name) if other in known]


def canonical(values: Mapping[str, Any], config_class: Any) -> dict[str, Any]:
    """The same values under our names, for the names in ``ACCEPTED``.

    If the config itself has a setting of the other name, it is kept (``gamma`` of Stable-Baselines3's algorithms). If
    the values have both names, both are kept, and the other one is then rejected as unknown.
    """
    known, found = {field.name for field in dataclasses.fields(config_class)}, dict(values)
    for other, name in ACCEPTED.items():
        if other in found and other not in known and name in known and name not in found:
            found[name] = found.pop(other)
    return found
