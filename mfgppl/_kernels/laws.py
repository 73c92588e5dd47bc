"""Likelihoods as the arrays that kernels read, each with a workspace of its own."""

import numpy as np

from mfgppl._kernels import stationary
from mfgppl._kernels.density import Causal, Energy, Kinds, Stationary
from mfgppl._kernels.dynamics import Dense, Tables, parts_of


def causal_law(
    tables: Tables,
    counts: np.ndarray,
    *,
    discount: float,
    temperature: float,
    cells: tuple[int, int] | None = None,
) -> Causal:
    """Return the causal likelihood as arrays, with a workspace; of some cells, or of all."""
    shape = counts.shape
    constants = np.array([discount, temperature, 0.0])
    counts, visits = np.ascontiguousarray(counts), counts.sum(-1)
    values, gradient = np.empty(shape[:2]), np.zeros(shape)
    return Causal(tables, constants, counts, visits, values, gradient, parts_of(tables, cells))


def stationary_law(
    tables: Tables, counts: np.ndarray, *, discount: float, temperature: float
) -> Stationary:
    """Return the causal likelihood without a horizon as arrays, with a workspace of its own.

    Parameters
    ----------
    tables : Tables
        The dynamics.
    counts : ndarray, shape (1, S, A)
        Of the actions. The search for values begins at the policy that they show.
    discount, temperature : float
        The game's constants.
    """
    _, S, A = counts.shape
    visits = counts.sum(-1)
    seen = ((counts + 1.0 / A) / (visits + 1.0)[..., None]).reshape(-1)
    n_cells = len(tables.block) if isinstance(tables, Dense) else 1
    of_seen = np.empty((n_cells, S // n_cells, S // n_cells))
    stationary.factor_seen(tables, seen, discount, of_seen)
    constants = np.array([discount, temperature, 0.0])
    fixed = tables, constants, np.ascontiguousarray(counts), seen, of_seen
    return Stationary(*fixed, *_stationary_workspace(counts.shape, of_seen))


def alike(law: Stationary) -> Stationary:
    """Return the same law with a workspace of its own."""
    return Stationary(*law[:5], *_stationary_workspace(law.counts.shape, law.of_seen))


def _stationary_workspace(shape: tuple[int, ...], of_seen: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return arrays for a policy, its log, factors, whether made (0 or 1), and a gradient."""
    made = np.zeros(len(of_seen), dtype=np.int64)
    return np.empty(shape), np.empty(shape), np.empty_like(of_seen), made, np.empty(shape)


def energy_law(
    tables: Tables,
    counts: np.ndarray,
    *,
    starts: np.ndarray,
    ends_seen: np.ndarray,
    ends_unseen: np.ndarray,
    entry: np.ndarray,
    n_groups: int,
    temperature: float,
) -> Energy:
    """Return the energy likelihood as arrays, with a workspace of its own."""
    shape = counts.shape
    tidy = np.ascontiguousarray
    return Energy(
        tables=tables,
        constants=np.array([1.0, temperature, float(n_groups)]),
        counts=tidy(counts),
        starts=tidy(starts),
        ends_seen=tidy(ends_seen),
        ends_unseen=tidy(ends_unseen),
        entry=tidy(entry),
        log_partition=np.empty(shape[:2]),
        log_next=np.empty(shape),
        log_policy=np.empty(shape),
        gradient=np.empty(shape),
    )


def kinds_law(
    tables: Tables,
    histories: tuple[np.ndarray, ...],
    shape: tuple[int, ...],
    *,
    discount: float,
    temperature: float,
) -> Kinds:
    """Return the likelihood of agents whose kind is not seen as arrays, with a workspace.

    Parameters
    ----------
    tables : Tables
        The dynamics.
    histories : tuple of ndarray
        Entries, offsets, first states, numbers and what is known of each history; pairs of entries
        that stand for two; and what is counted at each entry.
    shape : tuple of int
        (N, T, S, A).
    discount, temperature : float
        The game's constants.
    """
    N, T, S, A = shape
    _, _, start, _, _, pairs, _ = histories
    rows = T * S * A
    all_rows = rows + len(pairs)
    constants = np.array([discount, temperature, 0.0])
    workspace = (
        np.empty(shape), np.empty(rows), np.empty((all_rows, N - 1)), np.empty((start.size, N)),
        np.empty((all_rows, N - 1)), np.empty((1, 1, N * (rows + S))),
    )  # fmt: skip
    return Kinds._make((tables, constants, *histories, *workspace))
