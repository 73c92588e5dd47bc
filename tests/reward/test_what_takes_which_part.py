"""The documentation's table of functions and parts: each cell is tried as it says."""

import re
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import mfgppl as mfg

PAGE = Path(__file__).resolve().parents[2] / "docs" / "preferences.md"
S, A, T = 2, 2, 3
MOVES = np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]])
FLOW = np.array([[0.5, 0.5], [0.4, 0.6], [0.3, 0.7]])
POLICY = np.full((T, S, A), 0.5)
TRUTH = {"pay": 0.7}
SHOCK = torch.tensor([0.5, -0.2, -0.3], dtype=torch.float64)[:, None, None]
PARTS = {
    "terminal": lambda x: {"terminal": 1.0 * x.state},
    "shock": lambda x: {"shock": SHOCK[: x.shape[-3]] * (x.action == "move")},
    "discount": lambda x: {"discount": 0.6},
    "temperature": lambda x: {"temperature": 0.5},
    "lapse": lambda x: {"lapse": 0.2},
}
WORLDS = ({"behaviour": "mistakes"}, {"lookahead": 1}, {"beliefs": "static"}, {"beliefs": 2})


def game(**changes):
    arguments = {
        "states": range(S), "actions": ["stay", "move"], "horizon": T, "initial": FLOW[0],
        "transition": MOVES,
    }  # fmt: skip
    return mfg.MeanFieldGame(**(arguments | changes))


def with_part(part):
    """Return a program with one part beside its reward, None for none."""

    def program(x):
        pay = pyro.sample("pay", dist.Normal(0.0, 1.0))
        reward = pay * (x.action == "move") * (1.0 - x.state) - 0.5 * x.density
        return mfg.Preferences(reward, **({} if part is None else PARTS[part](x)))

    return program


def panel_of(world):
    return mfg.simulate(world, POLICY, FLOW, n_agents=40, random_seed=1)


def modelled(changes, program, **options):
    """Return log likelihoods at the truth."""
    world = game(**changes)
    model = mfg.TrajectoryModel(world, program, panel_of(world), **options)
    return mfg.log_likelihood(model, TRUTH)


def fitted(changes, program):
    """Fit, and do with the fit what others do."""
    world = game(**changes)
    model = mfg.TrajectoryModel(world, program, panel_of(world))
    fit = mfg.mle(model, svi_steps=0, progressbar=False)
    assert fit.converged
    mfg.predictive_check(model, fit, draws=5, random_seed=1)
    mfg.checks.residuals(model, fit)
    mfg.bootstrap(model, replications=2, random_seed=1, progressbar=False, n_jobs=1)
    return mfg.log_likelihood(model, TRUTH)


def coupled(changes, program):
    return modelled(changes, program, mean_field="equilibrium")


def by_energy(changes, program):
    return modelled(changes, program, likelihood="energy")


def solved(changes, program):
    world = game(**changes)
    found = mfg.solve_equilibrium(world, program, parameters=TRUTH, throw=True).value
    mfg.simulate(world, found.policy, found.mean_field, n_agents=5, random_seed=1)
    return found.policy.numpy()


def asked(changes, program):
    world = game(**changes)
    mfg.identify(world, program)
    mfg.prior_predictive(world, program, draws=3, random_seed=1)
    return np.asarray(
        mfg.design.expected_information(world, program, parameters=TRUTH, n_agents=10).information
    )


def valued(changes, program):
    """Return what policies are worth, and the best ones."""
    world = game(**changes)
    given = {"parameters": TRUTH}
    return np.array(
        [
            mfg.equilibrium.exploitability(world, program, POLICY, **given),
            mfg.equilibrium.expected_return(world, program, POLICY, **given),
            *(
                float(solve(world, program, **given).value.soft_values.numpy()[0] @ FLOW[0])
                for solve in (mfg.solve_nash, mfg.equilibrium.social_optimum)
            ),
        ]
    )


def regularised(changes, program):
    world = game(**changes)
    return mfg.equilibrium.regularised_exploitability(world, program, POLICY, parameters=TRUTH)


def for_ever(changes, program):
    endless = game(horizon=None, discount=0.9, **changes)
    found = mfg.solve_equilibrium(endless, program, parameters=TRUTH, throw=True)
    return found.value.policy.numpy()


def earlier(changes, program):
    world = game(**changes)
    return mfg.baselines.max_causal_entropy(panel_of(world), world, reward=program).policy.numpy()


ROWS = {
    "`TrajectoryModel`, and fits and checks of it": fitted,
    '`TrajectoryModel(mean_field="equilibrium")`': coupled,
    '`TrajectoryModel(likelihood="energy")`': by_energy,
    "`solve_equilibrium`, `simulate`, `counterfactual`": solved,
    "`identify`, `expected_information`, `prior_predictive`": asked,
    "`exploitability`, `expected_return`, `solve_nash`, `social_optimum`": valued,
    "`regularised_exploitability`": regularised,
    "a stationary game": for_ever,
    "`baselines`": earlier,
}


def table():
    """Return the cells of the page's table by function and part."""
    text = PAGE.read_text("utf-8").split("<!-- parts -->")[1].split("<!-- end of parts -->")[0]
    lines = [[c.strip() for c in row.strip("| ").split(" | ")] for row in text.strip().splitlines()]
    return {row[0]: row[1:] for row in lines[2:]}


def test_the_table_has_the_rows_that_are_tried():
    assert list(table()) == list(ROWS)
    assert all(len(cells) == len(PARTS) + 1 for cells in table().values())


@pytest.mark.parametrize("row", ROWS)
def test_each_cell_is_as_it_says(row):
    """`yes` changes the outcome, `left out` does not, words in italics are the refusal's."""
    use, base = ROWS[row], with_part(None)
    plain = np.asarray(use({}, base))
    parts = zip(PARTS, table()[row], strict=False)
    cases = [(cell, {}, with_part(part)) for part, cell in parts]
    cases += [(table()[row][-1], changes, base) for changes in WORLDS]
    for cell, changes, program in cases:
        words = re.fullmatch(r"\*(.*)\*", cell)
        if row == "a stationary game" and changes in WORLDS[1:3]:
            cell, words = "yes", None  # as the page says below
        elif row == "a stationary game" and changes == {"beliefs": 2}:
            words = re.fullmatch("(.*)", "levels of reasoning belong to games with a horizon")
        if words is not None:
            with pytest.raises(ValueError, match=re.escape(words[1])):
                use(changes, program)
            continue
        found = np.asarray(use(changes, program))
        same = found.shape == plain.shape and np.allclose(found, plain, rtol=1e-6, atol=1e-9)
        still = row == "a stationary game" and changes == {"beliefs": "static"}
        assert same is (cell == "left out" or still), (cell, changes)
