"""A sound call of each public function, and what comes of it where one argument is foreign."""

import functools
import inspect
import re
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
import xarray as xr
from games import ROADS_TRUTH, as_frame, avoid_crowds, played, two_roads

import mfgppl as mfg

PACKAGE = str(Path(mfg.__file__).parent)
QUIET: dict[str, Any] = {"progressbar": False, "flow_bias": False}
SIZES = {
    "chains": 1, "cores": 1, "discriminator_steps": 2, "draws": 20, "flows": 2, "folds": 2,
    "max_steps": 5, "max_treedepth": 3, "n": 2, "n_agents": 10, "n_flows": 3, "n_rounds": 2,
    "n_starts": 2, "n_worlds": 2, "panels": 10, "particles": 2, "parts": 3, "points": 3,
    "population": 10, "prior_draws": 10, "replications": 19, "restarts": 1, "simulations": 10,
    "states": 3, "svi_steps": 3, "tune": 20, "up_to": 1,
}  # fmt: skip
RECORDS = ("Trajectories", "CountedPanel", "Preferences", "baselines.Estimate",
           "baselines.RecoveryMetrics")  # fmt: skip
ELSEWHERE = ("plots.", "interop.", "datasets.", "results.", "exceptions.")  # one argument, a record


RING = pd.DataFrame({"from": ["a", "b", "c"], "to": ["b", "c", "a"]})
ALWAYS = ("parameters", "recovered_parameters")


class Foreign:
    """Nothing that any argument could mean."""

    def __repr__(self) -> str:
        return "<Foreign>"


FOREIGN: dict[str, Any] = {
    "object": Foreign(),
    "bytes": b"x",
    "complex": 1j,
    "2**70": 2**70,
    "nan": float("nan"),
    "array of none": np.array(4.5),
    "three numbers": np.arange(3.0),
    "tensor": torch.arange(3.0),
    "series": pd.Series([1.0, 2.0]),
    "frame": pd.DataFrame({"a": [1.0]}),
    "tree": xr.DataTree(),
    "class": dict,
    "set": {"nonsense"},
    "text": "nonsense",
    "mapping": {"nonsense": "x"},
    "None": None,
    "flag": True,
    "integer": -1,
}
KINDS = (ValueError, TypeError)
DECISIVE = ("object", "bytes", "complex")  # what no argument takes


@functools.cache
def pool() -> dict[str, Any]:
    """Return a value for each name that arguments have."""
    game = two_roads()
    panel = played(game, avoid_crowds, ROADS_TRUTH, 60, 1)
    model = mfg.TrajectoryModel(game, avoid_crowds, panel)
    world = mfg.solve_equilibrium(game, avoid_crowds, parameters=ROADS_TRUTH).value
    estimate = mfg.mle(model, svi_steps=0, **QUIET)
    null = mfg.TrajectoryModel(game, alone, panel)
    tree = mfg.laplace(model, draws=100, random_seed=1, **QUIET)
    two = np.stack([np.eye(2), np.eye(2)[::-1]], 1)
    frame = as_frame(panel)
    typed = two_roads(types={"city": ["a", "b"]}, initial=np.full(4, 0.25))
    estimate_without = mfg.mle(null, svi_steps=0, **QUIET)
    normal = dist.Normal(0.0, 1.0)
    return {
        "actions": ["stay", "turn"], "bins": 2, "changed": game, "edges": RING,
        "features": ["density"],
        "fit": tree, "fit_a": estimate, "fit_b": estimate_without, "fit_method": mfg.mle,
        "fits": {"a": estimate}, "frame": frame, "full": estimate,
        "function": lambda p: p["effort"], "game": game, "games": {"a": game}, "horizon": 4,
        "initial": [0.8, 0.2], "jackknife": mfg.jackknife(model, parts=3), "keep": [0, 1],
        "law": "erdos_renyi",
        "mean_field": world.mean_field, "model": model, "model_a": model, "model_b": null,
        "model_of": lambda n: model, "name": "month", "network": mfg.Network(RING), "null": null,
        "panel": panel,
        "parameter": "effort", "parameters": ROADS_TRUTH, "path": "result.nc",
        "policy": world.policy, "prior": normal, "priors": normal, "recovered": avoid_crowds,
        "recovered_parameters": ROADS_TRUTH, "restricted": estimate_without,
        "restrictions": "effort = 0", "results": {"a": tree, "b": tree}, "reward": avoid_crowds,
        "start": 2, "task": abs, "tax": {"left": 1.0}, "trajectories": panel, "transition": two,
        "truth": ROADS_TRUTH, "typed": typed, "values": [1.0, 2.0], "width": 0.5,
        "widths": mfg.design.expected_widths({"a": game}, avoid_crowds, parameters=ROADS_TRUTH),
        "x": model.inputs,
    }  # fmt: skip


@functools.cache
def changes() -> dict[str, dict[str, Any]]:
    """Return arguments that mean something else in some functions than elsewhere."""
    pools = pool()
    table = torch.as_tensor(pools["transition"])
    tree, estimate, policy = pools["fit"], pools["full"], pools["policy"]
    kinds = mfg.TrajectoryModel(pools["game"], mixed, pools["panel"])
    known = {"share": [0.6, 0.4], "cost": [0.4, 0.9], "crowding": 1.0}
    backwards = {"reward": policy, "transition": table}
    of_kinds = {"model": kinds, "fit": known, "draws": 3}
    return {
        "MeanFieldGame": {"states": ["left", "right"], "start": None},
        "TrajectoryModel": {"mean_field": "empirical", "start": "marginal"},
        "calibration.sbc": {"fit": None, "mean_field": None},
        "checks.contraction": {"draws": tree},
        "checks.kfold": {"mean_field": None},
        "counterfactual": {"mean_field": None},
        "design.default_scales": {"reward": ["density"]},
        "equilibrium.exploitability_by_type": {
            "game": pools["typed"], "policy": np.full((4, 4, 2), 0.5)
        },
        "design.bins_matter": {
            "frame": pd.DataFrame({"margin": [1.0, 2.0, 3.0]}), "fit": lambda table: estimate,
            "column": "margin", "cuts": [2, 3],
        },
        "discretise": {"values": [1.0, 2.0, 3.0], "bins": 2},
        "equilibrium.invariant_mean_field": {"policy": policy[:1], "transition": table},
        "equilibrium.propagate_mean_field": {
            "transition": table, "initial": torch.tensor([0.8, 0.2], dtype=torch.float64)
        },
        "equilibrium.soft_backward_induction": backwards,
        "equilibrium.soft_policy_iteration": {**backwards, "reward": policy[:1], "discount": 0.9},
        "flows.adjust": {"draws": tree},
        "flows.cut_posterior": {"fit": None},
        "hypotheses.delta_method": {"fit": estimate},
        "hypotheses.profile_likelihood": {"fit": estimate},
        "hypotheses.score_test": {"values": {"effort": 0.1}, "kind": "opg"},
        "hypotheses.wald_test": {"fit": estimate, "values": None},
        "networks.audit": {"panel": None},
        "networks.dynamics": {"panel": exposed()},
        "networks.simulate": {
            "panel": exposed(), "game": of_exposed(), "policy": np.full((4, 4, 2), 0.5)
        },
        "kinds.as_types": {"reward": mixed, "parameters": known},
        "kinds.describe": of_kinds,
        "kinds.probabilities": of_kinds,
        "log_likelihood": {"fit": estimate},
        "loo": {"draws": tree, "by": "trajectory"},
        "period_effects": {"by": "action"},
        "save": {"draws": tree, "overwrite": True},
        "report": {"path": "page.html", "overwrite": True},
    }  # fmt: skip


@functools.cache
def exposed() -> mfg.Trajectories:
    """Return the panel with what drivers' neighbours on a ring do."""
    frame = as_frame(pool()["panel"]).rename(columns={"state": "road"})
    panel = mfg.Trajectories.from_frame(frame, state="road")
    names = [*panel.agents]
    ring = pd.DataFrame({"from": names, "to": [*names[1:], names[0]]})
    return panel.exposure(ring, of={"road": "left"}, bins=[-0.1, 0.5, 1.0], name="near")


def of_exposed() -> mfg.MeanFieldGame:
    """Return the game of that panel."""
    panel = exposed()
    return mfg.MeanFieldGame(
        states=panel.space.coordinates, actions=panel.actions, horizon=panel.horizon,
        transition=mfg.networks.dynamics(panel), initial=panel.initial_distribution(),
    )  # fmt: skip


def alone(x: mfg.RewardInputs) -> Any:
    """Drivers who do not look at the crowd."""
    return -pyro.sample("effort", dist.HalfNormal(1.0)) * (x.action == "turn")


def mixed(x: mfg.RewardInputs) -> Any:
    """Drivers of two kinds, who differ in what a turn costs."""
    share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    cost = pyro.sample("cost", dist.HalfNormal(1.0).expand([2]).to_event(1))
    crowding = pyro.sample("crowding", dist.Normal(0.0, 1.0))
    with x.agents:
        kind = pyro.sample("kind", dist.Categorical(share))
    return -crowding * x.density - cost[kind] * (x.action == "turn")


@functools.cache
def public() -> dict[str, Callable[..., Any]]:
    """Return each public function by the name that follows `mfgppl.`."""
    calls = {}
    for name in mfg.__all__:
        entry = getattr(mfg, name)
        if not isinstance(entry, types.ModuleType):
            calls[name] = entry
            continue
        calls |= {f"{name}.{each}": getattr(entry, each) for each in entry.__all__}
    return {
        name: call
        for name, call in calls.items()
        if callable(call) and not name.startswith(ELSEWHERE) and name not in RECORDS
    }


def arguments(name: str, call: Callable[..., Any]) -> dict[str, Any]:
    """Return what a sound call is given, by argument."""
    own = changes().get(name, {})
    given = {}
    for key, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if key in own:
            given[key] = own[key]
        elif key in QUIET:
            given[key] = QUIET[key]
        elif key in SIZES and isinstance(parameter.default, (int, type(parameter.empty))):
            given[key] = SIZES[key]
        elif parameter.default is parameter.empty or key in ALWAYS:
            given[key] = pool()[key]
        else:
            given[key] = parameter.default
    return given


def called(call: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call a function; what is made for reward programs runs inside one."""
    if call is not mfg.period_effects:
        return call(**given)

    def shaken(x: mfg.RewardInputs) -> mfg.Preferences:
        shock = mfg.period_effects(x if given["x"] is pool()["x"] else given["x"], **others)
        return mfg.Preferences(avoid_crowds(x), shock=shock * (x.action == "turn"))

    others = {key: value for key, value in given.items() if key != "x"}
    return mfg.TrajectoryModel(pool()["game"], shaken, pool()["panel"])


def outcome(name: str, argument: str, value: Any) -> str:
    """Return "accepted", "clear", or the words of an unclear error, of a foreign argument."""
    call = public()[name]
    try:
        called(call, arguments(name, call) | {argument: value})
    except Exception as error:
        return fault(error, argument) or "clear"
    return "accepted"


def fault(error: Exception, argument: str) -> str | None:
    """Return the words of an error that is foreign, or that does not name the argument."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error)
    named = re.search(rf"\b{argument}\b|feature|the prior of", text) is not None
    of_no_argument = (OSError, mfg.exceptions.ConvergenceError)  # a file; steps that ran out
    own = frame.filename.startswith(PACKAGE)
    if own and (isinstance(error, of_no_argument) or (named and isinstance(error, KINDS))):
        return None
    return f"{type(error).__name__}: {text[:200]} ({Path(frame.filename).name}:{frame.lineno})"
