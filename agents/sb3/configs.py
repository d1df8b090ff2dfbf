"""Settings of Stable-Baselines3's algorithms as agents, with SB3's own names and defaults, for use as baselines.

The agents ``sb3-ppo``, ``sb3-a2c``, ``sb3-dqn``, ``sb3-ddpg``, ``sb3-td3`` and ``sb3-sac`` are the algorithms of
Raffin et al., "Stable-Baselines3: Reliable Reinforcement Learning Implementations" (JMLR 22, 2021), unchanged. Settings
whose names differ from SB3's: ``hidden`` (``net_arch``), ``activation``, ``log_std`` (``log_std_init``) and
``ortho_init`` are from its ``policy_kwargs``; ``anneal_lr`` and ``anneal_clip`` make a linear schedule to 0;
``noise_std`` is that of a NormalActionNoise; ``normalize`` adds a VecNormalize, as rl-baselines3-zoo's ``normalize:
true`` does. SB3 is not imported here.

Example:
    >>> from mlbits.agents.sb3.configs import SB3PPOConfig
    >>> SB3PPOConfig(learning_rate=1e-3, anneal_lr=True).n_steps
    2048
"""

from __future__ import annotations

import math
from typing import Literal

from mlbits.agents.agent import AgentError
from mlbits.envs.core.config_fields import configuration, setting


@configuration(AgentError)
class SB3Config:
    """Settings common to all of SB3's algorithms; subclasses set their own defaults.

    Class attributes: ``algorithm``, the name of SB3's class, and ``run_defaults``, run settings whose defaults differ
    from those of our agents: SB3 plays one copy.
    """

    algorithm = ""
    run_defaults = (("num_envs", 1),)

    learning_rate: float = setting(3e-4, "learning rate of the optimiser", low=0, high=math.inf)
    anneal_lr: bool = setting(False, "decay the learning rate linearly to 0 over the run")
    gamma: float = setting(0.99, "discount factor", low=0, high=1)
    normalize: bool = setting(
        False, "divide observations and rewards by their running standard deviations (VecNormalize)"
    )
    hidden: tuple[int, ...] = setting((64, 64), "widths of the hidden layers", low=1)


@configuration(AgentError)
class OnPolicyConfig(SB3Config):
    """Settings of SB3's on-policy algorithms."""

    n_steps: int = setting(5, "steps of each copy per rollout", low=1, high=2**31)
    gae_lambda: float = setting(1.0, "lambda of GAE; 1 is the plain n-step advantage", low=0, high=1)
    normalize_advantage: bool = setting(False, "standardise advantages in each minibatch (A2C: in each rollout)")
    ent_coef: float = setting(0.0, "weight of the entropy bonus")
    vf_coef: float = setting(0.5, "weight of the value loss", low=0, high=math.inf)
    max_grad_norm: float = setting(
        0.5, "largest L2 norm of the gradient; larger ones are clipped", low=0, high=math.inf
    )
    use_sde: bool = setting(False, "use state-dependent exploration (gSDE), for continuous actions")
    sde_sample_freq: int = setting(-1, "steps between new matrices of gSDE; -1 for one per rollout", low=-1, high=2**31)
    activation: Literal["tanh", "relu"] = setting("tanh", "activation function of the hidden layers")
    ortho_init: bool = setting(True, "initialise the weights orthogonally")
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", low=-20, high=20)


@configuration(AgentError)
class OffPolicyConfig(SB3Config):
    """Settings of SB3's off-policy algorithms."""

    buffer_size: int = setting(1_000_000, "transitions kept in the replay buffer, over all copies", low=1, high=2**40)
    learning_starts: int = setting(
        100, "environment steps played at random before the first gradient step", low=0, high=2**40
    )
    batch_size: int = setting(256, "transitions per gradient step", low=1, high=2**31)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=0, high=1)
    train_freq: int = setting(1, "steps of each copy between two rounds of updates", low=1, high=2**31)
    gradient_steps: int = setting(
        1, "gradient steps per round; -1 for as many as environment steps were played", low=-1, high=2**31
    )


@configuration(AgentError)
class NoisyConfig(OffPolicyConfig):
    """Settings of SB3's off-policy algorithms for continuous actions."""

    noise_std: float = setting(
        0.0, "standard deviation of the Gaussian noise on actions, whose bounds are ±1", low=0, high=math.inf
    )


@configuration(AgentError)
class SB3PPOConfig(OnPolicyConfig):
    """Settings of SB3's PPO; each default is SB3's."""

    algorithm = "PPO"

    n_steps: int = 2048
    batch_size: int = setting(64, "transitions per gradient step", low=1, high=2**31)
    n_epochs: int = setting(10, "passes over each rollout", low=1, high=10**6)
    gae_lambda: float = 0.95
    clip_range: float = setting(0.2, "epsilon of the clipped objective", low=1e-8, high=math.inf)
    anneal_clip: bool = setting(False, "decay the clip range linearly to 0 over the run")
    clip_range_vf: float | None = setting(
        None, "epsilon of the clipped value loss, or None for no clipping", low=1e-12, high=math.inf
    )
    normalize_advantage: bool = True
    target_kl: float | None = setting(
        None, "end a rollout's epochs once the KL divergence exceeds 1.5 times this, or None", low=1e-12, unit="nats"
    )

    def check(self) -> None:
        """Reject minibatches of one step, whose advantages cannot be standardised."""
        if self.normalize_advantage and self.batch_size < 2:
            raise AgentError(f"batch_size: got {self.batch_size} with normalize_advantage; wanted at least 2")


@configuration(AgentError)
class SB3A2CConfig(OnPolicyConfig):
    """Settings of SB3's A2C; each default is SB3's."""

    algorithm = "A2C"

    learning_rate: float = 7e-4
    use_rms_prop: bool = setting(True, "use RMSProp instead of Adam")
    rms_prop_eps: float = setting(1e-5, "epsilon of RMSProp", low=0, high=1)


@configuration(AgentError)
class SB3DQNConfig(OffPolicyConfig):
    """Settings of SB3's DQN; each default is SB3's."""

    algorithm = "DQN"

    learning_rate: float = 1e-4
    batch_size: int = 32
    tau: float = 1.0
    train_freq: int = 4
    target_update_interval: int = setting(
        10_000, "environment steps (SAC: gradient steps) between updates of the target network", low=1, high=2**40
    )
    exploration_fraction: float = setting(0.1, "fraction of the run over which epsilon falls linearly", low=0, high=1)
    exploration_initial_eps: float = setting(1.0, "fraction of random actions at the start", low=0, high=1)
    exploration_final_eps: float = setting(0.05, "fraction of random actions at the end", low=0, high=1)
    max_grad_norm: float = setting(
        10.0, "largest L2 norm of the gradient; larger ones are clipped", low=0, high=math.inf
    )


@configuration(AgentError)
class SB3DDPGConfig(NoisyConfig):
    """Settings of SB3's DDPG; each default is SB3's."""

    algorithm = "DDPG"

    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (400, 300)


@configuration(AgentError)
class SB3TD3Config(NoisyConfig):
    """Settings of SB3's TD3; each default is SB3's."""

    algorithm = "TD3"

    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (400, 300)
    policy_delay: int = setting(2, "critic updates per actor update", low=1, high=2**31)
    target_policy_noise: float = setting(
        0.2, "standard deviation of the noise on the target's actions", low=1e-8, high=math.inf
    )
    target_noise_clip: float = setting(0.5, "largest size of that noise", low=0, high=math.inf)


@configuration(AgentError)
class SB3SACConfig(NoisyConfig):
    """Settings of SB3's SAC; each default is SB3's."""

    algorithm = "SAC"

    hidden: tuple[int, ...] = (256, 256)
    ent_coef: str = setting("auto", "weight of the entropy: auto learns it, auto_0.1 from that value on; or a number")
    target_update_interval: int = setting(
        1, "environment steps (SAC: gradient steps) between updates of the target network", low=1, high=2**40
    )
    target_entropy: str = setting(
        "auto", "entropy that auto aims for: auto for minus the number of action dimensions, or a number", unit="nats"
    )
    use_sde: bool = setting(False, "use state-dependent exploration (gSDE), for continuous actions")
    sde_sample_freq: int = setting(-1, "steps between new matrices of gSDE; -1 for one per rollout", low=-1, high=2**31)

    def check(self) -> None:
        """Reject values that are neither "auto" nor a number."""
        for name, value, start in (
            ("ent_coef", self.ent_coef, self.ent_coef.removeprefix("auto_")),
            ("target_entropy", self.target_entropy, self.target_entropy),
        ):
            try:
                valid = value == "auto" or math.isfinite(float(start))
            except ValueError:
                valid = False
            if not valid:
                raise AgentError(f"{name}: got {value!r}; wanted 'auto' or a number as text")
