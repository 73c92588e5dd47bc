"""The section of a report on how much of the answer is the prior."""

from typing import Any

import pandas as pd

from mfgppl.checks.prior_conflict import prior_conflicts
from mfgppl.checks.prior_contraction import contraction
from mfgppl.reporting.subject import Section, Subject, as_floats, enumeration

PRIOR_DRAWS = 1000  # for the prior's variances


def sensitivity(subject: Subject) -> Section | None:
    """How much of the answer is the prior, and whether the data contradict it."""
    if subject.draws is None or subject.model is None:
        return None
    table = contraction(subject.draws, subject.model, prior_draws=PRIOR_DRAWS)
    conflicts = prior_conflicts(subject.draws, subject.model, table)
    driven, unknown = (
        list(table.index[table["verdict"] == verdict]) for verdict in ("prior-driven", "unknown")
    )
    numbers: dict[str, Any] = {
        "contraction": as_floats(table["contraction"].to_dict()),
        "prior-driven": driven,
        "prior against data": list(conflicts.index),
    }
    parts = [_contradiction(str(name), row) for name, row in conflicts.iterrows()]
    if driven:
        parts.append(
            f"The posterior of {enumeration(driven)} is driven by the prior, not by the data."
        )
    elif unknown:
        named = enumeration(unknown)
        parts.append(f"The prior variance of {named} is not known, so nothing can be compared.")
    elif not parts:
        parts.append("No parameter is driven by its prior.")
    against = bool(driven) or len(conflicts) > 0
    good = None if unknown and not against else not against
    notes: tuple[str, ...] = (
        "contraction: share of the prior variance that the data remove; sensitivities: how the "
        "posterior moves where prior or likelihood are raised to a power near 1.",
    )
    if len(conflicts):
        numbers["maximum likelihood"] = as_floats(conflicts["mle"].to_dict())
        numbers["its standard error"] = as_floats(conflicts["std_err"].to_dict())
        table = table.join(conflicts[["posterior_mean", "mle", "std_err"]])
        notes += ("mle, std_err: maximum likelihood estimate and its standard error, where the "
                  "posterior mean is more than two standard deviations away.",)  # fmt: skip
    return Section("Sensitivity to the prior", " ".join(parts), good, numbers, table, (), notes)


def _contradiction(name: str, row: pd.Series) -> str:
    """Put the posterior beside the maximum likelihood estimate."""
    return (
        f"The prior of {name} contradicts the data: its maximum likelihood estimate is "
        f"{row['mle']:.3g} (standard error {row['std_err']:.2g}), its posterior mean "
        f"{row['posterior_mean']:.3g} (standard deviation {row['posterior_sd']:.2g})."
    )
