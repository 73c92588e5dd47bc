"""What the crowd would do in another world, with the uncertainty of the fit."""

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl._meeting import Meeting
from mfgppl.counterfactuals.equilibria_of_draws import (
    Search,
    Setting,
    Solved,
    branches_at,
    solve_all,
)
from mfgppl.counterfactuals.record import (
    PARTS,
    WORLDS,
    Counterfactual,
    Statistic,
    paired,
    table_of,
)
from mfgppl.counterfactuals.unidentified_effects import untold_that_matters
from mfgppl.counterfactuals.welfare import NAMES
from mfgppl.data.composition import turnover_message
from mfgppl.density.of_model import density_of
from mfgppl.design.derivatives import program_along
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.game import MeanFieldGame
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.likelihood.panels import needs_crowd
from mfgppl.posterior.fit_values import nearest_to_mean, values_or_replications
from mfgppl.posterior.policies import Fit
from mfgppl.posterior.result_tree import labels
from mfgppl.reward.parameters import Program
from mfgppl.reward.program import RewardProgram


@strict_keywords
def counterfactual(
    model: TrajectoryModel,
    fit: Fit | pd.DataFrame,
    changed: MeanFieldGame,
    *,
    reward: RewardProgram | None = None,
    baseline: MeanFieldGame | None = None,
    statistics: Mapping[str, Statistic] | None = None,
    draws: int = 1000,
    mean_field: Any = None,
    tolerance: float = 1e-10,
    max_steps: int = 1000,
    n_starts: int = 20,
    n_jobs: int | None = None,
    progressbar: bool = True,
) -> Counterfactual:
    """Carry each draw of a reward through the equilibrium of another world.

    At each draw each world's equilibrium is sought from that of the reference, the draw nearest to
    the mean, and again from the others that the reference has, or from the crowd that stays where
    it began: where they differ the draw has several. Where none is found so, or one over eight
    times as far from the reference as the median draw's, the reference's is followed along the
    straight line of parameters. A draw switches branch if that line breaks off or jumps, or if it
    ends nearer to another equilibrium of the reference.

    Rewards are known up to what leaves behaviour as it is in the world that was seen; a direction
    of the parameters that no data can identify there and that matters in the changed world is
    named in a warning [1]_ [2]_. That the form of the reward holds in the changed world is assumed.

    Parameters
    ----------
    model : TrajectoryModel
        The model that was fitted.
    fit : DataTree, DataFrame, PointEstimate or mapping
        Posterior draws; replications of `bootstrap`; a point estimate or values by site, one draw.
    changed : MeanFieldGame
        The changed world, as of `game.replace`, with the same states, actions and horizon.
    reward : callable, optional
        The reward in the changed world, with the same latent sites, as of `taxed`.
    baseline : MeanFieldGame, optional
        The world to compare with, by default the model's game.
    statistics : mapping of str to callable, optional
        Further statistics by name, each of a `World` with `game`, `flow` (time, state) and
        `policy` (time, state, action): a number, an array or a DataArray.
    draws : int
        Draws to use at most, evenly spaced, as many of each chain: 50 of four chains are 48.
    mean_field : array, shape (T, S), or (T, S, A) in a joint game, optional
        Where the changed world's equilibrium is sought at the reference; by default at the
        baseline's. It chooses among several.
    tolerance, max_steps
        As in `solve_equilibrium`, for each start.
    n_starts : int
        Starts of the search for other equilibria at the reference.
    n_jobs, progressbar
        As in `replicate`.

    Returns
    -------
    Counterfactual
        With the `table` of scalars, the `draws`, and `bands`.

    Warns
    -----
    IdentificationWarning
        If the changed world depends on what no data can identify.
    ConvergenceWarning
        If draws failed or switched branch, or many agents of the panel enter late or end early.

    Raises
    ------
    ValueError
        If the games do not fit together, or a statistic is not numeric or changes its shape.

    References
    ----------
    .. [1] Cao, Cohen and Szpruch (2021), *Identifiability in inverse reinforcement learning*,
       NeurIPS.
    .. [2] Rolland, Viano, Schuerhoff, Nikolov and Cevher (2022), *Identifiability and
       generalizability from multiple experts in inverse reinforcement learning*, NeurIPS.
    """
    is_a("model", model, TrajectoryModel)
    needs_crowd(model.panel, "a counterfactual")
    before = model.game if baseline is None else baseline
    _check_alike(model.game, "baseline", before)
    _check_alike(model.game, "changed", changed)
    asked = _checked(statistics)
    search = Search(
        real_between("tolerance", tolerance, above=0.0),
        positive_int("max_steps", max_steps),
        positive_int("n_starts", n_starts),
    )
    program = density_of(model).program
    values, index, n_left_out = values_or_replications(model, fit, positive_int("draws", draws))
    centre = values[nearest_to_mean(values)]
    reference = program.by_site(centre)
    after = model.reward if reward is None else reward
    if reward is not None:
        _check_sites(model, program, changed, reward)
    known = branches_at(before, model.reward, reference, model.mean_field, search)
    start = known[0] if mean_field is None else changed.check_flow("mean_field", mean_field)
    other = branches_at(changed, after, reference, start, search)
    shapes = {site.name: site.shape for site in program.sites}
    fitted = None if reward is None else model.reward
    settings = [
        Setting(before, model.reward, fitted, shapes, centre, known),
        Setting(changed, after, fitted, shapes, centre, other),
    ]
    solved = [
        solve_all(setting, values, search, n_jobs=n_jobs, progressbar=progressbar)
        for setting in settings
    ]
    status = _status(solved, search, index)
    drawn = pd.DataFrame(values, columns=program.entry_names())
    found = paired(labels(model)[0], settings, solved, status, asked, drawn)
    result = Counterfactual(
        found,
        table_of(found, status),
        status,
        _changes(before, changed, reward is not None),
        untold_that_matters(model, changed, after, reference, settings[1].branches[0]),
        {world: len(s.branches) for world, s in zip(WORLDS[:2], settings, strict=True)},
        n_left_out,
        turnover_message(model.panel),
    )
    _warn(result)
    return result


def _check_alike(game: MeanFieldGame, name: str, other: Any) -> None:
    """Raise unless another game has the spaces of the model's."""
    is_a(name, other, MeanFieldGame, " Make it with game.replace(transition=...).")
    for what in ("space", "actions", "horizon", "joint"):
        ours, theirs = getattr(game, what), getattr(other, what)
        if what == "space":
            what, ours, theirs = "states", ours.coordinates, theirs.coordinates
            ours, theirs = ({k: list(v) for k, v in c.items()} for c in (ours, theirs))
        if ours != theirs:
            raise ValueError(
                f"`{name}` must have the same {what} as the model's game, {ours}; got {theirs}. "
                "A counterfactual changes dynamics, start, features, constants or the reward."
            )


def _check_sites(
    model: TrajectoryModel, program: Program, changed: MeanFieldGame, reward: RewardProgram
) -> None:
    """Raise unless a reward has the latent sites of the model's."""
    other = program_along(changed, reward, model.mean_field)
    ours, theirs = (sorted((s.name, s.shape) for s in p.sites) for p in (program, other))
    if ours != theirs:
        raise ValueError(
            f"`reward` must have the latent sites of the model's, {ours} as (name, shape); got "
            f"{theirs}."
        )


def _checked(statistics: Mapping[str, Statistic] | None) -> dict[str, Statistic]:
    given = {} if statistics is None else is_a("statistics", statistics, Mapping)
    for name, function in given.items():
        if not callable(function):
            raise TypeError(
                f"`statistics` must hold functions of a world; {name!r} is a "
                f"{type(function).__name__}."
            )
        if name in ("flow", "policy", "parameters", *NAMES):
            raise ValueError(f"`statistics` names {name!r}, which is there already; rename it.")
    return dict(given)


def _status(solved: list[Solved], search: Search, index: pd.Index) -> pd.DataFrame:
    one, other = solved
    residuals = {f"residual_{w}": s.residual for w, s in zip(WORLDS[:2], solved, strict=True)}
    solves = (one.residual <= search.tolerance) & (other.residual <= search.tolerance)
    found = residuals | {
        "failed": ~solves,
        "several": one.several | other.several,
        "switched": one.switched | other.switched,
    }
    return pd.DataFrame(found, index)


def _changes(before: MeanFieldGame, after: MeanFieldGame, reward: bool) -> tuple[str, ...]:
    """Name what differs between two worlds."""

    def given(game: MeanFieldGame, part: str) -> Any:
        return game.constants_by_type.get(part, getattr(game, part))

    parts = [part for part in PARTS if not _equal(given(before, part), given(after, part))]
    return tuple(["reward"] * reward + parts)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Meeting) and isinstance(other, Meeting):
        ways = (one.by_mass, one.normalised), (other.by_mass, other.normalised)
        return ways[0] == ways[1] and all(
            map(_equal, (one.weights, one.row, one.links), (other.weights, other.row, other.links))
        )
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return bool(one is other or one == other)
    if one.shape != other.shape or one.layout != other.layout:
        return False
    if one.layout != torch.strided:
        return bool((one - other).coalesce().values().abs().sum() == 0)
    return bool(torch.equal(one, other))


def _warn(found: Counterfactual) -> None:
    for direction in found.unidentified or ():
        warnings.warn(
            f"no data can identify {direction}, and behaviour in the changed world depends on it: "
            "there the prior decides. Fix it, change the reward's form, or widen what is reported.",
            IdentificationWarning,
            stacklevel=4,
        )
    if found.turnover is not None:
        warnings.warn(found.turnover, ConvergenceWarning, stacklevel=4)
    if found.n_failed or found.n_switched:
        warnings.warn(
            f"of {len(found.status)} draws {found.n_failed} have no equilibrium in one of the "
            f"worlds and are left out, and {found.n_switched} are on another branch than the "
            "reference; look at `status`.",
            ConvergenceWarning,
            stacklevel=4,
        )
