"""What ``@rule`` changes in Numba: quicker copies of code to inline, without any change to what is compiled."""

import copy

from numba.core import compiler, ir

from mlbits.envs.core.rules import rule


@rule
def larger(a, b):
    best = a
    if b > best:
        best = b
    return best


@rule
def spread(a, b, c):
    low = -larger(larger(-a, -b), -c)
    for _ in range(2):
        low = larger(low, low)
    return larger(larger(a, b), c) - low


def test_functions_inlined_several_times_and_in_each_other_keep_their_variables_apart():
    @rule
    def caller(a, b, c):
        best = larger(a, b)
        low = spread(best, b, c)
        return best * 100 + low * 10 + larger(spread(a, a, a), 5)

    for a, b, c in [(1, 2, 3), (9, 4, 1), (2, 2, 7)]:
        best = max(a, b)
        assert caller(a, b, c) == best * 100 + (max(best, b, c) - min(best, b, c)) * 10 + 5


def test_a_copied_block_shares_no_statement_and_its_scope_can_change_alone():
    found = compiler.run_frontend(spread.py_func)
    block = next(iter(found.blocks.values()))
    made = copy.deepcopy(block)
    assert made.scope is not block.scope
    assert not {id(one) for one in made.body} & {id(one) for one in block.body}
    assigned = [one.target for one in made.body if isinstance(one, ir.Assign)]
    assert assigned
    assert all(one.scope is made.scope for one in assigned)
    before = set(block.scope.localvars._con)
    made.scope.redefine("low", block.loc)
    made.scope.redefine("low", block.loc)
    assert set(block.scope.localvars._con) == before
    assert not block.scope.var_redefinitions["low"]
    assert len(made.scope.var_redefinitions["low"]) > 0


def test_copies_of_a_block_copy_no_variable_that_it_does_not_use(monkeypatch):
    """Else compiling a game takes half as long again; Numba's own copies have all variables of the function."""
    found = compiler.run_frontend(spread.py_func)
    copied, plain = [], ir.Var.__deepcopy__
    monkeypatch.setattr(ir.Var, "__deepcopy__", lambda var, memo: copied.append(var.name) or plain(var, memo))
    for block in found.blocks.values():
        copied.clear()
        used = {var.name for one in block.body for var in one.list_vars()}
        copy.deepcopy(block)
        assert set(copied) <= used
