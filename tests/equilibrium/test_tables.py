"""Plain functions check the tables that they are given; functions of a game read labels."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import mfgppl as mfg

R = np.zeros((2, 3, 2))
P = np.random.default_rng(0).dirichlet(np.ones(3), size=(3, 2))
PI, START = np.full((2, 3, 2), 0.5), np.array([0.2, 0.3, 0.5])


def changed(array, place, value):
    array = np.array(array, dtype=float)
    array[place] = value
    return array


def control(reward=R, transition=P):
    return mfg.equilibrium.soft_backward_induction(reward, transition)


def for_ever(reward=R[:1], transition=P):
    return mfg.equilibrium.soft_policy_iteration(reward, transition, discount=0.9)


def flow(policy=PI, transition=P, initial=START):
    return mfg.equilibrium.propagate_mean_field(policy, transition, initial)


def kept(policy=PI[:1], transition=P, initial=START):
    return mfg.equilibrium.invariant_mean_field(policy, transition, initial=initial)


@pytest.mark.parametrize("function", [control, for_ever, flow, kept])
def test_arrays_are_taken_as_tensors_are(function):
    """NumPy arrays and lists give what tensors give."""
    given = {"transition": torch.tensor(P)}
    whole, other = function(), function(**given)
    for a, b in zip(whole, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("function", [control, for_ever, flow, kept])
@pytest.mark.parametrize(
    ("transition", "message"),
    [
        (2 * P, "each row of `transition` must sum to 1; the sum is 2"),
        (changed(P, (0, 0), [1.5, -0.5, 0.0]), "`transition` has the negative entry -0.5"),
        (changed(P, (0, 0, 0), np.nan), "`transition` has an entry that is not finite"),
        (torch.tensor(2 * P).to_sparse_coo()[None], "each row of `transition` must sum to 1"),
        ("words", "`transition` must be an array of numbers"),
        (xr.DataArray(P), "`transition` must be a plain array"),
    ],
)
def test_transitions_that_are_none_are_refused(function, transition, message):
    with pytest.raises((ValueError, TypeError), match=message):
        function(transition=transition)


@pytest.mark.parametrize("function", [control, for_ever])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, 1, 0), np.nan, "`reward` must be finite.* nan at time 0, state 1, action 0"),
        ((0, 1, 0), np.inf, "`reward` must be finite.* inf at time 0, state 1, action 0"),
        ((0, 2), -np.inf, "`reward` leaves no action at time 0 in state 2"),
    ],
)
def test_rewards_that_are_not_finite_are_refused(function, place, value, message):
    reward = changed(R if function is control else R[:1], place, value)
    with pytest.raises(ValueError, match=message):
        function(reward)


@pytest.mark.parametrize("function", [flow, kept])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": 1.5 * PI[:1]}, "each row of `policy` must sum to 1"),
        ({"initial": [0.5, 0.5, 0.5]}, "each row of `initial` must sum to 1; the sum is 1.5"),
        ({"initial": [0.5, 0.5]}, "`initial` must have shape"),
        ({"initial": [1.5, -0.5, 0.0]}, "`initial` has the negative entry -0.5"),
    ],
)
def test_shares_that_are_none_are_refused(function, given, message):
    with pytest.raises(ValueError, match=message):
        function(**given)


def test_functions_of_the_tables_are_batched_and_differentiated():
    """Inside a transform of functions, where values cannot be looked at, nothing is refused."""

    def worth(scale):
        reward = scale * torch.tensor(np.arange(12.0).reshape(2, 3, 2))
        return mfg.equilibrium.soft_backward_induction(reward, torch.tensor(P)).soft_values[0].sum()

    points = torch.tensor([0.1, 0.2], dtype=torch.float64)
    slopes = torch.func.vmap(torch.func.grad(worth))(points)
    h = 1e-6
    numeric = [(worth(p + h) - worth(p - h)).item() / (2 * h) for p in points]
    assert slopes.tolist() == pytest.approx(numeric, rel=1e-6)


def world():
    return mfg.MeanFieldGame(
        states=["a", "b", "c"], actions=["x", "y"], horizon=2, transition=P, initial=START
    )


def reward(x):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pull = pyro.sample("pull", dist.Normal(0.0, 1.0))
    return w[0] * (x.action == "x") + w[1] * (x.state == "a") + pull * x.density


class Fit:
    """What a point fit has."""

    params = pd.Series({"w[0]": 1.0, "w[1]": -2.0, "pull": 0.5})


@pytest.mark.parametrize(
    "given",
    [
        pd.Series({"pull": 0.5, "w": np.array([1.0, -2.0])}), Fit.params, Fit.params[::-1], Fit(),
        {"w": [1.0, -2.0], "pull": 0.5}, {"w": xr.DataArray([1.0, -2.0]), "pull": np.float32(0.5)},
    ],
)  # fmt: skip
def test_parameters_are_a_mapping_a_series_or_a_fit(given):
    """The values of a random policy and of the equilibrium are those at a plain mapping."""
    plain = {"w": np.array([1.0, -2.0]), "pull": 0.5}
    right = mfg.equilibrium.expected_return(world(), reward, PI, parameters=plain)
    assert mfg.equilibrium.expected_return(world(), reward, PI, parameters=given) == right
    found = mfg.solve_equilibrium(world(), reward, parameters=given).value.mean_field
    assert torch.equal(
        found, mfg.solve_equilibrium(world(), reward, parameters=plain).value.mean_field
    )


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ([1.0, 2.0], TypeError, "`parameters` must be a mapping.*got list"),
        (3.0, TypeError, "`parameters` must be a mapping.*got 3.0"),
        (xr.Dataset({"w": 1.0}), TypeError, "`parameters` must be a mapping.*Draws are many"),
        (Fit.params.drop("w[0]"), ValueError, "`parameters` must give the entries"),
        (pd.concat([Fit.params] * 2), ValueError, r"`parameters` gives 'w\[0\]' twice"),
        (Fit.params.drop("pull"), ValueError, r"`parameters` lack \['pull'\]"),
    ],
)
@pytest.mark.parametrize(
    "door",
    [
        lambda **given: mfg.equilibrium.expected_return(world(), reward, PI, **given),
        lambda **given: mfg.equilibrium.exploitability(world(), reward, PI, **given),
        lambda **given: mfg.solve_equilibrium(world(), reward, **given),
        lambda **given: mfg.solve_nash(world(), reward, **given),
        lambda **given: mfg.equilibrium.find_equilibria(world(), reward, **given),
        lambda **given: mfg.equilibrium.social_optimum(world(), reward, **given),
        lambda **given: mfg.equilibrium.finite_population(
            world(), reward, PI, n_agents=5, random_seed=1, **given
        ),
    ],
)
def test_other_parameters_are_refused(door, given, kind, message):
    with pytest.raises(kind, match=message):
        door(parameters=given)


def test_words_in_place_of_arrays_are_refused():
    for door in (
        lambda: mfg.equilibrium.generate_mean_field(world(), "half"),
        lambda: mfg.equilibrium.expected_return(world(), reward, {"a": 1}, parameters=Fit()),
        lambda: mfg.solve_nash(world(), reward, policy=object(), parameters=Fit.params),
    ):
        with pytest.raises(TypeError, match="`policy` must be an array of numbers"):
            door()
    with pytest.raises(TypeError, match="`game` must be a MeanFieldGame"):
        mfg.equilibrium.generate_mean_field("game", PI)
    with pytest.raises(TypeError, match="no argument `polcy`; did you mean `policy`"):
        mfg.equilibrium.generate_mean_field(world(), polcy=PI)


def test_misspelt_keywords_of_methods_are_named():
    flows = np.full((2, 3), 1 / 3)
    panel = mfg.simulate(world(), PI, flows, n_agents=5, random_seed=1)
    model = mfg.TrajectoryModel(world(), reward, panel, mean_field=flows)
    with pytest.raises(TypeError, match="no argument `meanfield`; did you mean `mean_field`"):
        model.with_panel(panel, meanfield=flows)
    with pytest.raises(TypeError, match="no argument `temprature`; did you mean `temperature`"):
        world().replace(temprature=1.0)
