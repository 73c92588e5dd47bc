"""Two worlds draw by draw: the record of a counterfactual, its bands and its table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import real_between, strict_keywords
from mfgppl.counterfactuals.equilibria_of_draws import Setting, Solved
from mfgppl.counterfactuals.welfare import NAMES
from mfgppl.data.type_axis import by_type
from mfgppl.game import MeanFieldGame
from mfgppl.posterior.fit_values import CI_PROB

WORLDS = ["baseline", "changed", "difference"]
PARTS = [
    "transition", "initial", "available", "features", "discount", "temperature", "meets",
    "behaviour", "lookahead", "beliefs",
]  # fmt: skip
ASIDE = ("behaviour", "lookahead", "beliefs")  # named where they change


class World(NamedTuple):
    """A world in equilibrium, as statistics see it.

    Attributes
    ----------
    game : MeanFieldGame
        The game.
    flow : DataArray, dims (time, state)
        Share of the crowd in each state; led by type where there are some.
    policy : DataArray, dims (time, state, action)
        Probability of each action.
    """

    game: MeanFieldGame
    flow: xr.DataArray
    policy: xr.DataArray


Statistic = Callable[[World], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Counterfactual:
    """Equilibria of two worlds under each draw of a reward, and their paired differences.

    Attributes
    ----------
    draws : Dataset
        Along `world` ("baseline", "changed" and "difference", the second less the first) and
        `draw`, with the labels that the draws have in the fit, `chain` beside it: `flow` (time,
        state), `policy` (time, state, action), led by type where there are some, the welfare,
        reward units over the horizon (of a stationary game for ever, discounted), and the
        statistics asked for. NaN where one of the worlds has no equilibrium.
    table : DataFrame
        One row per scalar and world: `mean`, `lower` and `upper` (equal-tailed 90 %) over draws,
        and `positive`, the share of draws above zero, of differences.
    status : DataFrame
        One row per draw, labelled likewise: the worlds' residuals, and whether in one of them it
        `failed` (no equilibrium within the tolerance), has `several` equilibria (two were met in
        which a share differs by more than 1e-6) or `switched` to another branch than the
        reference's.
    changes : tuple of str
        What differs between the worlds.
    unidentified : tuple of str, or None
        Directions of the parameters that the model's data cannot identify and that behaviour in the
        changed world depends on; None where that could not be looked at.
    n_branches : dict of str to int
        Equilibria found of each world at the reference, the draw nearest to the mean.
    n_left_out : int
        Replications without an estimate.
    turnover : str or None
        That many agents of the panel enter late or end early, where they do: equilibria are those
        of a closed population.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    status: pd.DataFrame
    changes: tuple[str, ...]
    unidentified: tuple[str, ...] | None
    n_branches: dict[str, int]
    n_left_out: int
    turnover: str | None = None

    @property
    def n_failed(self) -> int:
        """Draws without an equilibrium in one of the worlds."""
        return int(self.status["failed"].sum())

    @property
    def n_several(self) -> int:
        """Draws with several equilibria in one of the worlds."""
        return int(self.status["several"].sum())

    @property
    def n_switched(self) -> int:
        """Draws whose equilibrium is on another branch than the reference's."""
        return int(self.status["switched"].sum())

    @strict_keywords
    def bands(self, ci_prob: float = CI_PROB, *, switched: bool = True) -> xr.Dataset:
        """Return means and equal-tailed bands over the draws that have both equilibria.

        Parameters
        ----------
        ci_prob : float in (0, 1)
            Share of draws inside, entry by entry.
        switched : bool
            Whether draws on another branch than the reference's count.

        Returns
        -------
        Dataset
            The variables of `draws` with `band` ("mean", "lower", "upper") in place of `draw`.
        """
        real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
        out = self.status["failed"] | (self.status["switched"] & (not switched))
        kept = self.draws.isel(draw=np.flatnonzero(~out.to_numpy()))
        return _bands(kept, ci_prob)

    @property
    def verdict(self) -> str:
        """How far the draws can be trusted, and what is held fixed, in words."""
        lines = [
            f"{len(self.status)} draws: {self.n_failed} failed, {self.n_several} with several "
            f"equilibria, {self.n_switched} switched branch."
        ]
        if self.n_left_out:
            lines.append(f"Replications without an estimate, left out: {self.n_left_out}.")
        for world, n in self.n_branches.items():
            if n > 1:
                lines.append(f"The {world} world has {n} equilibria at the reference.")
        parts = [k for k in PARTS if k not in ASIDE and (k != "meets" or "type" in self.draws.dims)]
        held = [part for part in ["reward", *parts] if part not in self.changes]
        changed = ", ".join(self.changes) or "nothing"
        lines.append(f"Changed: {changed}. Held fixed: {', '.join(held)}, and each draw's tastes.")
        for direction in self.unidentified or ():
            lines.append(f"No data can identify {direction}; the changed world depends on it.")
        if self.turnover is not None:
            lines.append(f"{self.turnover[0].upper()}{self.turnover[1:]}")
        if self.unidentified is None:
            lines.append("Whether all that matters is identified was not looked at.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        shown = self.table.to_string(float_format=lambda v: f"{v:.4g}", na_rep="")
        return "\n".join([f"equal-tailed {100 * CI_PROB:g}% intervals", shown, self.verdict])


def paired(
    coords: Mapping[str, Any],
    settings: list[Setting],
    solved: list[Solved],
    status: pd.DataFrame,
    asked: Mapping[str, Statistic],
    parameters: pd.DataFrame,
) -> xr.Dataset:
    """Return both worlds and their difference by draw, and the parameters (draw, parameter)."""
    coords = {k: coords[k] for k in ("time", "state", "action")}
    coords |= {str(k): ("draw", status.index.get_level_values(str(k))) for k in status.index.names}
    failed = xr.DataArray(status["failed"].to_numpy(), dims="draw")
    worlds: list[xr.Dataset] = []
    # entropy is of no worth where the noise is no taste, nor a fitted reward where it is the same
    left_out = {NAMES[1]: any(_never(one) for one in solved), NAMES[2]: not settings[1].fitted}
    for setting, one in zip(settings, solved, strict=True):
        shares, table = ("draw", "time", "state"), ("draw", "time", "state", "action")
        found = xr.Dataset({"flow": (shares, one.flow), "policy": (table, one.policy)}, coords)
        for name, worth in zip(NAMES, one.worth.T, strict=True):
            if not left_out.get(name):
                found[name] = ("draw", worth)
        found = by_type(found, setting.game.space).where(~failed)
        for name, function in asked.items():
            found[name] = _statistic(name, function, setting.game, found, ~failed.values)
        worlds.append(found)
    both = xr.concat([*worlds, worlds[1] - worlds[0]], pd.Index(WORLDS, name="world"), join="exact")
    both = both.assign(parameters=(("draw", "parameter"), parameters.to_numpy()))
    return both.assign_coords(parameter=list(parameters.columns))


def _never(solved: Solved) -> bool:
    """Return whether entropy is of no worth in a world."""
    plain, with_entropy = np.asarray(solved.worth).T[:2]
    return bool((np.isnan(with_entropy) & np.isfinite(plain)).any())


def _statistic(
    name: str, function: Statistic, game: MeanFieldGame, found: xr.Dataset, solved: np.ndarray
) -> xr.DataArray:
    """Return a statistic by draw, NaN where a draw failed."""
    rows: dict[int, xr.DataArray] = {}
    for k in np.flatnonzero(solved).tolist():
        here = found.isel(draw=k, drop=True)
        value = function(World(game, here["flow"], here["policy"]))
        if not isinstance(value, xr.DataArray):
            value = np.asarray(value)
            value = xr.DataArray(value, dims=[f"{name}_{d}" for d in range(value.ndim)])
        if value.dtype.kind not in "biuf":
            raise ValueError(f"the statistic {name!r} must be numeric; got {value.dtype}.")
        first = next(iter(rows.values()), value)
        if value.sizes != first.sizes:
            raise ValueError(
                f"the statistic {name!r} must have one shape for all draws; got "
                f"{dict(first.sizes)} and {dict(value.sizes)}."
            )
        rows[k] = value.drop_vars([c for c in value.coords if c not in value.dims]).astype(float)
    nothing = xr.full_like(next(iter(rows.values()), xr.DataArray(np.nan)), np.nan)
    return xr.concat([rows.get(k, nothing) for k in range(len(solved))], "draw")


def _bands(draws: xr.Dataset, ci_prob: float) -> xr.Dataset:
    """Return mean, lower and upper over draws."""
    tails = 0.5 * (1 - ci_prob), 0.5 * (1 + ci_prob)
    draws = draws.drop_vars("parameters")
    if not draws.sizes["draw"]:
        nothing = draws.reduce(lambda a, axis: np.full(np.delete(a.shape, axis), np.nan), "draw")
        parts = [nothing] * 3
    else:
        ends = [draws.quantile(q, "draw").drop_vars("quantile") for q in tails]
        parts = [draws.mean("draw"), *ends]
    bands = xr.concat(parts, pd.Index(["mean", "lower", "upper"], name="band"), join="exact")
    return bands.assign_attrs(ci_prob=ci_prob, kind="equal-tailed")


def table_of(draws: xr.Dataset, status: pd.DataFrame) -> pd.DataFrame:
    """Return means and intervals of the scalars, one row per statistic and world."""
    scalars = [k for k, v in draws.items() if set(v.dims) == {"world", "draw"}]
    kept = draws[[*scalars, "parameters"]].isel(draw=np.flatnonzero(~status["failed"]))
    bands = _bands(kept, CI_PROB)
    rows = {
        (str(name), world): {
            b: float(bands[name].sel(world=world, band=b)) for b in bands["band"].values
        }
        for name in scalars
        for world in WORLDS
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index, names=["statistic", "world"])
    table["positive"] = np.nan
    if kept.sizes["draw"]:
        for name in scalars:
            above = kept[name].sel(world="difference") > 0
            table.loc[(str(name), "difference"), "positive"] = float(above.mean())
    return table
