"""Text of figures is text: under LaTeX's settings no label is a formula, or stops the drawing."""

import functools
import io
import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from matplotlib.text import Text

import mfgppl as mfg
from mfgppl.flows.side_by_side import Treatments

mpl.use("Agg")

STATES, ACTIONS = ["a_b & co", "$5_$9"], ["#1 50%", "{x}^~\\y"]
SPECIAL = "_$%&#^~\\{}"
SITES = ["wage_gap", "r&d $1$"]
TRUTH = dict(zip(SITES, (0.6, 0.3), strict=True))
QUIET = {"progressbar": False, "random_seed": 1}


def alone(x):
    """A cost of the second action."""
    return -pyro.sample(SITES[1], dist.Normal(0.0, 1.0)) * (x.action == ACTIONS[1])


def reward(x):
    """The cost, and one of the crowd in one's state."""
    return alone(x) - pyro.sample(SITES[0], dist.Normal(0.0, 1.0)) * x.density


@functools.cache
def game(horizon=3):
    """Two states between which the second action moves."""
    moves = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
    return mfg.MeanFieldGame(
        states=STATES, actions=ACTIONS, horizon=horizon, transition=moves, initial=[0.7, 0.3]
    )


@functools.cache
def model(program=reward):
    """Eighty agents in equilibrium."""
    world = mfg.solve_equilibrium(game(), reward, parameters=TRUTH, throw=True).value
    panel = mfg.simulate(game(), world.policy, world.mean_field, n_agents=80, random_seed=1)
    return mfg.TrajectoryModel(game(), program, panel)


@functools.cache
def fit():
    """The plug-in fit."""
    return mfg.mle(model(), svi_steps=0, progressbar=False, flow_bias=False)


def from_prior(model, *, random_seed):
    """Draws that ignore the data."""
    rng = np.random.default_rng(random_seed)
    posterior = {site: (("chain", "draw"), rng.standard_normal((1, 100))) for site in SITES}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(posterior)})


def plugged_in(model, *, random_seed):
    """The fit by a name of one's own."""
    return mfg.mle(model, svi_steps=0, progressbar=False, flow_bias=False)


@functools.cache
def check():
    """A predictive check with a statistic of one's own."""
    share = {"share_of_$": lambda panel: float((panel.action == 1).mean())}
    return mfg.predictive_check(model(), TRUTH, statistics=share, draws=20)


@functools.cache
def changed():
    """A counterfactual with a statistic of one's own."""
    share = {"share_of_$ & more": lambda world: float(world.flow[-1, 0])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mfg.exceptions.IdentificationWarning)
        return mfg.counterfactual(
            model(), TRUTH, game().replace(initial=[0.2, 0.8]), statistics=share, n_starts=1,
            progressbar=False,
        )  # fmt: skip


@functools.cache
def predictive():
    """Behaviour under the prior."""
    return mfg.prior_predictive(game(), reward, draws=10, random_seed=1)


def treatments():
    """One treatment of the flow."""
    rows = pd.concat([fit().params, fit().bse, fit().conf_int()], axis=1).to_numpy()
    index = pd.MultiIndex.from_product([["plug-in"], SITES], names=["treatment", "parameter"])
    table = pd.DataFrame(rows, index, ["estimate", "std_err", "lower", "upper"])
    return Treatments({"plug-in": fit()}, table, {}, None, np.nan, None, "plug-in")


def typed():
    """Residuals of a model with types whose names are awkward."""
    types = {"size": ["_small & $", "100%"]}
    world = game().replace(types=types, initial=np.full(4, 0.25))
    flow = np.full((3, 4), 0.25)
    panel = mfg.simulate(world, np.full((3, 4, 2), 0.5), flow, n_agents=60, random_seed=1)
    return mfg.checks.residuals(mfg.TrajectoryModel(world, reward, panel, mean_field=flow), TRUTH)


def of_kinds(n_kinds):
    """The model of so many kinds that nobody sees."""

    def program(x):
        cost = pyro.sample("cost", dist.Normal(0.0, 1.0).expand([n_kinds]).to_event(1))
        with x.agents:
            kind = pyro.sample("kind", dist.Categorical(torch.ones(n_kinds)))
        return -cost[kind] * (x.action == ACTIONS[1])

    return mfg.TrajectoryModel(game(), program, model().panel)


def kinds():
    """What agents of two kinds do."""
    return mfg.kinds.describe(of_kinds(2), {"cost": [0.1, 1.0]})


def number():
    """Fits of one kind and of two."""
    return mfg.kinds.choose(of_kinds, up_to=2, restarts=0, folds=2, **QUIET)


# each figure, and labels that must be on it as they are
FIGURES = {
    "plot_choice_check": (check, [*STATES, *ACTIONS]),
    "plot_counterfactual": (changed, STATES),
    "plot_counterfactual_difference": (changed, STATES),
    "plot_counterfactual_statistics": (changed, ["share of $ & more"]),
    "plot_coupling": (
        lambda: mfg.flows.coupling_test(
            model(), model(alone), replications=19, folds=2, progressbar=False
        ),
        [f"estimate of {SITES[0]}"],
    ),
    "plot_coverage": (
        lambda: mfg.calibration.recovery(
            game(), reward, truth=TRUTH, n_agents=40, panels=2, methods={"_50% & $": plugged_in},
            **QUIET,
        ),
        [*SITES, "_50% & $"],
    ),
    "plot_effects": (
        lambda: mfg.effects(model(), TRUTH),
        [*STATES, *(f"{site}: {action}" for site in SITES for action in ACTIONS)],
    ),
    "plot_exploitability": (
        lambda: mfg.checks.observed_exploitability(model(), TRUTH, draws=5),
        [],
    ),
    "plot_flow_check": (check, STATES),
    "plot_imperfection": (
        lambda: mfg.checks.imperfection(model(), TRUTH), ["noise", "lapses", "plan"],
    ),
    "plot_kinds": (kinds, ACTIONS),
    "plot_network": (
        lambda: mfg.networks.audit(mfg.Network(pd.DataFrame({"from": ["_a"], "to": ["$b$"]}))), [],
    ),
    "plot_number_of_kinds": (number, []),
    "plot_prior_choices": (predictive, [*STATES, *ACTIONS]),
    "plot_prior_flows": (predictive, STATES),
    "plot_ranks": (
        lambda: mfg.calibration.sbc(model(), panels=10, fit=from_prior, **QUIET),
        SITES,
    ),
    "plot_residuals": (lambda: mfg.checks.residuals(model(), TRUTH), [*STATES, *ACTIONS]),
    "plot_runaway": (lambda: mfg.checks.runaway(model(), TRUTH, progressbar=False), []),
    "plot_statistics": (check, ["share_of_$"]),
    "plot_treatments": (treatments, SITES),
    "plot_types": (typed, ["_small & $", "100%", *ACTIONS]),
    "plot_widths": (
        lambda: mfg.design.expected_widths(
            {"_now & $": game()}, reward, parameters=TRUTH, n_agents=[50, 100]
        ),
        [*SITES, "_now & $, 3 times"],
    ),
}  # fmt: skip


def test_every_figure_is_looked_at():
    """Each public function that draws has its row."""
    assert sorted(FIGURES) == mfg.plots.__all__


@pytest.mark.parametrize("latex", [False, True])
@pytest.mark.parametrize("name", FIGURES)
def test_labels_are_shown_as_they_are(name, latex):
    """No text is handed to LaTeX or looked through for formulas, then or when it is shown.

    And no legend lies over a title.
    """
    make, labels = FIGURES[name]
    result = make()
    with mpl.rc_context({"text.usetex": latex}):
        figure = getattr(mfg.plots, name)(result)
        if latex:
            figure.savefig(io.BytesIO())
        assert mpl.rcParams["text.usetex"] is latex
    texts = [text for text in figure.findobj(Text) if set(text.get_text()) & set(SPECIAL)]
    assert not any(text.get_usetex() or text.get_parse_math() for text in texts)
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert not any(text.get_usetex() for text in texts)
    shown = "\n".join(text.get_text() for text in texts)
    assert [label for label in labels if label not in shown] == []
    if not latex:
        assert covered_titles(figure) == []
    plt.close(figure)


def covered_titles(figure):
    """Return the titles of a figure, and of its axes, over which a legend lies."""
    figure.canvas.draw()
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    titles = [figure._suptitle] if figure._suptitle else []
    titles += [t for a in figure.axes for t in (a.title, a._left_title, a._right_title)]
    return [
        title.get_text()
        for title in titles
        if title.get_text()
        and any(
            title.get_window_extent().overlaps(legend.get_window_extent()) for legend in legends
        )
    ]


@pytest.mark.usefixtures("few_panels")
def test_a_report_draws_without_latex(tmp_path):
    """ArviZ's figures too, of draws."""
    draws = mfg.laplace(model(), draws=50, flow_bias=False, **QUIET)
    before = plt.get_fignums()
    with mpl.rc_context({"text.usetex": True}):
        page = mfg.report(draws, tmp_path / "page.html")
    assert page.read_text("utf-8").count('<img src="data:image/png') >= 4
    assert plt.get_fignums() == before
