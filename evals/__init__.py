"""Evaluation: how good agents are, how exploitable, how they compare, and how fast the suite runs.

Tournaments, game theory, benchmarks and reproductions of results belong here; training does not (``selfplay``).
``EVALS`` is the registry of reproductions, one line each; :mod:`mlbits.evals.registry` describes an entry's parts.
"""

from mlbits.evals.registry import EVALS, EvalEntry, eval_entry, register_eval

__all__ = ["EVALS", "EvalEntry", "eval_entry", "register_eval"]

EVALS["gridworld"] = EvalEntry(
    "mlbits.evals.reproductions.gridworld:reproduce", "PPO reaches 95% of the exact optimum of GridWorld in 60 s"
)
EVALS["workers"] = EvalEntry(
    "mlbits.evals.reproductions.workers:reproduce",
    "runs on several processes, killed and stopped at random moments, have the bits of a run on one",
)
EVALS["scaling"] = EvalEntry(
    "mlbits.evals.reproductions.scaling:reproduce",
    "two workers on two cores are 1.8 times as fast as one, and a model of the parts says so within 15%",
)
EVALS["cartpole"] = EvalEntry(
    "mlbits.evals.reproductions.cartpole:reproduce", "PPO solves CartPole in 30k steps and 6 CPU-seconds"
)
EVALS["classic"] = EvalEntry(
    "mlbits.evals.reproductions.classic:reproduce",
    "the classic agents compared with Stable-Baselines3 and published figures",
)
EVALS["sac"] = EvalEntry(
    "mlbits.evals.reproductions.value_learning.sac:reproduce",
    "SAC is not below Stable-Baselines3's on the same tasks and seeds",
)
EVALS["her"] = EvalEntry(
    "mlbits.evals.reproductions.value_learning.her:reproduce",
    "goals in hindsight teach what nothing is learned of without: bit flipping, a robot's arm",
)
EVALS["memory"] = EvalEntry(
    "mlbits.evals.reproductions.memory:reproduce",
    "recurrent PPO solves what PPO without memory cannot, sb3-contrib's RecurrentPPO beside it",
)
EVALS["supervised-vs-rl"] = EvalEntry(
    "mlbits.evals.reproductions.supervised_vs_rl:reproduce",
    "whether learning from rewards takes n times the examples of learning from n labels",
)
EVALS["diplomacy"] = EvalEntry(
    "mlbits.evals.reproductions.diplomacy:reproduce",
    "PPO on a small Diplomacy board beats random play and a greedy bot",
)
EVALS["openspiel"] = EvalEntry(
    "mlbits.evals.reproductions.openspiel:reproduce",
    "NashConv, alpha-rank and Elo agree with OpenSpiel's on the same inputs",
)
EVALS["fictitious-play"] = EvalEntry(
    "mlbits.evals.reproductions.fictitious_self_play:reproduce",
    "self-play against a pool of past policies is less exploitable than plain self-play",
)
EVALS["overestimation"] = EvalEntry(
    "mlbits.evals.reproductions.value_learning.overestimation:reproduce",
    "Q-learning overestimates values, and double Q-learning corrects it, for tables and DQN",
)
EVALS["noisy-tv"] = EvalEntry(
    "mlbits.evals.reproductions.exploration.noisy_tv:reproduce",
    "which bonus is caught by a television that shows noise: a model of pixels is, RND and ICM are not",
)
EVALS["labyrinth"] = EvalEntry(
    "mlbits.evals.reproductions.exploration.labyrinth:reproduce",
    "steps to see a maze that is new each time, with each bonus and without, beside two yardsticks",
)
EVALS["deep-sea"] = EvalEntry(
    "mlbits.evals.reproductions.exploration.deep_sea:reproduce",
    "counting finds a treasure that chance finds once in a million episodes",
)
EVALS["crr"] = EvalEntry(
    "mlbits.evals.reproductions.offline.crr:reproduce",
    "CRR beats behavioural cloning and the best behaviour in mixed data, d3rlpy beside it",
)
EVALS["crr-locomotion"] = EvalEntry(
    "mlbits.evals.reproductions.offline.locomotion:reproduce",
    "CRR beats behavioural cloning on the data of a medium and an expert HalfCheetah",
)
EVALS["similarity"] = EvalEntry(
    "mlbits.evals.reproductions.similarity:reproduce",
    "networks that observe how similar they are keep cooperating, in part",
)
EVALS["tic-tac-toe"] = EvalEntry(
    "mlbits.evals.reproductions.search.tic_tac_toe:reproduce",
    "AlphaZero never loses at tic-tac-toe, whatever the other plays",
)
EVALS["connect-four"] = EvalEntry(
    "mlbits.evals.reproductions.search.connect_four:reproduce",
    "AlphaZero on Connect Four keeps the value of hard positions and beats UCT",
)
EVALS["board-games"] = EvalEntry(
    "mlbits.evals.reproductions.search.board_games:reproduce", "AlphaZero beats UCT at Othello 6x6, Hex 7x7 and Go 5x5"
)
EVALS["sbr-blotto"] = EvalEntry(
    "mlbits.evals.reproductions.search.blotto_best_response:sbr",
    "sampled best responses to uniform play in Blotto earn the reference values",
)
EVALS["blotto-brpi"] = EvalEntry(
    "mlbits.evals.reproductions.search.blotto_best_response:policy_iterations",
    "fictitious play from samples approaches Blotto's equilibrium, iterated best response cycles",
)
EVALS["diplomacy-search"] = EvalEntry(
    "mlbits.evals.reproductions.search.diplomacy_search:reproduce",
    "agents that learn from their own search beat bots, PPO and their past selves at Diplomacy",
)
EVALS["lpg"] = EvalEntry(
    "mlbits.evals.reproductions.learned_rules.lpg:reproduce",
    "a learned update rule against tuned A2C in levels it never met, and what its agents predict",
)
EVALS["fuzzybear"] = EvalEntry(
    "mlbits.evals.reproductions.fuzzybear:reproduce",
    "a model of others' walks that omits the bear walks into the forest; the causally correct one goes home",
)
EVALS["off-policy"] = EvalEntry(
    "mlbits.evals.reproductions.offline.off_policy:reproduce",
    "estimates of a policy's value from others' data, against the exact value of a tabular problem",
)
EVALS["off-policy-ranking"] = EvalEntry(
    "mlbits.evals.reproductions.offline.off_policy_ranking:reproduce",
    "estimates from logged data put Pendulum policies of graded quality in the right order",
)
EVALS["soak"] = EvalEntry(
    "mlbits.evals.reproductions.trust.soak:reproduce",
    "an hour of training, tournaments and drawing, killed every minute, loses nothing and wears nothing out",
)
EVALS["kills"] = EvalEntry(
    "mlbits.evals.reproductions.trust.kills:reproduce",
    "runs of every kind, killed at 500 random moments and resumed, end bit for bit as if left alone",
)
EVALS["normalisation"] = EvalEntry(
    "mlbits.evals.reproductions.value_learning.normalisation:reproduce",
    "DQN and DDPG with normalised observations and rewards, compared with raw ones",
)
EVALS["dpo"] = EvalEntry(
    "mlbits.evals.reproductions.learned_rules.dpo:reproduce",
    "PPO with the drift of discovered policy optimisation is not below PPO with its clip",
)
EVALS["disco"] = EvalEntry(
    "mlbits.evals.reproductions.learned_rules.disco:reproduce",
    "DiscoRL's published rule, from your file, learns to catch 90% of balls in 1,000 updates",
)
EVALS["step-sizes"] = EvalEntry(
    "mlbits.evals.reproductions.learned_rules.step_sizes:reproduce",
    "a learning rate learned by amortised proximal optimisation makes up for a start that is far too small",
)
EVALS["hypergradients"] = EvalEntry(
    "mlbits.evals.reproductions.learned_rules.hypergradients:reproduce",
    "a regulariser learned by implicit differentiation is as good as a tuned one, on values of a policy",
)
EVALS["wsc-encoder"] = EvalEntry(
    "mlbits.evals.reproductions.representation.wsc_encoder:reproduce",
    "an encoder ranks every position in PushBlocks' pictures after seconds, from compared pairs with noise",
)
EVALS["drq"] = EvalEntry(
    "mlbits.evals.reproductions.representation.drq:reproduce",
    "random shifts of pictures make SAC learn Pendulum from pixels",
)
EVALS["wsc-control"] = EvalEntry(
    "mlbits.evals.reproductions.representation.wsc_control:reproduce",
    "how near agents push a block to where a picture shows it, by what they learned to see",
)
EVALS["dvd"] = EvalEntry(
    "mlbits.evals.reproductions.diversity.dvd:reproduce",
    "more members of populations rewarded for diversity get round a wall than independent policies",
)
EVALS["map-elites"] = EvalEntry(
    "mlbits.evals.reproductions.diversity.map_elites:reproduce",
    "MAP-Elites on 100 x 100 cells has pyribs' QD-score in less CPU time",
)
