"""What it costs a fit that its crowd's flow is counted from agents and taken as known."""

import functools
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

TOO_FEW = 0.75  # expected coverage below which a parameter is not to be trusted
# a bias so large, of the corrected value and in standard errors, has terms that no jackknife sees
LARGE, MANY_ERRORS = 0.4, 1.5
FARTHER = 2.0  # times as far as the jackknife moves it, so that this does not see the bias
WIDER = 1.25  # times its standard error that the right one of an estimate is, to be said
MOVED = 1.0  # standard errors by which a cross-fit may move it


@dataclass(frozen=True, eq=False, repr=False)
class CountedFlow:
    """What the counted flow costs each parameter of a plug-in fit, by the group jackknife.

    Agents plan along the flow that they expect, and the panel shows shares counted from those who
    are in it: the expected ones plus noise that is made of the choices to be explained. The
    estimate has a bias of order one over the number of agents, which the fits without one part of
    the agents each reveal.

    Attributes
    ----------
    n_agents : int
        How many agents the flow is counted from.
    per_state : float
        Median number of agents in a state at a time, of those states and times that are visited.
    table : DataFrame
        One row per parameter, in its own units: `estimate`; `bias`, the expected error of the
        estimate; `bias_se`, the same in its standard errors; `coverage`, the share of nominal 90 %
        intervals that are expected to hold the truth; `error`, the standard error of the estimate
        that counts the flow's own and how agents differ; `corrected`, the estimate less its bias;
        `cross_fit`, where one Newton step of the likelihood leads whose parts are each along the
        flow of the rest. NaN where they cannot be measured.
    reason : str
        Why it cannot be measured, "" if it is.

    Notes
    -----
    With theta the estimate and theta_J that of the group jackknife, the plug-in's error is taken as
    normal around theta - theta_J. Its variance is the larger of that by the observed information
    and by clusters, and what the flow's error adds: the jackknife's variance of theta less that of
    the parts' scores along the flow of all.

    Where the flow hardly moves but by chance, the bias does not fall with the number of agents and
    leaving some out does not show it; the cross-fit does. The numbers hold if the agents plan along
    the flow that they expect; where they react to the shares as they are realised, counting the
    whole crowd costs nothing.
    """

    n_agents: int
    per_state: float
    table: pd.DataFrame
    reason: str

    @property
    def untrusted(self) -> list[str]:
        """The parameters whose nominal 90 % intervals are expected to cover too rarely."""
        return list(self.table.index[(self.table["coverage"] < TOO_FEW) | self._saturated])

    @property
    def saturated(self) -> list[str]:
        """Those of them whose bias the jackknife does not see, as the flow is mostly chance."""
        return list(self.table.index[self._saturated])

    @property
    def large(self) -> list[str]:
        """Parameters with a bias of which the jackknife removes only a part."""
        table = self.table
        share = (table["bias"] / table["corrected"]).abs()
        return list(table.index[(share > LARGE) & (table["bias_se"].abs() > MANY_ERRORS)])

    @functools.cached_property
    def _saturated(self) -> pd.Series:
        table = self.table
        se = table["bias"] / table["bias_se"]
        moved = ((table["cross_fit"] - table["estimate"]) / se).abs()
        return (moved > MOVED) & (moved > FARTHER * table["bias_se"].abs())

    @property
    def unmeasured(self) -> list[str]:
        """Parameters that some part of the agents alone determines: their bias is not measured."""
        return list(self.table.index[self.table["bias"].isna() & self.table["cross_fit"].notna()])

    def to_json(self) -> str:
        """Return the record as text, for the attributes of a result."""
        table = {name: column.to_dict() for name, column in self.table.items()}
        plain = {k: {p: v if np.isfinite(v) else None for p, v in c.items()}
                 for k, c in table.items()}  # fmt: skip
        sizes = {"n_agents": self.n_agents, "per_state": self.per_state, "reason": self.reason}
        return json.dumps(sizes | {"table": plain})

    @classmethod
    def from_json(cls, text: str) -> "CountedFlow":
        """Return the record that `to_json` wrote."""
        found = json.loads(text)
        table = pd.DataFrame(found.pop("table")).astype(float)
        return cls(table=table, **found)

    def messages(self) -> tuple[str, ...]:
        """Return what speaks against the fit, or nothing."""
        if self.reason:
            return (
                f"{self._counted()}, and taken as known; what that costs is not measured: "
                f"{self.reason}.",
            )
        untrusted = self.untrusted
        if not untrusted:
            return ()
        biased = "; ".join(self._of(name) for name in untrusted)
        return (
            f"{self._counted()}, and taken as known. If they plan along the flow they expect, the "
            f"maximum likelihood estimates are off: {biased}. See mfgppl.jackknife and "
            "mfgppl.flows.treatments.",
        )

    def __str__(self) -> str:
        if self.messages():
            return self.messages()[0]
        most = self.table["bias_se"].abs().max()
        if np.isnan(most):
            return (
                f"{self._counted()}; what that costs is not measured, as no parameter has a "
                "standard error"
            )
        return (
            f"{self._counted()}: expected to put no parameter off by more than {most:.1f} standard "
            f"errors{self._left_open()}"
        )

    def _left_open(self) -> str:
        names = ", ".join(self.unmeasured)
        return (
            f"; of {names} it is not measured, as some part of the agents alone determines it"
            * (names != "")
        )

    def __repr__(self) -> str:
        return f"{self}\n{self.table.to_string(float_format=lambda v: f'{v:.4g}')}"

    def _of(self, name: str) -> str:
        row = self.table.loc[name]
        if name in self.saturated:
            return (
                f"{name} {row['estimate']:.3g} by a bias that does not fall with the number of "
                "agents, as their flow moves by little but chance (along a flow counted from "
                f"other agents: {row['cross_fit']:.3g})"
            )
        times = row.get("error", np.nan) * abs(row["bias_se"] / row["bias"])
        wider = f", where the right one is {times:.1f} times as large" if times > WIDER else ""
        return (
            f"{name} {row['estimate']:.3g} by about {row['bias']:+.2g} "
            f"({abs(row['bias_se']):.1f} standard errors{wider}; its 90% interval holds the truth "
            f"in about {100 * row['coverage']:.0f}% of panels), corrected {row['corrected']:.3g}"
        )

    def _counted(self) -> str:
        return (
            f"the flow is counted from {self.n_agents} agents, about {self.per_state:.0f} per "
            "state and time"
        )
