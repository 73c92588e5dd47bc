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


class Draws(NamedTuple):
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
        Returns what speaks against it, in words; it may note in the attributes what it measured.
    warns : type of Warning, optional
        Of what kind a warning is; without it, what is found is noted with the result alone.
    """

    look: Callable[[Draws], Sequence[str]]
    warns: type[Warning] | None = None


def _of_chains(draws: Draws) -> list[str]:
    return convergence_messages(draws.tree)


def _known(draws: Draws) -> list[str]:
    return list(draws.tree.attrs["warnings"])


def _of_the_prior(draws: Draws) -> list[str]:
    return unidentified_messages(draws.density, draws.theta)


def _of_the_flow(draws: Draws) -> tuple[str, ...]:
    """Write down with a result what its counted flow costs, where it reads one."""
    cost = cost_of_counting(draws.density.model)
    if cost is None:
        return ()
    draws.tree.attrs[COUNTED_FLOW] = cost.to_json()
    return cost.messages()


# chains that disagree, or are too short
CHAINS = Doubt(_of_chains, ConvergenceWarning)
# what the model and its equilibria say
KNOWN = Doubt(_known, ConvergenceWarning)
# directions of which the prior alone speaks
UNIDENTIFIED = Doubt(_of_the_prior, IdentificationWarning)
# what it costs that the flow is counted
FLOW = Doubt(_of_the_flow)


class Noted(NamedTuple):
    """What was found to speak against a result, in words, by the kind of its warning."""

    found: dict[type[Warning] | None, list[str]]

    def warn(self, stacklevel: int) -> None:
        """Warn of it, once for each kind."""
        for category, messages in self.found.items():
            if category is not None and messages:
                warnings.warn("\n".join(messages), category, stacklevel=stacklevel)


def note(draws: Draws, doubts: Sequence[Doubt]) -> Noted:
    """Look for doubts in turn, and write down in a result's attributes what is found.

    It takes the place of what was known, which `KNOWN` repeats.
    """
    found: dict[type[Warning] | None, list[str]] = {}
    for doubt in doubts:
        found.setdefault(doubt.warns, []).extend(doubt.look(draws))
    draws.tree.attrs["warnings"] = [message for messages in found.values() for message in messages]
    return Noted(found)
