"""Derivatives of equilibria against differences of equilibria that are solved again."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from equilibrium.kinds import made
from games import ROADS_TRUTH, avoid_crowds, two_roads
from pyro.infer import HMC, MCMC, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import mfgppl as mfg

EXACT = 1e-13  # tolerance of the equilibria that differences are taken of
STEP = 1e-5
# a second-order error of the step, and twice the equilibria's over it
DIFFERENCES = 2e-7
TRUTH = {"scale": 1.2, "crowding": 1.5}
PARTS = ["mean_field", "policy", "soft_values"]
# with dynamics that move, two decisions are one table of them
KINDS = [
    ("fixed", 4), ("by time", 4), ("masked", 4), ("sparse", 4), ("sparse by time", 4), ("joint", 4),
    ("moving", 2), ("joint moving", 2), ("fixed", 1), ("fixed", None), ("masked", None),
    ("sparse", None), ("moving", None), ("joint", None), ("joint moving", None),
]  # fmt: skip


def weighed(x):
    """Reward of all kinds with two parameters."""
    scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    crowd = x.occupancy if x.game.joint else x.density
    own = x.expect("rank") * x.rank / x.shape[1] ** 2
    return scale * x.base - crowding * crowd + crowding**2 * own


def weighed_by_branch(x):
    """The same by a program that looks at a value, and so runs as it is."""
    return weighed(x) if float(x.density.detach().min()) >= -1.0 else weighed(x) * 0.0


def solved(game, program, values):
    return mfg.solve_equilibrium(
        game, program, parameters=values, tolerance=EXACT, throw=True
    ).value


def weights_of(game, part, seed=3):
    """Return a random direction in which a part of the equilibrium is looked at."""
    shape = {
        "mean_field": game.flow_shape, "policy": game.shape, "soft_values": game.shape[:2],
    }[part]  # fmt: skip
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def assert_slopes_are_differences(game, program, parts, atol=DIFFERENCES):
    """Compare the gradients of a random mean of each part with central differences."""
    weights = {part: weights_of(game, part) for part in parts}
    at = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in TRUTH.items()}
    ends = {
        name: [solved(game, program, TRUTH | {name: TRUTH[name] + h}) for h in (STEP, -STEP)]
        for name in TRUTH
    }
    found = solved(game, program, at)
    for part, weight in weights.items():
        value = (weight * getattr(found, part)).sum()
        slopes = torch.autograd.grad(value, list(at.values()), retain_graph=True)
        moves = []
        for name, slope in zip(TRUTH, slopes, strict=True):
            up, down = (float((weight * getattr(end, part)).sum()) for end in ends[name])
            expected = (up - down) / (2 * STEP)
            moves.append(abs(expected))
            assert float(slope) == pytest.approx(expected, abs=atol)
        assert max(moves) > 100 * atol


@pytest.mark.parametrize(("kind", "horizon"), KINDS)
def test_gradients_are_those_of_equilibria_solved_again(kind, horizon):
    """Flow, policy and soft values follow the parameters as differences say, in games with fixed
    and moving dynamics, over states or states and actions, with a horizon or without.
    """
    parts = PARTS[1:] if horizon == 1 else PARTS  # a first flow is given
    assert_slopes_are_differences(made(kind, horizon=horizon, discount=0.8), weighed, parts)


@pytest.mark.parametrize(
    ("kind", "horizon"), [("fixed", 4), ("moving", 4), ("joint moving", 4), ("sparse", 4)]
)
def test_gradients_of_what_runs_as_it_is(kind, horizon):
    """Without a recording, linear systems are solved by autograd's products."""
    game = made(kind, horizon=horizon, discount=0.8)
    assert_slopes_are_differences(game, weighed_by_branch, PARTS)


@pytest.mark.parametrize(
    ("kind", "sizes", "horizon"),
    [("fixed", (45, 2), 10), ("sparse", (101, 2), 30), ("moving", (210, 2), 2)],
)
def test_gradients_of_large_games(kind, sizes, horizon):
    """450 shares solve by a matrix, Newton's steps by GMRES; 3,030 do both by GMRES."""
    game = made(kind, sizes=sizes, horizon=horizon, discount=0.8)
    assert_slopes_are_differences(game, weighed, ["mean_field"], atol=1e-6)
    newton = mfg.solve_equilibrium(game, weighed, parameters=TRUTH, method="newton", throw=True)
    other = mfg.solve_equilibrium(game, weighed, parameters=TRUTH, method="anderson", throw=True)
    # ten times the solver's tolerance
    np.testing.assert_allclose(newton.value.mean_field, other.value.mean_field, atol=1e-9)


def test_the_gradient_of_a_tensor_within_the_program():
    """A tensor that the program holds, not a parameter of it, has a gradient too."""
    game, weights = two_roads(), weights_of(two_roads(), "mean_field")

    def value_at(toll):
        def program(x):
            return -1.5 * x.density - toll * (x.action == "turn")

        flow = mfg.solve_equilibrium(game, program, tolerance=EXACT).value.mean_field
        return (weights * flow).sum()

    toll = torch.tensor([0.4, 0.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value_at(toll[:, None]), toll)
    for k in range(2):
        move = torch.zeros(2, dtype=torch.float64)
        move[k] = STEP
        up, down = (float(value_at((toll.detach() + d)[:, None])) for d in (move, -move))
        assert float(slope[k]) == pytest.approx((up - down) / (2 * STEP), abs=DIFFERENCES)


def test_the_closed_form_of_one_choice():
    """With one choice `log p / (1 - p) = c (1 - 2 p)` on the share p of a road, so that
    `dp/dc = (1 - 2 p) p (1 - p) / (1 + 2 c p (1 - p))`.
    """
    # a state for the start, from which the roads are reached
    transition = np.zeros((3, 2, 3))
    transition[:, 0, 1] = transition[:, 1, 2] = 1.0
    game = mfg.MeanFieldGame(
        states=["home", "left", "right"], actions=["left", "right"], horizon=2,
        transition=transition, initial=[1.0, 0.0, 0.0],
    )  # fmt: skip

    def program(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0))
        return -cost * x.density - 0.7 * (x.action == "right") * (x.time == 0)

    cost = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    found = mfg.solve_equilibrium(game, program, parameters={"cost": cost}, tolerance=EXACT).value
    share = found.mean_field[1, 1]
    p = share.item()
    assert np.log(p / (1 - p)) == pytest.approx(2.0 * (1 - 2 * p) + 0.7, abs=1e-11)
    (slope,) = torch.autograd.grad(share, cost)
    expected = (1 - 2 * p) * p * (1 - p) / (1 + 2 * 2.0 * p * (1 - p))
    assert float(slope) == pytest.approx(expected, abs=1e-11)


def test_a_solution_requires_grad_where_its_parameters_do():
    """Numbers, and a block without gradients, give plain tensors, with the same values."""
    game = two_roads()
    at = {
        k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in ROADS_TRUTH.items()
    }
    slopes = mfg.solve_equilibrium(game, avoid_crowds, parameters=at).value
    plain = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value
    with torch.no_grad():
        blocked = mfg.solve_equilibrium(game, avoid_crowds, parameters=at).value
    for name in (*PARTS, "reward"):
        assert getattr(slopes, name).requires_grad
        assert not getattr(plain, name).requires_grad
        assert not getattr(blocked, name).requires_grad
        # ten times the solver's tolerance
        torch.testing.assert_close(
            getattr(slopes, name).detach(), getattr(plain, name), atol=1e-9, rtol=0
        )


def test_a_solution_that_was_not_found_has_no_derivatives():
    """Out of steps there is no equation to differentiate through."""
    at = {k: torch.tensor(v, requires_grad=True) for k, v in ROADS_TRUTH.items()}
    solution = mfg.solve_equilibrium(two_roads(), avoid_crowds, parameters=at, max_steps=2)
    assert not solution.converged
    assert not solution.value.mean_field.requires_grad


def test_dynamics_of_scipy_are_not_differentiated():
    """Where the dynamics' slope is not known, a gradient is refused instead of given wrong."""
    game = made("moving sparse")
    at = {k: torch.tensor(v, requires_grad=True) for k, v in TRUTH.items()}
    with pytest.raises(ValueError, match="scipy sparse"):
        mfg.solve_equilibrium(game, weighed, parameters=at)
    with torch.no_grad():
        assert mfg.solve_equilibrium(game, weighed, parameters=at).converged


SEEN = torch.tensor([35.0, 65.0], dtype=torch.float64)


def survey():
    """Draw what a crowd costs, and count drivers on the roads of the equilibrium."""
    crowding = pyro.sample("crowding", dist.Normal(torch.tensor(1.0).double(), 0.5))
    effort = pyro.sample("effort", dist.LogNormal(torch.tensor(-1.0).double(), 0.3))
    flow = mfg.solve_equilibrium(
        two_roads(), avoid_crowds, parameters={"crowding": crowding, "effort": effort},
        tolerance=EXACT,
    ).value.mean_field  # fmt: skip
    pyro.sample("seen", dist.Multinomial(100, flow[1]), obs=SEEN)


def test_an_equilibrium_within_a_pyro_program_has_the_right_density():
    """The log density is the prior's and the counts', and its gradient that of differences."""

    def log_density(crowding, effort):
        values = {"crowding": crowding, "effort": effort}
        return pyro.poutine.trace(pyro.condition(survey, data=values)).get_trace().log_prob_sum()

    point = torch.tensor([1.4, 0.5], dtype=torch.float64, requires_grad=True)
    value = log_density(point[0], point[1])
    flow = mfg.solve_equilibrium(
        two_roads(), avoid_crowds, parameters={"crowding": 1.4, "effort": 0.5}
    ).value.mean_field
    expected = (
        dist.Normal(1.0, 0.5).log_prob(torch.tensor(1.4).double())
        + dist.LogNormal(-1.0, 0.3).log_prob(torch.tensor(0.5).double())
        + dist.Multinomial(100, flow[1]).log_prob(SEEN)
    )
    assert value.item() == pytest.approx(float(expected), abs=1e-6)
    (slope,) = torch.autograd.grad(value, point)
    for k in range(2):
        move = torch.zeros(2, dtype=torch.float64)
        move[k] = STEP
        up, down = (float(log_density(*(point.detach() + d))) for d in (move, -move))
        # a hundred drivers, so a hundred times the error
        assert float(slope[k]) == pytest.approx((up - down) / (2 * STEP), abs=100 * DIFFERENCES)


def test_pyro_samples_and_optimises_through_an_equilibrium():
    """A few steps of HMC stay finite and move, and a step of SVI changes its guide."""
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    kernel = HMC(survey, step_size=0.1, num_steps=3, adapt_step_size=False)
    run = MCMC(kernel, num_samples=4, warmup_steps=1, disable_progbar=True)
    run.run()
    drawn = run.get_samples()["crowding"]
    assert bool(torch.isfinite(drawn).all())
    assert len(set(drawn.tolist())) > 1
    guide = AutoNormal(survey)
    svi = SVI(survey, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    assert np.isfinite(svi.step())
    before = guide.median()["crowding"].detach().clone()
    svi.step()
    assert float((guide.median()["crowding"] - before).abs()) > 0.0
    pyro.clear_param_store()
