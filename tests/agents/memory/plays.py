"""Made-up play for tests of the replay: streams whose every moment is written down as it comes."""

from dataclasses import dataclass, field

import torch

from mlbits.agents.agent import ReplaySpec, Rollout
from mlbits.agents.memory.replay import Replay
from tests.agents.rollouts import draw

GAMMA, ACTIONS = 0.9, 4


def vector(number):
    """Observations from numbers that no two moments share."""
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
    """Streams [B, P] played at random, a rollout at a time, in memory that is written over; and a list of it all.

    Observations are numbers: 1000 * (moment + 1) + stream as seen, 0.5 more as an episode's last. ``seen`` shows them.
    """

    copies: int = 2
    seats: int = 1
    seed: int = 0
    terminates: float = 0.15
    truncates: float = 0.15
    masked: bool = False
    owned: float = 1.0  # share of the rollouts' seats that are the learner's
    seen: object = vector
    time: int = 0
    told: list = field(default_factory=list)  # a dict a moment
    reused: dict = field(default_factory=dict)

    def __post_init__(self):
        self.generator = draw(self.seed)
        self.lead = (self.copies, self.seats)
        self.mask = self.legal()

    def chance(self, share, *shape):
        return torch.rand(*shape, generator=self.generator) < share

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
        """The next steps, noted down; the memory of the last rollout is spoilt first."""
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
        self.told += moments
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
        self.told[-1]["cut"] = True

    def drawable(self, time, copy, seat):
        told = self.told[time]
        unknown = self.masked and bool(told["truncated"][copy]) and not bool(told["terminated"][copy])
        return bool(told["owned"][copy, seat]) and not unknown

    def window(self, time, copy, seat, n_step):
        """Reward, discount, next observation and its mask of the window that begins there, by the definition."""
        reward, gamma = 0.0, 1.0
        for now in range(time, time + n_step):
            told = self.told[now]
            reward, gamma = reward + gamma * float(told["reward"][copy, seat]), gamma * GAMMA
            ended = bool(told["terminated"][copy] | told["truncated"][copy])
            newest = now == len(self.told) - 1
            if ended or told["cut"] or newest or not self.drawable(now + 1, copy, seat):
                break
        following = told["final" if ended else "following"][copy, seat]
        discount = 0.0 if bool(told["terminated"][copy]) else gamma
        return reward, discount, following, told["next_mask"][copy, seat], ended

    def held(self, steps):
        """Every (time, copy, seat) of the latest steps that may be drawn."""
        times = range(max(0, len(self.told) - steps), len(self.told))
        places = ((t, b, p) for t in times for b in range(self.copies) for p in range(self.seats))
        return {place for place in places if self.drawable(*place)}

    def where(self, obs):
        """The (time, copy, seat) that a row of vector observations shows."""
        number = int(obs[0]) % 500_000 // 2
        copy, seat = divmod(number % 1000, self.seats)
        return number // 1000 - 1, copy, seat


def hand_written(terminated=(), truncated=(), steps=6):
    """One stream: at time t it sees 10 t, gets 2**t and plays t; an episode's last observation is 10 t + 5."""
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
