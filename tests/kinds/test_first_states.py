"""Firms whose kind nobody sees, and who were there before anybody looked.

Where a firm is when it is first seen then says something of its kind (Arcidiacono and Miller, 2011,
*Conditional choice probability estimation of dynamic discrete choice models with unobserved
heterogeneity*, Econometrica 79, drop the first periods of their buses for this).
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from kinds_world import STEPS, S

import mfgppl as mfg

HORIZON, BEFORE, FIRMS = 10, 5, 6000
TRUTH = {"share": 0.4, "taste": [-0.35, 0.35], "cost": 0.5}
GAME = mfg.MeanFieldGame(
    states={"price": range(S)}, actions=["down", "none", "up"], horizon=HORIZON,
    transition=STEPS, initial=np.ones(S) / S,
)  # fmt: skip


def program(x, *, by_state):
    taste = pyro.sample("taste", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    cost = pyro.sample("cost", dist.Normal(0.0, 2.0))
    if by_state:
        logit = pyro.sample("tilt", x.price.each(dist.Normal(0.0, 3.0)))[x.first_state.price.codes]
        probs = torch.stack([logit, 0.0 * logit], -1).softmax(-1)
    else:
        share = pyro.sample("share", dist.Beta(1.0, 1.0))
        probs = torch.stack([share, 1 - share])
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(probs))
    return taste[kind] * x.price - cost * (x.action != "none")


def test_shares_by_first_state_remove_the_bias():
    """Constant shares are right from the first period on, and wrong for those who were there."""
    typed, bound = mfg.kinds.as_types(GAME, lambda x: program(x, by_state=False), TRUTH)
    played = mfg.solve_equilibrium(typed, bound, throw=True).value
    drawn = mfg.simulate(
        typed, played.policy, played.mean_field, n_agents=FIRMS, random_seed=3
    ).to_frame()
    seen = drawn["time"] >= BEFORE
    first = drawn[drawn["time"] == BEFORE].groupby("price")["kind"].mean()
    assert first.min() < 0.3  # where a firm is seen first says much of its kind
    assert first.max() > 0.8
    rest = mfg.Trajectories.from_frame(
        drawn[seen].drop(columns="kind"), state="price", state_labels={"price": range(S)},
        action_labels=["down", "none", "up"],
    )  # fmt: skip
    late = GAME.replace(horizon=HORIZON - BEFORE)
    flow = np.full((HORIZON - BEFORE, S), 1 / S)  # no term reads it
    fits = {}
    for by_state in (False, True):
        model = mfg.TrajectoryModel(
            late, lambda x, b=by_state: program(x, by_state=b), rest, mean_field=flow
        )
        fits[by_state] = mfg.mle(model, restarts=1, progressbar=False)
    truth = [*sorted(TRUTH["taste"]), TRUTH["cost"]]
    away = {}
    for by_state, fit in fits.items():
        assert fit.converged
        order = np.argsort(fit.params[["taste[0]", "taste[1]"]].to_numpy())
        names = [*(f"taste[{k}]" for k in order), "cost"]
        errors = fit.bse[names].to_numpy()
        away[by_state] = (fit.params[names].to_numpy() - truth) / errors
    assert (np.abs(away[True]) < 3).all()
    assert np.abs(away[False]).max() > 4
    assert fits[True].llf > fits[False].llf + 20
