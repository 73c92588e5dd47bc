"""What speaks against a result: each doubt is looked for by itself, noted, and warned of."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from mfgppl.density.protocol import LogDensity
from mfgppl.estimation.point import cost_of_counting
from mfgppl.exceptions import ConvergenceWarning, IdentificationWarning
from mfgppl.posterior.convergence import convergence_messages
from mfgppl.posterior.unidentified import unidentified_messages

COUNTED_FLOW = "counted_flow"  # attribute


class Drawn(NamedTuple):
    """A result as doubts look at it.

    Attributes
    ----------
    density : LogDensity
        The log density of its model.
    theta : ndarray, shape (C, N, K)
        Draws by chain, over unconstrained values.
    tree : DataTree
        The result, whose attribute `warnings` holds what is known to speak against it.
    """

    density: LogDensity
    theta: np.ndarray
    tree: xr.DataTree


class Doubt(NamedTuple):
    """Something that may speak against a result.

    Attributes
    ----------
    look : callable
        Returns what speaks against it, in words.
    warns : type of Warning, optional
        Of what kind a warning is; without it, what is found is noted with the result alone.
    """

    look: Callable[[Drawn], Sequence[str]]
    warns: type[Warning] | None


def _of_chains(drawn: Drawn) -> list[str]:
    return convergence_messages(drawn.tree)


def _known(drawn: Drawn) -> list[str]:
    return list(drawn.tree.attrs["warnings"])


def _of_the_prior(drawn: Drawn) -> list[str]:
    return unidentified_messages(drawn.density, drawn.theta)


def _of_the_flow(drawn: Drawn) -> tuple[str, ...]:
    """Write down with a result what its counted flow costs, where it reads one."""
    cost = cost_of_counting(drawn.density.model)
    if cost is None:
        return ()
    drawn.tree.attrs[COUNTED_FLOW] = cost.to_json()
    return cost.messages()


CHAINS = Doubt(_of_chains, ConvergenceWarning)  # chains that disagree, or are too short
KNOWN = Doubt(_known, ConvergenceWarning)  # what the model and its equilibria say
PRIOR = Doubt(_of_the_prior, IdentificationWarning)  # directions of which the prior alone speaks
FLOW = Doubt(_of_the_flow, None)  # what it costs that the flow is counted


class Noted(NamedTuple):
    """What was found to speak against a result, in words, by the kind of its warning."""

    found: dict[type[Warning] | None, list[str]]

    def warn(self, stacklevel: int) -> None:
        """Warn of it, once for each kind."""
        for category, messages in self.found.items():
            if category is not None and messages:
                warnings.warn("\n".join(messages), category, stacklevel=stacklevel)


def note(drawn: Drawn, doubts: Sequence[Doubt]) -> Noted:
    """Look for doubts in turn, and write down in a result's attributes what is found."""
    found: dict[type[Warning] | None, list[str]] = {}
    for doubt in doubts:
        found.setdefault(doubt.warns, []).extend(doubt.look(drawn))
    drawn.tree.attrs["warnings"] = [message for messages in found.values() for message in messages]
    return Noted(found)
