"""Atari games with the usual preprocessing, built from Gymnasium's wrappers.

Wrappers around the emulator, innermost first (Mnih et al., "Human-level control through deep reinforcement learning",
2015):

1. ``AtariPreprocessing``: up to 30 no-op steps at the start, every action for 4 frames, the maximum of the
   last two frames, grey, 84 x 84;
2. :class:`Lives`: presses FIRE where a game waits for it; in training, losing a life ends the episode;
3. in training, the reward is replaced by its sign;
4. ``FrameStackObservation``: the last 4 observations, uint8 [4, 84, 84].

In evaluation an episode is the whole game and its return is the true score.

Unlike ``AtariPreprocessing(terminal_on_life_loss=True)``, a lost life does not restart the game: with that setting only
first lives would ever be played. Gymnasium has no wrapper that presses FIRE.

Example:
    >>> from mlbits.envs.doors.gymnasium_batch import open_batch
    >>> open_batch("ALE/Pong-v5", 8, training=True).obs.shape
    torch.Size([8, 1, 4, 84, 84])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import gymnasium as gym

from mlbits.envs.core.settings import flag, integer

FIRE = 1  # its index among a game's actions, if the game has it
_FIRST_PRESSES = (1, 2)  # as in OpenAI's baselines: some games need the second


@dataclass(frozen=True, slots=True, kw_only=True)
class AtariSettings:
    """Preprocessing settings, in addition to the emulator's own (``mode``, ``repeat_action_probability``, ...).

    Attributes:
        preprocess: False opens the game as Gymnasium does, without any preprocessing.
        noop_max: most no-op steps at the start of a game.
        frame_skip: number of frames that each action is repeated.
        screen_size: height and width of the observation in pixels.
        frame_stack: number of stacked observations.
        terminal_on_life_loss: whether a lost life ends the episode (in training only).
        clip_reward: whether rewards are replaced by their sign (in training only).
    """

    preprocess: bool = True
    noop_max: int = 30
    frame_skip: int = 4
    screen_size: int = 84
    frame_stack: int = 4
    terminal_on_life_loss: bool = True
    clip_reward: bool = True

    def __post_init__(self) -> None:
        for name in ("preprocess", "terminal_on_life_loss", "clip_reward"):
            flag(name, getattr(self, name))
        for name, low, high in (("noop_max", 0, 1000), ("frame_skip", 1, 100), ("screen_size", 8, 1000)):
            integer(name, getattr(self, name), low, high)
        integer("frame_stack", self.frame_stack, 1, 100)


def is_atari(spec: gym.envs.registration.EnvSpec) -> bool:
    """Whether an environment comes from ale-py."""
    return str(spec.entry_point).startswith("ale_py")


def make_atari(env_id: str, settings: Mapping[str, Any], training: bool) -> gym.Env[Any, Any]:
    """One copy of an Atari game.

    Args:
        env_id: a Gymnasium id of ale-py's.
        settings: settings of :class:`AtariSettings` and of the emulator, ``render_mode`` included.
        training: whether lost lives end episodes and rewards are clipped, if the settings say so.

    Raises:
        GameError: if a setting of :class:`AtariSettings` is out of range.
    """
    own = {field.name for field in fields(AtariSettings)}
    chosen = AtariSettings(**{name: value for name, value in settings.items() if name in own})
    emulator = {name: value for name, value in settings.items() if name not in own}
    if not chosen.preprocess:
        return gym.make(env_id, **emulator)
    # AtariPreprocessing skips frames itself and wants grey ones, which cost the emulator least.
    env: gym.Env[Any, Any] = gym.make(env_id, **{"obs_type": "grayscale", **emulator, "frameskip": 1})
    env = gym.wrappers.AtariPreprocessing(
        env, noop_max=chosen.noop_max, frame_skip=chosen.frame_skip, screen_size=chosen.screen_size
    )
    env = Lives(env, ends_episode=training and chosen.terminal_on_life_loss)
    if training and chosen.clip_reward:
        env = gym.wrappers.TransformReward(env, _sign)
    return gym.wrappers.FrameStackObservation(env, chosen.frame_stack) if chosen.frame_stack > 1 else env


def max_steps_per_game(env: gym.Env[Any, Any], settings: Mapping[str, Any]) -> int | None:
    """Most steps of a game before the emulator truncates it, or None."""
    spec = env.unwrapped.spec
    frames = None if spec is None else spec.kwargs.get("max_num_frames_per_episode")
    skip = int(settings.get("frame_skip", AtariSettings().frame_skip)) if settings.get("preprocess", True) else 1
    return None if frames is None else -(-int(frames) // skip)


def lives_of(env: gym.Env[Any, Any]) -> Lives | None:
    """The :class:`Lives` around an Atari game, or None for any other environment."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Lives):
            return env
        env = env.env
    return None


def _sign(reward: Any) -> float:
    return float((reward > 0) - (reward < 0))


class Lives(gym.Wrapper[Any, Any, Any, Any]):
    """Press FIRE where a game or a life waits for it, and end the episode when a life is lost if asked to.

    After an episode that ended with a lost life, the next one continues the same game.

    Args:
        env: a preprocessed Atari game.
        ends_episode: whether losing a life that is not the last terminates the episode.
    """

    def __init__(self, env: gym.Env[Any, Any], ends_episode: bool) -> None:
        super().__init__(env)
        self._emulator = cast(Any, env.unwrapped)
        meanings: list[str] = self._emulator.get_action_meanings()
        self._fires = len(meanings) > 2 and meanings[FIRE] == "FIRE"
        self._ends_episode = ends_episode
        self._lives = 0
        self._goes_on = False

    @property
    def goes_on(self) -> bool:
        """Whether the next reset without a seed continues the current game."""
        return self._goes_on

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start a game; after a lost life, and without a seed, continue the current one."""
        if self._goes_on and seed is None:
            obs, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                obs, info = self.env.reset()
        else:
            obs, info = self.env.reset(seed=seed, options=options)
        self._goes_on = False
        if self._fires:
            for action in _FIRST_PRESSES:
                obs, _, terminated, truncated, info = self.env.step(action)
                if terminated or truncated:
                    obs, info = self.env.reset()
        self._lives = self._emulator.ale.lives()
        return obs, info

    def step(self, action: Any) -> Any:
        """Play an action; if FIRE is pressed after a lost life, its reward counts in the same step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = self._emulator.ale.lives()
        lost, self._lives = 0 < lives < self._lives, lives
        if lost and not (terminated or truncated):
            if self._ends_episode:
                self._goes_on, terminated = True, True
            elif self._fires:
                obs, more, terminated, truncated, info = self.env.step(FIRE)
                reward, self._lives = float(reward) + float(more), self._emulator.ale.lives()
        return obs, reward, terminated, truncated, info
