"""The section of a report on what data can identify of the reward, and what these do."""

from typing import Any

import numpy as np
import pandas as pd

from mfgppl.checks.prior_contraction import contraction
from mfgppl.density.curvature import describe_direction
from mfgppl.density.draws import flat_draws
from mfgppl.density.of_model import density_of
from mfgppl.design.identification import Identification, identify
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.reporting.prior_section import PRIOR_DRAWS
from mfgppl.reporting.subject import Section, Subject

RIDGE = 30.0  # times that the worst known direction is known less well than the best


def identification(subject: Subject) -> Section | None:
    """What data can identify of the reward along the flow, and how evenly these do."""
    model = subject.model
    if model is None:
        return None
    identification = identify(model.game, model.reward, parameters=subject.fit,
                     mean_field=None if model.coupled else model.mean_field)  # fmt: skip
    numbers: dict[str, Any] = {
        "directions that data can identify": identification.rank,
        "directions": identification.n_directions,
        "that no data can identify": list(identification.directions.index),
    }
    if not identification.identified:
        return _flat_directions(subject, identification, numbers)
    n = identification.n_directions
    known = (
        "Data can identify the parameter." if n == 1 else f"Data can identify all {n} parameters."
    )
    if subject.draws is not None and (open_ := subject.not_identified):
        gist = f"{known[:-1]}, but this panel does not: {'; '.join(open_)}."
        return Section("Identification", gist, False, numbers)
    worst = _worst_known(_covariance(subject))
    if worst is None:
        return Section("Identification", known, True, numbers)
    name, ratio = worst
    numbers |= {"known worst": name, "times worse than the best": round(ratio, 1)}
    if ratio < RIDGE:
        return Section("Identification", known, True, numbers)
    gist = f"{known[:-1]}, but mostly in combination: {name} is known {ratio:.0f} times worse than "
    gist += "the best known move of the parameters."
    return Section("Identification", gist, False, numbers)


def _flat_directions(
    subject: Subject, identification: Identification, numbers: dict[str, Any]
) -> Section:
    named = "; ".join(str(d) for d in identification.directions.index)
    gist = f"Along this flow no data can identify: {named}."
    tied = False
    if isinstance(subject.fit, PointEstimate) and subject.fit.kind != "mle":
        involved = (identification.directions != 0).any()
        tied = bool(subject.fit.bse[involved[involved].index].notna().all())
        if tied:
            gist = (
                f"The likelihood alone does not identify: {named}; the prior ties it to the data."
            )
    if subject.draws is not None and subject.model is not None:
        table = contraction(subject.draws, subject.model, prior_draws=PRIOR_DRAWS)
        involved = (identification.directions != 0).any()
        tied = bool((table.loc[involved[involved].index, "verdict"] == "data-driven").all())
        tied = tied and not subject.not_identified
        if tied:
            gist = (
                f"The likelihood alone does not identify: {named}; the prior ties it to the data."
            )
        else:
            gist += " What the posterior says of it is the prior."
    return Section("Identification", gist, tied, numbers)


def _covariance(subject: Subject) -> pd.DataFrame:
    """Return the covariance of the parameters that have one."""
    if isinstance(subject.fit, PointEstimate):
        covariance = subject.fit.cov_params()
        known = covariance.index[np.isfinite(np.diag(covariance))]
        return covariance.loc[known, known]
    if subject.draws is None or subject.model is None:
        return pd.DataFrame()
    program = density_of(subject.model).program
    flat = flat_draws(program, subject.draws)
    names = program.entry_names()
    if flat.shape[0] * flat.shape[1] < 2:
        return pd.DataFrame()
    table = np.atleast_2d(np.cov(flat.reshape(-1, len(names)).T))
    return pd.DataFrame(table, names, names)


def _worst_known(covariance: pd.DataFrame) -> tuple[str, float] | None:
    """Name the move of the parameters that is known worst, and by how much."""
    spread = np.sqrt(np.diag(covariance))
    if len(spread) < 2 or (spread <= 0).any():
        return None
    information = np.linalg.pinv(covariance / np.outer(spread, spread))
    scale = np.sqrt(np.diag(information))
    eigenvalues, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    if eigenvalues[0] <= 0:
        return None
    move = vectors[:, 0] / scale * spread
    ratio = float(np.sqrt(eigenvalues[-1] / eigenvalues[0]))
    return describe_direction(move, list(covariance.index)), ratio
