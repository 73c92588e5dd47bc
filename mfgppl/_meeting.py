"""Who meets whom: from the crowd of all cells to the part of it that the agents of a cell see."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.data.space import StateSpace
from mfgppl.network import Network

DENSE_UP_TO = 40_000  # entries of a table of weights that is kept whole however empty it is
FILLED = 0.25  # share of entries that are not zero, from which it is kept whole at any size
IN_STEPS = 5_000_000  # numbers along links up to which a sum is made of steps that can be recorded


class Links(NamedTuple):
    """Weights that are not zero: who sees whom.

    Attributes
    ----------
    row : Tensor of int, shape (L,)
        Which exposure.
    cell : Tensor of int, shape (L,)
        Which cell it sees.
    edge : Tensor of int, shape (L,)
        Which edge of the network says so: one between groups of cells is several links.
    """

    row: Tensor
    cell: Tensor
    edge: Tensor


@dataclass(frozen=True, eq=False)
class Meeting:
    """What the agents of each cell see of the crowd, as weights of the agents of all cells.

    With masses m and flows mu of cells, the exposure of cell c is
    `sum_k w[c, k] m_k mu_k / sum_k w[c, k] m_k`; without the denominator where it is not
    normalised; or `sum_k w[c, k] mu_k` where weights are given as an exposure matrix.

    Attributes
    ----------
    weights : Tensor, shape (R, C) or (L,)
        One row of weights for each exposure that there is; or weights of links, the others zero.
    row : Tensor of int, shape (C,)
        Which exposure each cell has.
    by_mass : bool
        Whether weights multiply masses.
    normalised : bool
        Whether the exposure is a distribution, whatever the weights sum to.
    links : Links or None
        Between which cells there are weights, of a network.
    network : Network or None
        The network that it comes from.
    estimated : bool
        Whether weights may depend on parameters.
    """

    weights: Tensor
    row: Tensor
    by_mass: bool = True
    normalised: bool = True
    links: Links | None = None
    network: Network | None = None
    estimated: bool = False

    @property
    def everyone(self) -> bool:
        """Whether all see all, each agent the same."""
        if self.weights.ndim == 1 or len(self.weights) > 1 or self.estimated:
            return False
        if not self.normalised:
            return False
        return bool((self.weights == 1).all())

    @property
    def own(self) -> bool:
        """Whether each cell sees itself alone."""
        if self.weights.ndim == 1 or self.estimated:
            return False
        return torch.equal(self.weights, torch.eye(len(self.row), dtype=self.weights.dtype))

    @property
    def matrix(self) -> Any:
        """The weights (R, C) as an array, or as a sparse one where links are few."""
        if self.weights.ndim == 2:
            return self.weights.numpy()
        assert self.links is not None
        where = self.links.row.numpy(), self.links.cell.numpy()
        shape = self._n_rows, len(self.row)
        return scipy.sparse.csr_array((self.weights.numpy(), where), shape=shape)

    def rows(self, crowd: Tensor) -> Tensor:
        """Return, for each exposure that there is, sums over the cells of what those met have.

        Parameters
        ----------
        crowd : Tensor, shape (N, C, M)
            Shares of the crowd by cell, M numbers of each cell at N times.

        Returns
        -------
        Tensor, shape (R, N, M)
            Not divided by the mass of those met.
        """
        if self.everyone:
            return crowd.sum(1)[None]
        counted = self._counted(crowd)
        if self.own:
            return counted.permute(1, 0, 2)
        if self.weights.ndim == 2:
            return _mixed(self.weights, counted)
        assert self.links is not None
        return _along(self.links.row, self.links.cell, self.weights, counted, self._n_rows)

    def seen(self, crowd: Tensor, alike: Tensor | None = None) -> Tensor:
        """Return the same by cell, (C, N, M).

        With `alike` (C,), a code of each cell, of the cells that have one's own code alone.
        """
        if alike is not None:
            return self._seen_alike(self._counted(crowd), alike)
        return self.by_cell(self.rows(crowd))

    def by_cell(self, rows: Tensor) -> Tensor:
        """Return what is of each exposure (R, ...) as each cell has it, (C, ...)."""
        if len(rows) == 1:
            return rows.expand(len(self.row), *rows.shape[1:])
        return rows if torch.equal(self.row, torch.arange(len(rows))) else rows[self.row]

    def weighted(self, weights: Tensor) -> "Meeting":
        """Return the same with the weight of each edge (E,) multiplied by another."""
        assert self.links is not None
        row, cell, edge = self.links
        if self.weights.ndim == 1:
            return replace(self, weights=self.weights * weights[edge], estimated=True)
        values = self.weights[row, cell] * weights[edge]
        table = torch.zeros_like(self.weights).index_put((row, cell), values)
        return replace(self, weights=table, estimated=True)

    @property
    def _n_rows(self) -> int:
        return int(self.row.max()) + 1

    def _seen_alike(self, counted: Tensor, alike: Tensor) -> Tensor:
        if self.weights.ndim == 2:
            same = (alike[:, None] == alike[None]).to(self.weights.dtype)
            return _mixed(self.weights[self.row] * same, counted)
        assert self.links is not None
        members = [torch.nonzero(self.row == r).reshape(-1) for r in range(self._n_rows)]
        own = torch.cat([members[r] for r in self.links.row.tolist()])
        repeats = torch.tensor([len(members[r]) for r in self.links.row.tolist()])
        cell = self.links.cell.repeat_interleave(repeats)
        weights = self.weights.repeat_interleave(repeats) * (alike[own] == alike[cell])
        return _along(own, cell, weights, counted, len(self.row))

    def _counted(self, crowd: Tensor) -> Tensor:
        """Return the crowd by cell as the weights count it: by mass, or each cell as one."""
        return crowd if self.by_mass else ratio(crowd, crowd.sum(2, keepdim=True))


def _mixed(weights: Tensor, crowd: Tensor) -> Tensor:
    """Return weighed sums (R, N, M) over the cells of a crowd (N, C, M)."""
    N, C, M = crowd.shape
    by_cell = crowd.permute(1, 0, 2).reshape(C, N * M)
    return torch.mm(weights, by_cell).reshape(-1, N, M)


def _along(row: Tensor, cell: Tensor, weights: Tensor, crowd: Tensor, n_rows: int) -> Tensor:
    """Return the same along links (L,), whose others are zero."""
    N, C, M = crowd.shape
    by_cell = crowd.permute(1, 0, 2).reshape(C, N * M)
    if len(row) * N * M > IN_STEPS:
        where = torch.stack([row, cell])
        table = torch.sparse_coo_tensor(where, weights, (n_rows, C), check_invariants=False)
        return torch.sparse.mm(table, by_cell).reshape(-1, N, M)
    parts = by_cell.index_select(0, cell) * weights[:, None]
    total = torch.zeros(n_rows, N * M, dtype=crowd.dtype).index_add(0, row, parts)
    return total.reshape(-1, N, M)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where both are."""
    nothing = whole == 0
    return part / whole.masked_fill(nothing, 1.0)


def meeting_of(meets: Any, space: StateSpace) -> Meeting:
    """Return who meets whom as a game's argument says, else raise.

    Parameters
    ----------
    meets : "everyone", str, list of str, Network or labelled (C, C) array
        Everyone; those who share a type, or several; neighbours; or an exposure matrix.
    space : StateSpace
        The types.

    Raises
    ------
    ValueError, TypeError
        If a name is no type, or a matrix does not have the types' labels.
    DataError
        If a network does not fit the types.
    """
    C = space.n_cells
    if isinstance(meets, Network):
        return _neighbours(meets, space)
    if isinstance(meets, str) and meets == "everyone" and "everyone" not in space.types:
        one = torch.zeros(C, dtype=torch.int64)
        return Meeting(torch.ones(1, C, dtype=torch.float64), one)
    names = [meets] if isinstance(meets, str) else meets
    if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
        unknown = [n for n in names if n not in space.types]
        if unknown:
            known = f"the types are {list(space.types)}" if space.types else "there are no types"
            raise ValueError(
                f"`meets` must be 'everyone', a type, several types, a Network or an exposure "
                f"matrix; got {unknown[0]!r}, and {known}."
                f"{suggestion(unknown[0], ['everyone', *space.types])}"
            )
        codes = dict(zip(space.cells.coordinates, space.cells.codes, strict=True))
        distinct, row = np.unique(np.stack([codes[n] for n in names]), axis=1, return_inverse=True)
        row = row.reshape(-1)
        weights = (row[None] == np.arange(distinct.shape[1])[:, None]).astype(float)
        return Meeting(torch.from_numpy(weights), torch.from_numpy(row.astype(np.int64)))
    matrix = _exposure_matrix(meets, space)
    distinct, row = np.unique(matrix, axis=0, return_inverse=True)
    where = torch.from_numpy(row.reshape(-1).astype(np.int64))
    return Meeting(torch.from_numpy(distinct), where, by_mass=False, normalised=False)


def _neighbours(network: Network, space: StateSpace) -> Meeting:
    """Return the meetings of a network over types, of which cells with other types besides."""
    code, source, target = network.matched(space)
    n_groups = int(code.max()) + 1
    in_group = np.argsort(code, kind="stable")
    size = np.bincount(code, minlength=n_groups)
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    edge = np.repeat(np.arange(len(source)), size[target])
    nth = np.arange(len(edge)) - np.repeat(np.cumsum(size[target]) - size[target], size[target])
    cell = in_group[first[target[edge]] + nth]
    row = source[edge]
    values = network.weight[edge]
    entries = n_groups * len(code)
    whole = entries <= DENSE_UP_TO or len(edge) >= FILLED * entries
    weights = torch.from_numpy(values.copy())
    links = Links(*(torch.from_numpy(v.astype(np.int64)) for v in (row, cell, edge)))
    if whole:
        table = torch.zeros(n_groups, len(code), dtype=torch.float64)
        table[links.row, links.cell] = weights
        weights = table
    rows = torch.from_numpy(code.astype(np.int64))
    normalised = network.normalise == "rows"
    named = network.placed(space)
    return Meeting(weights, rows, normalised=normalised, links=links, network=named)


def _exposure_matrix(meets: Any, space: StateSpace) -> np.ndarray:
    """Return an exposure matrix (C, C) in the order of the cells, else raise."""
    cells = space.cells
    if (
        not space.types
        or isinstance(meets, Mapping)
        or not isinstance(meets, (xr.DataArray, pd.DataFrame))
        or (isinstance(meets, pd.DataFrame) and {"from", "to"} <= set(meets.columns))
    ):
        raise TypeError(
            "`meets` must be 'everyone', a type, a list of types, a Network, or an exposure matrix "
            f"as a DataFrame with the types' labels on both sides; got {type(meets).__name__}. "
            "Edges and graphs are taken as mfgppl.Network(...)."
        )
    frame = pd.DataFrame(meets if isinstance(meets, pd.DataFrame) else meets.to_pandas())
    labels = list(cells.labels)
    texts = [str(v) for v in labels]
    sides = [
        [", ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in axis]
        for axis in frame.axes
    ]
    for side in sides:
        wrong = sorted(set(texts) ^ set(side))
        if wrong or len(side) != len(texts):
            raise ValueError(
                f"`meets` must have the types' labels {texts} on both sides, each once; "
                f"got {side[:10]}."
            )
    where = [[side.index(t) for t in texts] for side in sides]
    matrix = frame.to_numpy(dtype=float)[np.ix_(*where)]
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ValueError("`meets` must hold numbers that are finite and not negative.")
    return np.ascontiguousarray(matrix)
