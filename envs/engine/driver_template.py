"""The text of a game's driver: what all games share, with the game's own rules called by name.

One template serves the CPU and the GPU: the body of a step (autoreset, time limits, illegal actions, passes, masks) is
the same, and only the outermost loop over copies differs. See ``driver`` for how it is compiled and cached.
"""

from __future__ import annotations

import sys

from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function
from mlbits.envs.engine.modes import (
    CHECK,
    CHECKED_STEP,
    ERROR,
    LOOK,
    NEXT_STEP,
    REPLACE,
    RESET,
    SAME_STEP,
    STEP,
)

_ALLOWED = {
    "discrete": """
    a = actions[b, seat]
    return 0 <= a < N_ACTIONS{mask}
""",
    "multi_discrete": """
    offset = 0
    for k in range(len(NVEC)):
        a = actions[b, seat, k]
        if a < 0 or a >= NVEC[k]{mask}:
            return False
        offset += NVEC[k]
    return True
""",
    "continuous": """
    for k in range(low.shape[0]):
        x = actions[b, seat, k]
        if not (low[k] <= x <= high[k]) or math.isinf(x):
            return False
    return True
""",
}

_REPLACE = {
    "discrete": """
    played[b, seat] = 0
{discrete_search}""",
    "multi_discrete": """
    offset = 0
    for k in range(len(NVEC)):
        played[b, seat, k] = 0
{multi_search}        offset += NVEC[k]
""",
    "continuous": """
    for k in range(low.shape[0]):
        x = actions[b, seat, k]
        if not math.isnan(x):
            x = min(max(x, low[k]), high[k])
        if math.isnan(x) or math.isinf(x):
            x = min(max(0.0, low[k]), high[k])
        played[b, seat, k] = x
""",
}

# Whose turn it would have been where an episode was cut, after those of ``active`` whose turn it is.
_FINAL_TURNS = """                if not ended:
                    for seat in range(SEATS):
                        active[b, SEATS + seat] = rule_acts(state, params, seat)
"""

_TEXT = '''"""The driver of {name}, written by mlbits from its rules; safe to delete, it is made again."""

import math
{header}
{imports}
SEATS = {seats}
N_ACTIONS = {n_actions}
NVEC = {nvec}


@inlined
def allowed(b, seat, actions, legal, low, high):{allowed}

@inlined
def replace(b, seat, actions, played, legal, low, high):{replace}

@inlined
def begin(state, params):
    state.elapsed = 0
    state.over = 0
    rule_reset(state, params)


@inlined
def look(b, state, params, obs, legal, active):
    for seat in range(SEATS):
        rule_observe(state, params, seat, obs[b, seat])
{look_masks}

@inlined
def advance(b, autoreset, illegal, states, params, actions, played, obs, final_obs, legal, active,
            rewards, terminated, truncated, low, high):
    state = states[b]
    for seat in range(SEATS):
        rewards[b, seat] = 0
    if state.over != 0:
        if autoreset == {NEXT_STEP}:
            begin(state, params)
            terminated[b] = False
            truncated[b] = False
    else:
        forfeited = False
        if illegal != {ERROR}:
            for seat in range(SEATS):
{copy_action}
                if {acting}not allowed(b, seat, actions, legal, low, high):
                    if illegal == {REPLACE}:
                        replace(b, seat, actions, played, legal, low, high)
                    else:
                        rewards[b, seat] = -1
                        forfeited = True
        ended = True
        cut = False
        if not forfeited:
            ended, cut = rule_step(state, params, played[b], rewards[b])
        state.elapsed += 1
        if 0 < params.cut_after <= state.elapsed:
            cut = True
        terminated[b] = ended
        truncated[b] = cut
        if ended or cut:
            if autoreset == {SAME_STEP}:
                for seat in range(SEATS):
                    rule_observe(state, params, seat, final_obs[b, seat])
{final_turns}                begin(state, params)
            else:
                state.over = 1
    look(b, state, params, obs, legal, active)


@inlined
def restart(b, states, params, obs, legal, active, rewards, terminated, truncated):
    state = states[b]
    begin(state, params)
    for seat in range(SEATS):
        rewards[b, seat] = 0
    terminated[b] = False
    truncated[b] = False
    look(b, state, params, obs, legal, active)


@inlined
def first_illegal(b, states, actions, legal, active, low, high):
    if states[b].over == 0:
        for seat in range(SEATS):
            if {acting}not allowed(b, seat, actions, legal, low, high):
                return seat
    return -1

{footer}'''

_CPU_HEADER = """
from numba import njit, prange

from mlbits.envs.core.rules import rule as inlined
"""

_CPU_FOOTER = f'''
@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run(op, start, stop, stride, autoreset, illegal, states, params, actions, played, obs, final_obs, legal, active,
        rewards, terminated, truncated, which, low, high):
    """Do ``op`` for copies start..stop-1; returns b * SEATS + seat of the first illegal action found, or -1."""
    if op == {CHECK} or op == {CHECKED_STEP}:
        for b in range(start, stop):
            seat = first_illegal(b, states, actions, legal, active, low, high)
            if seat >= 0:
                return b * SEATS + seat
    if op == {STEP} or op == {CHECKED_STEP}:
        for b in range(start, stop):
            advance(b, autoreset, illegal, states, params[b * stride], actions, played, obs, final_obs, legal, active,
                    rewards, terminated, truncated, low, high)
    elif op == {RESET}:
        for b in range(start, stop):
            if which[b]:
                restart(b, states, params[b * stride], obs, legal, active, rewards, terminated, truncated)
    elif op == {LOOK}:
        for b in range(start, stop):
            look(b, states[b], params[b * stride], obs, legal, active)
    return -1


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def run_parallel(op, bounds, results, stride, autoreset, illegal, states, params, actions, played, obs, final_obs,
                 legal, active, rewards, terminated, truncated, which, low, high):
    """``run`` for copies bounds[k]..bounds[k + 1]-1 on one core each; compiled when a batch first wants it."""
    for part in prange(len(results)):
        results[part] = run(op, bounds[part], bounds[part + 1], stride, autoreset, illegal, states, params, actions,
                            played, obs, final_obs, legal, active, rewards, terminated, truncated, which, low, high)
'''

_CUDA_HEADER = """
from numba import cuda


def inlined(function):
    return cuda.jit(device=True)(function)

"""

_CUDA_FOOTER = f'''
@cuda.jit
def run(op, start, stop, stride, autoreset, illegal, states, params, actions, played, obs, final_obs, legal, active,
        rewards, terminated, truncated, which, low, high, fault):
    """One thread a copy; ``fault[0]`` becomes b * SEATS + seat of an illegal action where CHECK finds one."""
    b = cuda.grid(1) + start
    if b < stop:
        if op == {STEP}:
            advance(b, autoreset, illegal, states, params[b * stride], actions, played, obs, final_obs, legal, active,
                    rewards, terminated, truncated, low, high)
        elif op == {RESET}:
            if which[b]:
                restart(b, states, params[b * stride], obs, legal, active, rewards, terminated, truncated)
        elif op == {LOOK}:
            look(b, states[b], params[b * stride], obs, legal, active)
        else:
            seat = first_illegal(b, states, actions, legal, active, low, high)
            if seat >= 0:
                fault[0] = b * SEATS + seat
'''


def rules_of(game: Game) -> dict[str, Rule]:
    """A game's rules by the names that the driver calls them by."""
    named = {"reset": game.reset, "step": game.step, "observe": game.observe}
    named |= {name: function for name in ("legal", "acts") if (function := getattr(game, name)) is not None}
    return {f"rule_{name}": function for name, function in named.items()}


def importable(function: Rule) -> bool:
    """Whether another process finds this very function by its module and name."""
    plain = python_function(function)
    module = sys.modules.get(plain.__module__)
    spec = getattr(module, "__spec__", None)
    return (
        spec is not None and "." not in plain.__qualname__ and (getattr(module, plain.__qualname__, None) is function)
    )


def driver_text(game: Game, target: str) -> str:
    """The source of a game's driver.

    Args:
        game: the game.
        target: "cpu" or "cuda".

    Returns:
        Python source; rules that cannot be imported by name are left for the caller to supply.
    """
    action, rules = game.action, rules_of(game)
    imports = [
        f"from {python_function(function).__module__} import {python_function(function).__qualname__} as {name}"
        for name, function in rules.items()
        if importable(function)
    ]
    discrete = action.kind == "discrete"
    masked = game.masked
    search = (
        "{pad}for a in range({size}):\n{pad}    if legal[b, seat, {at}]:\n"
        "{pad}        played[b, seat{sub}] = a\n{pad}        break\n"
    )
    allowed = _ALLOWED[action.kind].format(
        mask=("" if not masked else " and legal[b, seat, a]" if discrete else " or not legal[b, seat, offset + a]")
    )
    replace = _REPLACE[action.kind].format(
        discrete_search=search.format(pad="    ", size="N_ACTIONS", at="a", sub="") if masked else "",
        multi_search=search.format(pad=" " * 8, size="NVEC[k]", at="offset + a", sub=", k") if masked else "",
    )
    copy_action = (
        f"                if illegal == {REPLACE}:\n                    played[b, seat] = actions[b, seat]"
        if discrete
        else f"                for k in range({action.shape[0] if action.shape else 0}):\n"
        f"                    if illegal == {REPLACE}:\n"
        "                        played[b, seat, k] = actions[b, seat, k]"
    )
    return _TEXT.format(
        name=game.name,
        header=_CPU_HEADER if target == "cpu" else _CUDA_HEADER,
        footer=_CPU_FOOTER if target == "cpu" else _CUDA_FOOTER,
        imports="\n".join(imports) + "\n",
        seats=game.seats,
        n_actions=action.nvec[0] if discrete else 0,
        nvec=repr(action.nvec),
        allowed=allowed,
        replace=replace,
        look_masks=_mask_text(game),
        copy_action=copy_action,
        acting="active[b, seat] and " if game.acts is not None else "",
        final_turns=_FINAL_TURNS if game.acts is not None else "",
        NEXT_STEP=NEXT_STEP,
        SAME_STEP=SAME_STEP,
        ERROR=ERROR,
        REPLACE=REPLACE,
    )


def _mask_text(game: Game) -> str:
    """The part of ``look`` that writes who acts and which actions are legal."""
    lines = []
    if game.acts is not None:
        lines += ["turn = state.over == 0 and rule_acts(state, params, seat)", "active[b, seat] = turn"]
    if game.masked:
        size = game.action.mask_size
        fill = "for a in range({size}):\n    legal[b, seat, a] = {value}"
        pass_only = (
            fill.format(size=size, value="False")
            + "\n"
            + "\n".join(f"legal[b, seat, {sum(game.action.nvec[:k])}] = True" for k in range(len(game.action.nvec)))
        )
        turn = fill.format(size=size, value="True")
        if game.legal is not None:
            turn = fill.format(size=size, value="False") + "\nrule_legal(state, params, seat, legal[b, seat])"
        lines += ["if state.over != 0:", *_indent(fill.format(size=size, value="True"), 4)]
        if game.acts is not None:
            lines += ["elif not turn:", *_indent(pass_only, 4)]
        lines += ["else:", *_indent(turn, 4)]
    return "\n".join(" " * 8 + line for line in lines) + "\n"


def _indent(text: str, width: int) -> list[str]:
    return [" " * width + line for line in text.splitlines()]
