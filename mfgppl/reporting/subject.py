"""What a report is about, and what a section of it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from mfgppl.checks.imperfect_choices import Imperfection
from mfgppl.checks.runaway_crowds import Runaway
from mfgppl.estimation.counted_flow import CountedFlow
from mfgppl.estimation.judgement import NOT_IDENTIFIED
from mfgppl.estimation.point_estimate import PointEstimate
from mfgppl.flows.coupling import CouplingTest
from mfgppl.flows.side_by_side import Treatments
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.plots.predictions import Drawing
from mfgppl.posterior.doubts import COUNTED_FLOW

FOUND, TRUST, CHANGE, SEEN = PARTS = (
    "What was found", "Whether to trust it", "What would change the answer", "What was seen",
)  # fmt: skip

METHODS = {
    "mle": "maximum likelihood",
    "jackknife": "maximum likelihood, corrected by the group jackknife",
    "cross-fit": "maximum likelihood, cross-fitted",
    "nested pseudo-likelihood": "nested pseudo-likelihood",
    "efficient pseudo-likelihood": "efficient pseudo-likelihood",
}  # of point estimates; others are modes of a posterior


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about.

    Attributes
    ----------
    fit : DataTree or PointEstimate
        The fit.
    model : TrajectoryModel or None
        Its model, where at hand.
    against : dict of str to DataTree or PointEstimate
        Fits of other models, to compare with.
    treatments : Treatments or None
        Fits under several treatments of the crowd's flow.
    coupling : CouplingTest or None
        A test of the crowd's terms.
    imperfection : Imperfection or None
        What agents leave on the table.
    runaway : Runaway or None
        Equilibria of the fitted game, draw by draw.
    ci_prob : float
        Mass of an interval.
    random_seed : int
        Of what is drawn for the report.
    groups : str or None
        Clusters of the standard errors; None where they are not clustered.
    record : dict
        What was noted of the fit: audit, priors, program, seeds, versions.
    """

    fit: xr.DataTree | PointEstimate
    model: TrajectoryModel | None
    against: Mapping[str, Any]
    treatments: Treatments | None
    coupling: CouplingTest | None
    imperfection: Imperfection | None
    runaway: Runaway | None
    ci_prob: float
    random_seed: int
    groups: str | None
    record: dict[str, Any]

    @property
    def errors(self) -> dict[str, Any]:
        """The kind of a point's standard errors, as `PointEstimate.cov_params` takes it."""
        return {} if self.groups is None else {"kind": "cluster", "groups": self.groups}

    @property
    def messages(self) -> list[str]:
        """What the fit warned of."""
        if isinstance(self.fit, PointEstimate):
            return list(self.fit.messages)
        return [str(m) for m in self.record.get("warnings", [])]

    @property
    def not_identified(self) -> list[str]:
        """What it warned of that the data do not identify."""
        return [message for message in self.messages if message.startswith(NOT_IDENTIFIED)]

    @property
    def counted_flow(self) -> CountedFlow | None:
        """What it costs that the flow is counted, where that was measured."""
        if isinstance(self.fit, PointEstimate):
            return self.fit.counted_flow
        text = self.record.get(COUNTED_FLOW)
        return None if text is None else CountedFlow.from_json(text)

    @property
    def draws(self) -> xr.DataTree | None:
        """The draws, None of a point."""
        return None if isinstance(self.fit, PointEstimate) else self.fit


@dataclass(frozen=True, eq=False)
class Section:
    """One section.

    Attributes
    ----------
    title : str
        Its heading.
    verdict : str
        One sentence.
    good : bool or None
        Whether it speaks for the fit; None where there is nothing to judge.
    numbers : dict
        What the verdict rests on; plain, for JSON.
    table : DataFrame or None
        Shown below.
    drawings : tuple of (str, callable)
        Captions and functions that draw a matplotlib figure.
    notes : tuple of str
        Small print.
    sentences : tuple of str
        What it found, one finding each.
    short : DataFrame or None
        The part of the table that is shown at once; the table itself is folded then.
    further : tuple of (str, callable)
        Figures that are folded.
    part : str
        The part of the page to which it belongs, one of `PARTS`.
    lead : tuple of str
        Sentences that stand at the head of the page.
    """

    title: str
    verdict: str
    good: bool | None
    numbers: dict[str, Any]
    table: pd.DataFrame | None = None
    drawings: tuple[Drawing, ...] = ()
    notes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    short: pd.DataFrame | None = None
    further: tuple[Drawing, ...] = ()
    part: str = SEEN
    lead: tuple[str, ...] = ()


def lead_of(sections: Sequence[Section]) -> list[str]:
    """Return the sentences that stand at the head of a report."""
    return [sentence for section in sections for sentence in section.lead]


def enumeration(names: Any) -> str:
    """Return names as words: "a, b and c"."""
    names = [str(n) for n in names]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def method_of_point(fit: PointEstimate) -> str:
    """Name what made a point estimate."""
    return METHODS.get(fit.kind, f"posterior mode, {fit.kind}")


def count_of(n: int, word: str) -> str:
    """Return a number of things as words: "1 agent", "1,000 agents"."""
    return f"{n:,} {word}" + "s" * (n != 1)


def as_floats(values: Mapping[Any, Any]) -> dict[str, float]:
    """Return numbers by name, plain."""
    return {str(k): float(v) for k, v in values.items()}
