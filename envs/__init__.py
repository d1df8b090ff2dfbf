"""Environments: what is played. One folder or file a game, all on the core in :mod:`mlbits.envs.core`."""

from mlbits.envs.core.registry import register, registered


def register_all() -> None:
    """Register every game of the suite, once. One line a game."""
    if "mlbits/GridWorld-v0" in registered():
        return
    register("mlbits/GridWorld-v0", "mlbits.envs.gridworld:gridworld", summary="reach the goal on a map of your own")
    register("mlbits/FourRooms-v0", "mlbits.envs.gridworld:four_rooms", summary="four rooms, start anywhere")
    register("mlbits/CliffWalk-v0", "mlbits.envs.gridworld:cliff_walk", summary="the short way runs along a cliff")
    register(
        "mlbits/CartPole-v0",
        "mlbits.envs.cart_pole:cart_pole",
        summary="Gymnasium's CartPole-v1, step for step",
        reward_threshold=475.0,
    )
