"""A likelihood as a sum of parts, each of which is a law: of some agents, or of some cells."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from mfgppl._kernels.dynamics import Dense
from mfgppl.likelihood.causal import CausalLikelihood
from mfgppl.likelihood.coupled import CoupledLikelihood
from mfgppl.likelihood.energy import EnergyLikelihood
from mfgppl.likelihood.kinds import Histories, KindsLikelihood
from mfgppl.likelihood.stationary_games import StationaryLikelihood

Divisible = CausalLikelihood | KindsLikelihood
Law = Divisible | CoupledLikelihood | EnergyLikelihood | StationaryLikelihood


def parts_of(law: Divisible, n: int) -> list[Divisible]:
    """Return laws, n at most, whose log likelihoods add up to that of a law.

    Agents of unseen kinds are shared out by what they do, in parts of as many decisions; else
    cells are, in parts of as many cells.
    """
    if isinstance(law, KindsLikelihood):
        ends = law.histories.offsets
        places = np.searchsorted(ends, np.linspace(0, ends[-1], n + 1))
        places[0], places[-1] = 0, len(ends) - 1
        return [replace(law, histories=_some(law.histories, *ends)) for ends in _ranges(places)]
    places = np.linspace(0, n_cells(law), n + 1).astype(int)
    return [law.of_cells(*ends) for ends in _ranges(places)]


def n_cells(law: CausalLikelihood) -> int:
    """Return how many cells have sweeps of their own; sparse tables hold all in one."""
    tables = law.kernel_tables
    return len(tables.block) if isinstance(tables, Dense) else 1


def _ranges(places: np.ndarray) -> list[tuple[int, int]]:
    return list(pairwise(np.unique(places).tolist()))


def _some(histories: Histories, first: int, last: int) -> Histories:
    """Return the histories from `first` to before `last`, of agents who are not named."""
    begin, end = histories.offsets[first], histories.offsets[last]
    known = histories.known
    return Histories(
        histories.entry[begin:end],
        histories.offsets[first : last + 1] - begin,
        histories.start[first:last],
        histories.weight[first:last],
        known[first:last] if known.size else known,
        np.zeros(0, dtype=np.int64),
    )


def check_client(client: Any, law: Law, *, samples_agents: bool) -> None:
    """Raise unless a client is one of Dask that is connected, and the law is a sum of parts."""
    _check_connected(client)
    if isinstance(getattr(law, "one", law), CoupledLikelihood):
        raise ValueError(
            "`client` needs a flow that is given: with mean_field='equilibrium' all agents make "
            "up one equilibrium, whose likelihood is no sum over parts of them. Many such fits "
            "run on a cluster by joblib.parallel_config(backend='dask')."
        )
    if samples_agents:
        raise ValueError(
            "`client` shares out a sum over agents; x.agents(sampled=True) makes each agent's "
            "coefficient a parameter of its own: use `with x.agents:`, which sums over nodes."
        )
    if isinstance(law, KindsLikelihood) or (isinstance(law, CausalLikelihood) and n_cells(law) > 1):
        return
    raise ValueError(
        "`client` shares out agents whose kinds are not seen, or the cells of a causal likelihood "
        f"with dense dynamics; got a {type(law).__name__} of one cell and one kind, which costs "
        "the same however many agents there are: leave `client` out."
    )


def _check_connected(client: Any) -> None:
    try:
        from distributed import Client
    except ImportError:
        raise TypeError(
            "`client` must be a distributed.Client, and distributed is not installed: pip install "
            "'mfgppl[cluster]'."
        ) from None
    if not isinstance(client, Client):
        raise TypeError(
            f"`client` must be a distributed.Client; got {type(client).__name__}. "
            "Client(cluster), or Client('tcp://scheduler:8786'), makes one."
        )
    if client.asynchronous:
        raise ValueError("`client` must not be asynchronous; got Client(asynchronous=True).")
    if client.status != "running":
        raise ValueError(
            f"`client` must be connected to its scheduler; its status is {client.status!r}. Build "
            "the model, and fit it, before the client is closed."
        )
