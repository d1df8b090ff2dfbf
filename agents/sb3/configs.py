"""Settings of Stable-Baselines3's algorithms as agents: its names and its defaults, so that a baseline is its own.

The agents ``sb3-ppo``, ``sb3-a2c``, ``sb3-dqn``, ``sb3-ddpg``, ``sb3-td3`` and ``sb3-sac`` are the algorithms of
Raffin et al., "Stable-Baselines3: Reliable Reinforcement Learning Implementations" (JMLR 22, 2021), run as they are.
Names that are not SB3's own: ``hidden`` (its ``net_arch``), ``activation``, ``log_std`` (``log_std_init``) and
``ortho_init`` of its ``policy_kwargs``; ``anneal_lr`` and ``anneal_clip`` (a linear schedule to 0); ``noise_std`` (a
NormalActionNoise); ``normalize`` (a VecNormalize, as rl-baselines3-zoo's ``normalize: true``). SB3 is not imported.

Example:
    >>> from mlbits.agents.sb3.configs import SB3PPOConfig
    >>> SB3PPOConfig(learning_rate=1e-3, anneal_lr=True).n_steps
    2048
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mlbits.agents.agent import AgentError, check_hidden, check_range

_INF = float("inf")
_LIMITS: dict[str, tuple[float, float]] = {
    "learning_rate": (0, _INF), "gamma": (0, 1), "gae_lambda": (0, 1), "tau": (0, 1),
    "n_steps": (1, 2**31), "batch_size": (1, 2**31), "n_epochs": (1, 10**6), "clip_range": (1e-8, _INF),
    "vf_coef": (0, _INF), "max_grad_norm": (0, _INF), "rms_prop_eps": (0, 1), "sde_sample_freq": (-1, 2**31),
    "buffer_size": (1, 2**40), "learning_starts": (0, 2**40), "train_freq": (1, 2**31), "gradient_steps": (-1, 2**31),
    "target_update_interval": (1, 2**40), "exploration_fraction": (0, 1), "exploration_initial_eps": (0, 1),
    "exploration_final_eps": (0, 1), "noise_std": (0, _INF), "policy_delay": (1, 2**31),
    "target_policy_noise": (1e-8, _INF), "target_noise_clip": (0, _INF), "log_std": (-20, 20),
}  # fmt: skip


class SB3Config:
    """What the settings of all of SB3's algorithms have in common.

    Attributes:
        algorithm: the name of SB3's class.
        run_defaults: settings of a run whose default is another than for our agents: SB3's is one copy.
    """

    __slots__ = ()
    algorithm = ""
    run_defaults = (("num_envs", 1),)

    def check(self) -> None:
        """Check all settings.

        Raises:
            AgentError: naming the setting, its value and the range.
        """
        values: Any = self
        check_range(self, **{name: bounds for name, bounds in _LIMITS.items() if hasattr(self, name)})
        check_hidden(values.hidden)
        for name in ("clip_range_vf", "target_kl"):
            value = getattr(self, name, None)
            if value is not None and not value > 0:
                raise AgentError(f"{name}: got {value}; wanted a positive number, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3PPOConfig(SB3Config):
    """Settings of SB3's PPO; each default is SB3's.

    Attributes:
        n_steps: steps of each copy in a rollout.
        batch_size: steps of a minibatch.
        n_epochs: passes over each rollout.
        learning_rate: of Adam.
        anneal_lr: whether it falls linearly to 0 over the run.
        gamma: discount.
        gae_lambda: lambda of GAE.
        clip_range: epsilon of the clipped surrogate.
        anneal_clip: whether it falls linearly to 0 over the run.
        clip_range_vf: epsilon of the clipped value loss, or None for no clipping.
        normalize_advantage: whether advantages are standardised a minibatch.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: the gradient is clipped to this L2 norm.
        target_kl: the epochs over a rollout end once the KL divergence is beyond 1.5 times this; None for no limit.
        use_sde: whether exploration is state-dependent (gSDE), for continuous actions.
        sde_sample_freq: steps after which gSDE draws a new matrix; -1 for once a rollout.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers of actor and critic.
        activation: of the hidden layers.
        ortho_init: whether weights begin orthogonal.
        log_std: initial log standard deviation of continuous actions.
    """

    algorithm = "PPO"

    n_steps: int = 2048
    batch_size: int = 64
    n_epochs: int = 10
    learning_rate: float = 3e-4
    anneal_lr: bool = False
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    anneal_clip: bool = False
    clip_range_vf: float | None = None
    normalize_advantage: bool = True
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    use_sde: bool = False
    sde_sample_freq: int = -1
    normalize: bool = False
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    ortho_init: bool = True
    log_std: float = 0.0

    def __post_init__(self) -> None:
        self.check()
        if self.normalize_advantage and self.batch_size < 2:
            raise AgentError(f"batch_size: got {self.batch_size} with normalize_advantage; wanted at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3A2CConfig(SB3Config):
    """Settings of SB3's A2C; each default is SB3's.

    Attributes:
        n_steps: steps of each copy in a rollout.
        learning_rate: of the optimiser.
        anneal_lr: whether it falls linearly to 0 over the run.
        gamma: discount.
        gae_lambda: lambda of GAE; 1 is the plain n-step advantage.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: the gradient is clipped to this L2 norm.
        use_rms_prop: RMSProp in place of Adam.
        rms_prop_eps: epsilon of RMSProp.
        normalize_advantage: whether advantages are standardised.
        use_sde: whether exploration is state-dependent (gSDE), for continuous actions.
        sde_sample_freq: steps after which gSDE draws a new matrix; -1 for once a rollout.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers of actor and critic.
        activation: of the hidden layers.
        ortho_init: whether weights begin orthogonal.
        log_std: initial log standard deviation of continuous actions.
    """

    algorithm = "A2C"

    n_steps: int = 5
    learning_rate: float = 7e-4
    anneal_lr: bool = False
    gamma: float = 0.99
    gae_lambda: float = 1.0
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    use_rms_prop: bool = True
    rms_prop_eps: float = 1e-5
    normalize_advantage: bool = False
    use_sde: bool = False
    sde_sample_freq: int = -1
    normalize: bool = False
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    ortho_init: bool = True
    log_std: float = 0.0

    def __post_init__(self) -> None:
        self.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3DQNConfig(SB3Config):
    """Settings of SB3's DQN; each default is SB3's.

    Attributes:
        learning_rate: of Adam.
        anneal_lr: whether it falls linearly to 0 over the run.
        buffer_size: transitions kept, over all copies.
        learning_starts: environment steps before the first gradient step, played at random.
        batch_size: transitions of a gradient step.
        tau: share of the online network in the target's update; 1 copies it.
        gamma: discount.
        train_freq: steps of each copy between two calls of the learner.
        gradient_steps: gradient steps of each call; -1 for as many as steps were played.
        target_update_interval: environment steps between updates of the target network.
        exploration_fraction: share of the run over which epsilon falls.
        exploration_initial_eps: epsilon at the beginning.
        exploration_final_eps: epsilon at the end.
        max_grad_norm: the gradient is clipped to this L2 norm.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers.
    """

    algorithm = "DQN"

    learning_rate: float = 1e-4
    anneal_lr: bool = False
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 32
    tau: float = 1.0
    gamma: float = 0.99
    train_freq: int = 4
    gradient_steps: int = 1
    target_update_interval: int = 10_000
    exploration_fraction: float = 0.1
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    normalize: bool = False
    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        self.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3DDPGConfig(SB3Config):
    """Settings of SB3's DDPG; each default is SB3's.

    Attributes:
        learning_rate: of Adam, for actor and critic.
        anneal_lr: whether it falls linearly to 0 over the run.
        buffer_size: transitions kept, over all copies.
        learning_starts: environment steps before the first gradient step, played at random.
        batch_size: transitions of a gradient step.
        tau: share of the online networks in each update of the targets.
        gamma: discount.
        train_freq: steps of each copy between two calls of the learner.
        gradient_steps: gradient steps of each call; -1 for as many as steps were played.
        noise_std: deviation of the Gaussian noise on actions, of which the bounds are ±1; SB3 has none by default.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers of actor and critic.
    """

    algorithm = "DDPG"

    learning_rate: float = 1e-3
    anneal_lr: bool = False
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    noise_std: float = 0.0
    normalize: bool = False
    hidden: tuple[int, ...] = (400, 300)

    def __post_init__(self) -> None:
        self.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3TD3Config(SB3Config):
    """Settings of SB3's TD3; each default is SB3's.

    Attributes:
        learning_rate: of Adam, for actor and critics.
        anneal_lr: whether it falls linearly to 0 over the run.
        buffer_size: transitions kept, over all copies.
        learning_starts: environment steps before the first gradient step, played at random.
        batch_size: transitions of a gradient step.
        tau: share of the online networks in each update of the targets.
        gamma: discount.
        train_freq: steps of each copy between two calls of the learner.
        gradient_steps: gradient steps of each call; -1 for as many as steps were played.
        noise_std: deviation of the Gaussian noise on actions, of which the bounds are ±1; SB3 has none by default.
        policy_delay: gradient steps of the critics for one of the actor.
        target_policy_noise: deviation of the noise on the target's actions.
        target_noise_clip: bound of that noise.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers of actor and critics.
    """

    algorithm = "TD3"

    learning_rate: float = 1e-3
    anneal_lr: bool = False
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    noise_std: float = 0.0
    policy_delay: int = 2
    target_policy_noise: float = 0.2
    target_noise_clip: float = 0.5
    normalize: bool = False
    hidden: tuple[int, ...] = (400, 300)

    def __post_init__(self) -> None:
        self.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class SB3SACConfig(SB3Config):
    """Settings of SB3's SAC; each default is SB3's.

    Attributes:
        learning_rate: of Adam, for actor, critics and entropy coefficient.
        anneal_lr: whether it falls linearly to 0 over the run.
        buffer_size: transitions kept, over all copies.
        learning_starts: environment steps before the first gradient step, played at random.
        batch_size: transitions of a gradient step.
        tau: share of the online networks in each update of the targets.
        gamma: discount.
        train_freq: steps of each copy between two calls of the learner.
        gradient_steps: gradient steps of each call; -1 for as many as steps were played.
        noise_std: deviation of the Gaussian noise on actions, of which the bounds are ±1; SB3 has none by default.
        ent_coef: weight of the entropy: "auto" learns it, "auto_0.1" from that value on; or a number.
        target_update_interval: gradient steps between updates of the targets.
        target_entropy: what "auto" steers to, in nats: "auto" for minus the number of actions; or a number.
        use_sde: whether exploration is state-dependent (gSDE).
        sde_sample_freq: steps after which gSDE draws a new matrix; -1 for once a rollout.
        normalize: whether observations and rewards are divided by their running deviations (VecNormalize).
        hidden: widths of the hidden layers of actor and critics.
    """

    algorithm = "SAC"

    learning_rate: float = 3e-4
    anneal_lr: bool = False
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    noise_std: float = 0.0
    ent_coef: str = "auto"
    target_update_interval: int = 1
    target_entropy: str = "auto"
    use_sde: bool = False
    sde_sample_freq: int = -1
    normalize: bool = False
    hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        self.check()
        for name in ("ent_coef", "target_entropy"):
            value = getattr(self, name)
            start = value.removeprefix("auto_") if name == "ent_coef" else value
            try:
                valid = value == "auto" or float(start) == float(start)
            except ValueError:
                valid = False
            if not valid:
                raise AgentError(f"{name}: got {value!r}; wanted 'auto' or a number as text")
