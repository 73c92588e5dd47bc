"""The section of a report on what agents of each type do."""

import numpy as np

from mfgppl.checks.standardised_residuals import residuals
from mfgppl.plots.types import plot_types
from mfgppl.reporting.subject import Section, Subject

UNLIKELY = 0.01  # tail of the chi-squared law of a type, over the number of types


def types(subject: Subject) -> Section | None:
    """Which types do other than the fit expects."""
    model = subject.model
    if model is None or not model.game.space.types:
        return None
    found = residuals(model, subject.fit)
    assert found.by_type is not None
    table = found.by_type.copy()
    table.insert(0, "share", table["visits"] / table["visits"].sum())
    seen = table["visits"] > 0
    odd = table.index[table["p"] < UNLIKELY / max(int(seen.sum()), 1)]
    names = ", ".join(map(str, odd[:5])) + (", ..." if len(odd) > 5 else "")
    n = int(seen.sum())
    if len(odd):
        gist = f"{len(odd)} of {n} types choose otherwise than the fit expects: {names}."
    else:
        gist = f"The choices of all {n} types are as the fit expects."
    numbers = {"types": n, "types that choose otherwise": len(odd)}
    shown = table[seen].rename(columns={"visits": "decisions"})
    shown["p"] = np.round(shown["p"], 4)
    drawing = (
        "Shares of actions over time by type: observed (dots) and expected (lines)",
        lambda: plot_types(found),
    )
    notes = ("chi2: squared residuals summed over times, states and actions; df: its mean under "
             "the fit; share: of all decisions.",)  # fmt: skip
    return Section("Agents of each type", gist, not len(odd), numbers, shown, (drawing,), notes)
