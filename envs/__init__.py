"""Environments: the games, one file or folder each, and what all games share.

``registry`` lists them. ``core`` is what a game is declared with, ``engine`` steps its copies, ``doors`` holds the
interfaces (Gymnasium, PettingZoo, Stable-Baselines3), ``exact`` builds full models of games from their rules. Agents,
training and evaluation do not belong here.
"""

from mlbits.envs.registry import register, registered


def register_all() -> None:
    """Register every game of the suite, once."""
    if "mlbits/GridWorld-v0" in registered():
        return
    register("mlbits/GridWorld-v0", "mlbits.envs.gridworld:gridworld", summary="reach the goal on a map of your own")
    register("mlbits/FourRooms-v0", "mlbits.envs.gridworld:four_rooms", summary="four rooms, start anywhere")
    register("mlbits/CliffWalk-v0", "mlbits.envs.gridworld:cliff_walk", summary="the short way runs along a cliff")
    register(
        "mlbits/RandomGridWorld-v0",
        "mlbits.envs.gridworld.random_maps:random_gridworld",
        summary="a new map every episode, and test maps never seen in training",
        reward_threshold=0.9,
    )
    register(
        "mlbits/Bandit-v0",
        "mlbits.envs.bandit:bandit",
        summary="k arms; find the best one",
        reward_threshold=135.0,
    )
    register(
        "mlbits/Knapsack-v0",
        "mlbits.envs.knapsack:knapsack",
        summary="pack the most valuable items",
        reward_threshold=64.0,
    )
    register(
        "mlbits/DelayedChain-v0",
        "mlbits.envs.delayed_chain:delayed_chain",
        summary="only the first action matters",
        reward_threshold=0.9,
    )
    register(
        "mlbits/CollectObjects-v0",
        "mlbits.envs.levels.collect_objects:collect_objects",
        summary="levels by number: collect what pays, leave what costs or ends the episode",
    )
    register(
        "mlbits/DeepSea-v0",
        "mlbits.envs.deep_sea:deep_sea",
        summary="a treasure that only deliberate exploration finds",
        reward_threshold=0.9,
    )
    register(
        "mlbits/BitFlipping-v0",
        "mlbits.envs.bit_flipping:bit_flipping",
        summary="flip bits until they are the goal's, which only other goals teach",
        reward_threshold=-6.0,
    )
    register(
        "mlbits/Catch-v0",
        "mlbits.envs.arcade.catch:catch",
        summary="be under the ball when it lands",
        reward_threshold=0.9,
    )
    register(
        "mlbits/FuzzyBear-v0",
        "mlbits.envs.fuzzy_bear:fuzzy_bear",
        summary="a bear that others saw misleads a model that omits it",
        reward_threshold=0.59,
    )
    register(
        "mlbits/TMaze-v0",
        "mlbits.envs.t_maze:t_maze",
        summary="a cue at the start tells the way at the end of a corridor",
        reward_threshold=3.9,
    )
    register(
        "mlbits/Labyrinth-v0",
        "mlbits.envs.exploration.labyrinth:labyrinth",
        summary="visit every cell of a maze that is new each time, seeing only the ways that are open",
    )
    register(
        "mlbits/NoisyTV-v0",
        "mlbits.envs.exploration.noisy_tv:noisy_tv",
        summary="a treasure in a room, and a television that shows noise for ever",
        reward_threshold=0.95,
    )
    register(
        "mlbits/CartPole-v0",
        "mlbits.envs.control.cart_pole:cart_pole",
        summary="Gymnasium's CartPole-v1, step for step",
        reward_threshold=475.0,
    )
    register(
        "mlbits/Pendulum-v0",
        "mlbits.envs.control.pendulum:pendulum",
        summary="Gymnasium's Pendulum-v1, step for step",
    )
    register(
        "mlbits/PointMass-v0",
        "mlbits.envs.control.point_mass:point_mass",
        summary="a U-shaped wall traps policies that head straight for the goal",
        reward_threshold=-475.0,
    )
    register(
        "mlbits/PushBlocks-v0",
        "mlbits.envs.push_blocks:push_blocks",
        summary="push blocks to a goal, from numbers or from pictures in changing light",
    )
    register("mlbits/Digits-v0", "mlbits.envs.digits:digits", summary="a labelled dataset: classify one image")
    register(
        "mlbits/MatrixGame-v0",
        "mlbits.envs.matrix_game:matrix_game",
        summary="any normal-form game, two to eight seats; seven by name",
    )
    register(
        "mlbits/IteratedMatrixGame-v0",
        "mlbits.envs.iterated_matrix_game:iterated_matrix_game",
        summary="a normal-form game played repeatedly, such as the Prisoner's Dilemma",
    )
    register("mlbits/Blotto-v0", "mlbits.envs.blotto:blotto", summary="divide coins among fields; most fields wins")
    register("mlbits/Goofspiel-v0", "mlbits.envs.goofspiel:goofspiel", summary="bid cards for prizes, simultaneously")
    register("mlbits/TicTacToe-v0", "mlbits.envs.board.tic_tac_toe:tic_tac_toe", summary="three in a line")
    register("mlbits/ConnectFour-v0", "mlbits.envs.board.connect_four:connect_four", summary="four in a line")
    register("mlbits/Othello-v0", "mlbits.envs.board.othello:othello", summary="enclose stones to turn them over")
    register("mlbits/Hex-v0", "mlbits.envs.board.hex:hex_game", summary="join your two sides; never a draw")
    register("mlbits/Go-v0", "mlbits.envs.board.go:go", summary="surround more of the board; no position may repeat")
    register("mlbits/Chess-v0", "mlbits.envs.board.chess.game:chess", summary="all rules; FEN, UCI, SAN and PGN")
    register(
        "mlbits/SimilarityPD-v0",
        "mlbits.envs.similarity_pd:similarity_pd",
        summary="a Prisoner's Dilemma in which players observe how similar they are",
    )
    register(
        "mlbits/Diplomacy-v0",
        "mlbits.envs.diplomacy.game:diplomacy",
        summary="seven powers, simultaneous orders; any board, or Welfare Diplomacy",
    )
    register(
        "mlbits/DiplomacyFvA-v0",
        "mlbits.envs.diplomacy.game:diplomacy_fva",
        summary="Diplomacy with France and Austria only",
    )
    register(
        "mlbits/DiplomacyMini-v0",
        "mlbits.envs.diplomacy.game:diplomacy_mini",
        summary="Diplomacy on a small board with three powers, learnt in minutes",
    )
