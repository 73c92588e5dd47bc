"""The section of a report on agents whose kinds are not seen."""

from typing import Any

from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.kinds.description import CERTAIN, describe
from mfgppl.plots.kinds_and_policies import plot_kinds
from mfgppl.reporting.subject import Section, Subject

FEW = 0.5  # share of agents below two nodes beyond which nodes are too few


def kinds(subject: Subject) -> Section | None:
    """Who is of which kind, and what they do."""
    model = subject.model
    if model is None or model.nodes is None:
        return None
    found = describe(model, subject.fit)
    if found.kinds is None:
        assert found.coefficients is not None
        few = found.coefficients["few"].max()
        names = ", ".join(map(str, found.coefficients.index))
        gist = f"Agents differ in {names}, which nobody sees; nodes of a quadrature stand for it."
        if few > FEW:
            gist += f" For {100 * few:.0f}% of the agents they are too few."
        named = {"coefficients": list(map(str, found.coefficients.index))}
        return Section("Who is who?", gist, few <= FEW, named, found.coefficients)
    table = found.kinds
    total = float(table["agents"].sum())
    parts = [f"{100 * n / total:.0f}% are of kind {k}" for k, n in table["agents"].items()]
    certain = float(table["certain"].sum()) / total
    gist = (
        f"Of {total:.0f} agents, {', '.join(parts)}; {100 * certain:.0f}% have a kind with a "
        f"probability above {CERTAIN:g}."
    )
    good: bool | None = None
    numbers: dict[str, Any] = {"agents by kind": table["agents"].tolist(), "certain": certain}
    if isinstance(subject.fit, PointEstimate):
        n = len(subject.fit.attained)
        if n == 1:
            gist += " The fit began at one point, and a mixture has several maxima: give restarts."
            good = False
    drawing = ("Shares of actions of agents of each kind", lambda: plot_kinds(found))
    notes = (
        "agents: expected number; certain: agents who have the kind with a probability above "
        f"{CERTAIN:g}; moves: changes of action of an agent.",
    )
    return Section("Who is who?", gist, good, numbers, table, (drawing,), notes)
