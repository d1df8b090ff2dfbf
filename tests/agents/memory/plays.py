"""Made-up play for tests of the replay buffer: random streams of steps, with a record of every step."""

from dataclasses import dataclass, field

import torch

from mlbits.agents.agent import ReplaySpec, Rollout
from mlbits.agents.memory.replay import Replay
from tests.agents.rollouts import draw

GAMMA, ACTIONS = 0.9, 4


def vector(number):
    """Vector observations from numbers, which are different at each step."""
    return number.float().unsqueeze(-1) * torch.tensor([1.0, 0.5])


def index(number):
    return number.long()


def image(number):
    number = number.long()
    return torch.stack([(number >> 8 * (k % 4)) & 255 for k in range(12)], -1).to(torch.uint8).unflatten(-1, (3, 2, 2))


def everything(number):
    return {"vector": vector(number).double(), "image": image(number), "index": index(number)}


@dataclass
class Play:
    """Streams [B, P] of random play, a rollout at a time in memory that is reused, and a record of all steps.

    Observations encode the number 2 * (1000 * (step + 1) + stream), plus 1 for an episode's final observation;
    ``seen`` converts them to observations.
    """

    copies: int = 2
    seats: int = 1
    seed: int = 0
    terminates: float = 0.15
    truncates: float = 0.15
    masked: bool = False
    owned: float = 1.0  # fraction of the rollouts' seats that are the learner's
    seen: object = vector
    time: int = 0
    record: list = field(default_factory=list)  # a dict per step
    reused: dict = field(default_factory=dict)

    def __post_init__(self):
        self.generator = draw(self.seed)
        self.lead = (self.copies, self.seats)
        self.mask = self.legal()

    def chance(self, probability, *shape):
        return torch.rand(*shape, generator=self.generator) < probability

    def legal(self):
        mask = self.chance(0.5, *self.lead, ACTIONS)
        return mask | (torch.arange(ACTIONS) == torch.randint(ACTIONS, (*self.lead, 1), generator=self.generator))

    def moment(self, time, life):
        stream = torch.arange(self.copies * self.seats).view(self.lead)
        return 2 * (1000 * (time + 1) + stream) + 500_000 * life

    def spec(self, capacity, num_steps=3, exponent=0.0):
        return ReplaySpec(num_steps, capacity, exponent)

    def replay(self, capacity, num_steps=3, exponent=0.0):
        obs, mask = self.seen(self.moment(0, 0)), self.mask if self.masked else None
        return Replay(self.spec(capacity, num_steps, exponent), obs, torch.zeros(self.lead, dtype=torch.int64), mask)

    def rollout(self, steps, life=0):
        """Play and record the next steps; the memory of the last rollout is overwritten first."""
        for tensor in self.reused.values():
            tensor.fill_(True if tensor.dtype == torch.bool else 77)
        owned = self.chance(self.owned, *self.lead)
        moments, first = [], self.time
        for _ in range(steps):
            terminated, truncated = self.chance(self.terminates, self.copies), self.chance(self.truncates, self.copies)
            now = {
                "obs": self.moment(self.time, life),
                "final": self.moment(self.time, life) + 1,
                "following": self.moment(self.time + 1, life),
                "action": torch.randint(ACTIONS, self.lead, generator=self.generator),
                "reward": torch.randn(self.lead, generator=self.generator),
                "terminated": terminated,
                "truncated": truncated,
                "mask": self.mask,
                "owned": owned,
                "cut": False,
            }
            self.mask = now["next_mask"] = self.legal()
            moments.append(now)
            self.time += 1
        self.record += moments
        ended = torch.stack([m["terminated"] | m["truncated"] for m in moments])

        def block(name):
            return torch.stack([m[name] for m in moments])

        stale = torch.full_like(block("final"), 13)
        self.reused = {
            "reward": block("reward"),
            "sample": block("action"),
            "terminated": block("terminated"),
            "truncated": block("truncated"),
        }
        return Rollout(
            obs=self.seen(block("obs")),
            last_obs=self.seen(self.moment(first + steps, life)),
            final_obs=self.seen(torch.where(ended.unsqueeze(-1), block("final"), stale)),
            log_prob=torch.zeros(steps, *self.lead),
            legal_mask=block("mask") if self.masked else None,
            active=None if self.owned == 1 else owned.expand(steps, *self.lead).clone(),
            last_mask=self.mask if self.masked else None,
            **self.reused,
        )

    def cut(self):
        self.record[-1]["cut"] = True

    def drawable(self, time, copy, seat):
        step = self.record[time]
        unknown = self.masked and bool(step["truncated"][copy]) and not bool(step["terminated"][copy])
        return bool(step["owned"][copy, seat]) and not unknown

    def window(self, time, copy, seat, n_step):
        """Reward, discount, next observation and its mask of the window that begins there, by the definition."""
        reward, gamma = 0.0, 1.0
        for now in range(time, time + n_step):
            step = self.record[now]
            reward, gamma = reward + gamma * float(step["reward"][copy, seat]), gamma * GAMMA
            ended = bool(step["terminated"][copy] | step["truncated"][copy])
            newest = now == len(self.record) - 1
            if ended or step["cut"] or newest or not self.drawable(now + 1, copy, seat):
                break
        following = step["final" if ended else "following"][copy, seat]
        discount = 0.0 if bool(step["terminated"][copy]) else gamma
        return reward, discount, following, step["next_mask"][copy, seat], ended

    def held(self, steps):
        """Every (time, copy, seat) of the latest steps that may be sampled."""
        times = range(max(0, len(self.record) - steps), len(self.record))
        places = ((t, b, p) for t in times for b in range(self.copies) for p in range(self.seats))
        return {place for place in places if self.drawable(*place)}

    def where(self, obs):
        """The (time, copy, seat) that a vector observation encodes."""
        number = int(obs[0]) % 500_000 // 2
        copy, seat = divmod(number % 1000, self.seats)
        return number // 1000 - 1, copy, seat


def hand_written(terminated=(), truncated=(), steps=6):
    """One stream: step t has observation 10 t, reward 2**t and action t; final observations are 10 t + 5."""
    time = torch.arange(steps)
    return Rollout(
        obs=10.0 * time.view(steps, 1, 1, 1),
        last_obs=torch.full((1, 1, 1), 10.0 * steps),
        final_obs=10.0 * time.view(steps, 1, 1, 1) + 5,
        sample=time.view(steps, 1, 1),
        log_prob=torch.zeros(steps, 1, 1),
        reward=2.0 ** time.view(steps, 1, 1),
        terminated=torch.tensor([[t in terminated] for t in range(steps)]),
        truncated=torch.tensor([[t in truncated] for t in range(steps)]),
        legal_mask=None,
        active=None,
    )
