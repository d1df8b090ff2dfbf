"""Hypergradients against the exact ones of quadratics, the truncated series, and warm and cold starts."""

import pytest
import torch

from mlbits.agents.agent import AgentError, DivergedError
from mlbits.agents.maths.implicit_gradients import hypergradient, neumann, tune

G = torch.Generator().manual_seed(0)
ROOT = torch.randn(5, 4, generator=G, dtype=torch.float64)
A, B, AIM = (
    ROOT.t() @ ROOT / 5,
    torch.tensor([1.0, -2.0, 0.5, 3.0]).double(),
    torch.tensor([0.3, -0.4, 0.2, 1.0]).double(),
)
EYE = torch.eye(4, dtype=torch.float64)


def inner(parameters, setting):
    """1/2 w.A w - b.w + e^h / 2 |w|^2, in two parts of w."""
    w = torch.cat(list(parameters))
    return 0.5 * w @ A @ w - B @ w + 0.5 * setting.exp() * w @ w


def outer(parameters, setting):
    w = torch.cat(list(parameters))
    return 0.5 * (w - AIM) @ (w - AIM) + 0.05 * setting**2


def solved(h):
    """w*(h) = (A + e^h)^-1 b, and the exact d outer / dh = 0.1 h - (w - c).(A + e^h)^-1 e^h w."""
    curvature = A + h.exp() * EYE
    w = torch.linalg.solve(curvature, B)
    return w, 0.1 * h - (w - AIM) @ torch.linalg.solve(curvature, h.exp() * w)


def parts(w):
    return [w[:1].clone().requires_grad_(), w[1:].clone().requires_grad_()]


def at(h):
    return torch.tensor(h, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("h", [-1.5, 0.0, 1.0])
def test_the_hypergradient_of_a_quadratic_is_exact(h):
    w, wanted = solved(at(h))
    found = hypergradient(inner, outer, parts(w.detach()), at(h), 0.2, 2000)
    assert float(found) == pytest.approx(float(wanted), abs=1e-9)


def test_it_is_the_gradient_of_the_outer_loss():
    def value(h):
        w, _ = solved(at(h))
        return float(outer([w], at(h)))

    w, _ = solved(at(0.4))
    found = hypergradient(inner, outer, parts(w.detach()), at(0.4), 0.2, 2000)
    assert float(found) == pytest.approx((value(0.4 + 1e-4) - value(0.4 - 1e-4)) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("terms", [0, 1, 7])
def test_the_series_is_cut_after_its_terms(terms):
    step, total, power = 0.3, torch.zeros(4, 4).double(), EYE.clone()
    for _ in range(terms + 1):
        total, power = total + power, power @ (EYE - step * A)
    found = neumann(lambda v: [A @ v[0]], [B], step, terms)[0]
    assert torch.allclose(found, step * total @ B, atol=1e-12)


def test_a_step_that_is_too_large_is_told():
    with pytest.raises(DivergedError, match=r"hypergradient: got .*with step 50; wanted a finite number"):
        hypergradient(inner, outer, parts(B), at(0.0), 50.0, 3000)


def test_a_setting_that_the_inner_loss_does_not_see_has_its_own_gradient_alone():
    found = hypergradient(lambda w, h: (w[0] ** 2).sum(), lambda w, h: (h * w[0]).sum(), [at(3.0)], at(1.0), 0.1, 5)
    assert float(found) == 3.0


@pytest.mark.parametrize("begin", ["warm", "cold"])
def test_tuning_finds_the_best_setting(begin):
    """With enough inner steps both beginnings end where the exact hypergradient is 0."""
    found = tune(inner, outer, [torch.zeros(4).double()], torch.tensor(1.0).double(), begin=begin, inner_steps=60,
                 inner_rate=0.2, outer_steps=60, outer_rate=0.05, terms=40)  # fmt: skip
    assert abs(float(solved(found.setting)[1])) < 0.01
    assert found.history.shape == (61,)
    assert float(found.history[0]) == 1.0
    assert float(outer(found.parameters, found.setting)) < float(outer([solved(at(1.0))[0]], at(1.0))) - 0.01


def test_with_few_inner_steps_a_warm_start_gets_to_the_bottom_and_a_cold_one_does_not():
    def left(begin):
        found = tune(inner, outer, [torch.zeros(4).double()], torch.tensor(0.0).double(), begin=begin, inner_steps=2,
                     inner_rate=0.1, outer_steps=150, outer_rate=0.01, terms=5)  # fmt: skip
        w = torch.cat(found.parameters)
        return float((A @ w - B + found.setting.exp() * w).norm())

    assert left("warm") < 0.02
    assert left("cold") > 1.0


def test_where_many_solutions_fit_a_warm_start_keeps_what_earlier_settings_put_there():
    """One equation a(h).w = 1 with a = (cos h, sin h), h led from 0 to 1, and w from (0, 0).

    A cold start ends at the solution nearest to (0, 0), which is a(1). A warm one moves along a(h) all the way: with
    w = a + s a', dw along a alone means s = -h, and at h = 1 w is a - a' = (cos 1 + sin 1, sin 1 - cos 1).
    """

    def fit(w, h):
        return 0.5 * (h.cos() * w[0][0] + h.sin() * w[0][1] - 1) ** 2

    ends = {}
    for begin in ("warm", "cold"):
        found = tune(fit, lambda w, h: (h - 1) ** 2, [torch.zeros(2)], torch.tensor(0.0), begin=begin, outer_steps=70,
                     outer_rate=0.02, inner_rate=1.0, inner_steps=3, terms=0)  # fmt: skip
        assert float(found.setting) == pytest.approx(1.0, abs=0.1)
        ends[begin] = found.parameters[0].tolist()
    assert ends["cold"] == pytest.approx([0.5403, 0.8415], abs=0.08)
    assert ends["warm"] == pytest.approx([1.3818, 0.3012], abs=0.08)


def test_another_beginning_is_refused():
    with pytest.raises(AgentError, match=r"^begin: got 'hot'; wanted 'warm' or 'cold'"):
        tune(inner, outer, [B], torch.tensor(0.0), begin="hot")
