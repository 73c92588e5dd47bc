"""Formulas: columns are those of formulaic, and the printed program has the same density."""

import pickle
import re
import sys

import formulaic
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg
from mfgppl.density.of_model import density_of
from mfgppl.reward.formulas import columns_of, with_conditions

FLOAT = torch.float64
SHAPE = (2, 4, 6, 2)  # types, times, states, actions
FLOW = np.random.default_rng(1).dirichlet(np.ones(12), size=4)


def wide(mean: float = 0.0) -> dist.Normal:
    return dist.Normal(torch.tensor(mean, dtype=FLOAT), torch.tensor(2.0, dtype=FLOAT))


def game(**changes) -> mfg.MeanFieldGame:
    table = np.random.default_rng(0).dirichlet(np.ones(6), size=(6, 2))
    arguments = {
        "states": {"stock": ["none", "low", "high"], "price": [1, 2]},
        "types": {"size": ["small", "large"]},
        "actions": ["hold", "go"],
        "horizon": 4,
        "transition": table,
        "initial": np.full(12, 1 / 12),
        "features": {"rent": ("time", [1.0, 2.0, 3.0, 5.0])},
    }
    return mfg.MeanFieldGame(**(arguments | changes))


def rows() -> pd.DataFrame:
    """Return what programs see, one row per type, time, state and action, by hand."""
    index = np.indices(SHAPE).reshape(4, -1)
    c, t, s, a = index
    stock = ["none", "low", "high"]
    by_type = FLOW.reshape(4, 2, 6).transpose(1, 0, 2)
    density = by_type[c, t, s] * 1.0
    return pd.DataFrame(
        {
            "size": pd.Categorical.from_codes(c, ["small", "large"]),
            "stock": pd.Categorical.from_codes(s // 2, stock),
            "price": 1 + s % 2,
            "action": pd.Categorical.from_codes(a, ["hold", "go"]),
            "time": 1.0 * t,
            "rent": np.array([1.0, 2.0, 3.0, 5.0])[t],
            "density": density + by_type[1 - c, t, s],  # all meet all
        }
    )


FORMULAS = {
    "the common case": "price + density + C(size):(action != 'hold')",
    "words against the first": "action + stock:action",
    "all pairs": "action*price + np.log(density):action",
    "powers and numbers as labels": "(action == 'go'):(rent + I(rent**2)) + C(price):size:action",
    "splines of time": "bs(rent, df=3):action",
    "contrasts": "C(size, contr.sum):action",
    "two conditions": "((action != 'hold') & (stock == 'low')) + (action != 'hold'):(time > 1)",
    "functions": "np.exp(-price):action + log(density):price",
    "without an intercept": "0 + action + density",
    "parentheses": "(price + density):size",
}


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_columns_are_those_of_formulaic_on_all_rows(formula):
    """Names and values, the flow's columns among them; the intercept has no weight."""
    x = mfg.RewardInputs(game(), torch.as_tensor(FLOW))
    context = {"log": np.log}
    of_pandas = re.sub("`([^`]*)`", r"{\1}", with_conditions(formula))
    table = formulaic.model_matrix(of_pandas, rows(), context=context)
    wanted = [name for name in table.columns if name != "Intercept"]
    found = columns_of(formula, x)
    conditions = re.findall(r"`\(([^`]*)\)`", with_conditions(formula))
    parts = [name.split(":") for name in wanted]
    # conditions are called as they are written, in parentheses
    assert list(found) == [
        ":".join(f"({part})" if part in conditions else part for part in each) for each in parts
    ]
    for name, values in zip(wanted, found.values(), strict=True):
        by_hand = table[name].to_numpy(dtype=float).reshape(SHAPE)
        np.testing.assert_allclose(values.broadcast_to(SHAPE), by_hand, rtol=1e-13)


@pytest.mark.parametrize(
    "formula", [*FORMULAS.values(), "share(stock='low'):action + expect('price'):(action == 'go')"]
)
def test_the_printed_program_has_the_same_density(formula):
    """Pasted, it evaluates to the same log density at the same point."""
    reward = mfg.linear_reward(formula, priors=wide())
    half = np.full((4, 12, 2), 0.5)
    panel = mfg.simulate(game(), half, FLOW, n_agents=60, random_seed=1)
    pasted = {"pyro": pyro, "dist": dist, "torch": torch, "mfg": mfg}
    exec(reward.written(game()), pasted)
    ours, theirs = (
        density_of(mfg.TrajectoryModel(game(), program, panel))
        for program in (reward, pasted["reward"])
    )
    n = len(columns_of(formula, mfg.RewardInputs(game(), torch.as_tensor(FLOW))))
    point = np.random.default_rng(0).normal(size=n)
    one, other = (d.evaluator(prior=1.0, jacobian=1.0)(point) for d in (ours, theirs))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-12)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-9, atol=1e-10)
    assert ours.compiled.affine is not None


def test_a_formula_fits_as_the_same_features_do():
    """Names as given, and the estimate of a mapping of the same features."""
    half = np.full((4, 12, 2), 0.5)
    panel = mfg.simulate(game(), half, FLOW, n_agents=60, random_seed=1)
    both = "(action != 'hold') + density:(action == 'go')"
    names = {"density:(action == 'go')": "crowding", "(action != 'hold')": "moving"}
    reward = mfg.linear_reward(both, priors={"crowding": wide(), "moving": wide()}, names=names)
    by_hand = mfg.linear_reward(
        {
            "moving": lambda x: x.action != "hold",
            "crowding": lambda x: x.density * (x.action == "go"),
        },
        priors=wide(),
    )
    fits = [
        mfg.mle(mfg.TrajectoryModel(game(), r, panel), progressbar=False) for r in (reward, by_hand)
    ]
    assert fits[0].params.index.tolist() == ["moving", "crowding"]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-6)
    assert both in reward.source


def test_two_axes_are_compared_in_a_formula():
    """Label by label, also where they have labels in another order."""
    world = game(types={"size": ["go", "hold"]})
    x = mfg.RewardInputs(world, torch.as_tensor(FLOW))
    found = columns_of("(size == action)", x)["(size == action)"].broadcast_to(SHAPE)
    c, _, _, a = np.indices(SHAPE)
    np.testing.assert_array_equal(found, (c == 0) == (a == 1))


def test_a_formula_stands_for_other_parts_too():
    """A terminal value by a formula beside a reward by a mapping; pickled, it is the same."""
    reward = mfg.linear_reward(
        {"moving": lambda x: x.action != "hold"}, priors=wide(), terminal="stock",
    )  # fmt: skip
    x = mfg.RewardInputs(game(transition=np.full((4, 6, 2, 6), 1 / 6)), torch.as_tensor(FLOW))
    trace = pyro.poutine.trace(reward).get_trace(x)
    assert [k for k in trace.nodes if not k.startswith("_")] == [
        "moving", "stock[T.low]", "stock[T.high]",
    ]  # fmt: skip
    of_formula = mfg.linear_reward("price + density", priors=wide())
    again = pickle.loads(pickle.dumps(of_formula))
    assert again.written(game()) == of_formula.written(game())


def test_scales_of_priors_take_formulas():
    reward = mfg.design.weakly_informative(game(), "density:action + (action == 'go'):price")
    assert "density:action" in reward.source
    table = mfg.design.default_scales(game(), "density:action + (action == 'go'):price")
    assert table.index.tolist() == [
        "density:action[hold]", "density:action[go]", "(action == 'go'):price",
    ]  # fmt: skip
    named = mfg.design.weakly_informative(
        game(), "(action == 'go'):price", names={"(action == 'go'):price": "slope"}
    )
    priors = named.priors
    assert list(priors) == ["slope"]
    scale = table.loc["(action == 'go'):price", "scale"]
    assert float(priors["slope"].scale) == pytest.approx(scale, rel=1e-6)  # a torch of 32 bits


WRONG = {
    "cut off": ("price +", "no formula that formulaic reads"),
    "two sides": ("y ~ price", "right side alone"),
    "misspelt": ("prise", "names 'prise', .*did you mean `price`"),
    "no parentheses": ("price:action != 'hold'", "stands in parentheses"),
    "wrong label": ("(action != 'hodl')", "'hodl', which is not one of its labels"),
    "a mean over the game": ("center(price)", r"I\(price - 2.5\)"),
    "categories of the flow": ("C(density)", "enters as a number"),
    "an intercept alone": ("1", "no column besides the intercept"),
    "nothing": ("  ", "at least one feature"),
    "joint alone": ("occupancy", "names 'occupancy'"),
    "no bins": ("centre(stock)", "bin the column with mfg.discretise"),
}


@pytest.mark.parametrize(("formula", "words"), WRONG.values(), ids=WRONG)
def test_wrong_formulas_are_refused(formula, words):
    panel = mfg.simulate(game(), np.full((4, 12, 2), 0.5), FLOW, n_agents=3, random_seed=1)
    with pytest.raises(ValueError, match=words):
        mfg.TrajectoryModel(game(), mfg.linear_reward(formula, priors=wide()), panel)


def test_wrong_names_and_priors_are_refused():
    x = mfg.RewardInputs(game(), torch.as_tensor(FLOW))
    with pytest.raises(ValueError, match=r"`names` has 'densty', .*did you mean `density`"):
        mfg.linear_reward("density", wide(), names={"densty": "crowding"})(x)
    with pytest.raises(ValueError, match="`priors` must name the features"):
        mfg.linear_reward("density", {"crowd": wide()})(x)
    with pytest.raises(ValueError, match="two weights are called 'density'"):
        mfg.linear_reward("density + price", wide(), names={"price": "density"})(x)
    with pytest.raises(ValueError, match="`names` renames weights of a formula"):
        mfg.linear_reward({"a": "density"}, wide(), names={"a": "b"})
    with pytest.raises(TypeError, match="`names` must be a"):
        mfg.linear_reward("density", wide(), names=["b"])
    with pytest.raises(ValueError, match="only formulas are written out"):
        mfg.linear_reward({"a": "density"}, wide()).written(game())
    with pytest.raises(TypeError, match="`features` must be a formula, a mapping or a list"):
        mfg.linear_reward(3, wide())


def test_a_formula_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "formulaic", None)
    with pytest.raises(ImportError, match=r"mfgppl\[formulas\]"):
        mfg.linear_reward("price", wide())


def test_bins_enter_by_their_centres():
    """`centre(margin)` is the number, `margin` the categories."""
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(
        {"agent": np.repeat(np.arange(50), 4), "time": np.tile(range(4), 50),
         "margin": rng.gamma(2.0, size=200), "action": rng.choice(["a", "b"], 200)}
    )  # fmt: skip
    binned = mfg.discretise(raw, margin=2, labels={"margin": ["low", "high"]})
    panel = mfg.Trajectories.from_frame(binned, state="margin")
    world = mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=panel.estimate_transition(), initial=panel.initial_distribution(),
    )  # fmt: skip
    x = mfg.RewardInputs(world, torch.as_tensor(panel.mean_field()))
    found = columns_of("centre(margin) + margin", x)
    assert list(found) == ["centre(margin)", "margin[T.high]"]
    np.testing.assert_allclose(found["centre(margin)"].flatten(), x.margin.centres.flatten())
    assert "x.margin.centres" in mfg.linear_reward("centre(margin)", wide()).written(world)
