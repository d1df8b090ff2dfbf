"""Playing whole episodes of many policies in one batch, each copy with the weights of its own policy."""

from __future__ import annotations

import torch
from torch import Tensor

from mlbits.agents.agent import rows
from mlbits.agents.population.policies import Policies
from mlbits.agents.population.spec import Outcomes
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.selfplay.finite import EvaluationWatch


def play(
    policies: Policies,
    weights: Tensor,
    batch: AnyBatch,
    *,
    env: str = "",
    episodes: int = 1,
    max_steps: int = 1000,
    states: int = 0,
    generator: torch.Generator | None = None,
) -> Outcomes:
    """Play one new episode in each copy of a batch.

    Args:
        policies: the form of the policies.
        weights: of N policies, [N, D].
        batch: N * ``episodes`` copies of a game of one seat, the copies of a policy one after another.
        env: the environment's id, for messages.
        episodes: E, of each policy.
        max_steps: steps after which an episode is cut, where the environment has no time limit.
        states: number n of states to keep, each drawn uniformly from the states of a copy's episode.
        generator: for these draws, on the batch's device.

    Raises:
        NotFiniteError: naming the step and copy in which the environment returned a number that is not finite.
    """
    count, device = len(weights), batch.device
    decide, copies = policies.deciding(weights, episodes), batch.num_envs
    batch.reset()
    obs = rows(batch.obs, 2)
    inputs = policies.inputs(obs)
    total = torch.zeros(copies, dtype=torch.float64, device=device)
    lengths = torch.zeros(copies, dtype=torch.int64, device=device)
    playing = torch.ones(copies, dtype=torch.bool, device=device)
    all_play = True
    final = torch.zeros(copies, inputs.shape[1], device=device)
    of_copy = torch.randint(copies, (states,), generator=generator, device=device)
    kept = inputs[of_copy]
    watch = EvaluationWatch(env)
    for t in range(batch.horizon or max_steps):
        if states and t:  # reservoir sampling: the t-th state takes the place of the one kept with probability 1/(t+1)
            here = torch.rand(states, generator=generator, device=device) * (t + 1) < 1
            taken = (here & playing[of_copy]).nonzero().squeeze(1)
            kept[taken] = policies.inputs(obs)[of_copy[taken]]
        mask = None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
        action = decide(obs, mask)
        step = batch.step(action.view(copies, 1, *action.shape[1:]))
        reward = step.reward[:, 0]
        total += reward if all_play else torch.where(playing, reward, 0.0)
        ended = playing & (step.terminated | step.truncated)
        if bool(ended.any()):
            place = ended.nonzero().squeeze(1)
            final[place] = policies.inputs(rows(step.final_obs, 2))[place]
            lengths[place] = t + 1
            playing, all_play = playing & ~ended, False
        if not watch.goes_on(batch.obs, step.reward, playing, t + 1):
            break
        obs = rows(batch.obs, 2)
    cut = playing.nonzero().squeeze(1)
    lengths[cut] = t + 1
    final[cut] = policies.inputs(rows(batch.obs, 2))[cut]
    each = total.view(count, episodes)
    return Outcomes(each.mean(1), final.view(count, episodes, -1).mean(1), kept, lengths.view(count, episodes), each)
