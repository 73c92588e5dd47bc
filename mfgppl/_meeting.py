"""Who meets whom: from the crowd of all cells to the part of it that the agents of a cell see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.data.space import StateSpace


@dataclass(frozen=True, eq=False)
class Meeting:
    """What the agents of each cell see of the crowd, as weights of the agents of all cells.

    With masses m and flows mu of cells, the exposure of cell c is
    `sum_k w[c, k] m_k mu_k / sum_k w[c, k] m_k`; or `sum_k w[c, k] mu_k` where weights are given
    as an exposure matrix.

    Attributes
    ----------
    weights : Tensor, shape (R, C)
        One row of weights for each exposure that there is.
    row : Tensor of int, shape (C,)
        Which of them each cell has.
    by_mass : bool
        Whether weights multiply masses and the exposure is a distribution.
    """

    weights: Tensor
    row: Tensor
    by_mass: bool = True

    @property
    def everyone(self) -> bool:
        """Whether all see all, each agent the same."""
        return self.by_mass and len(self.weights) == 1 and bool((self.weights == 1).all())

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
        return _mixed(self.weights, self._counted(crowd))

    def seen(self, crowd: Tensor, same: Tensor | None = None) -> Tensor:
        """Return the same by cell, (C, N, M).

        With `same` (C, C), 1 where a cell counts for another and 0 elsewhere, of these alone.
        """
        if same is not None:
            return _mixed(self.weights[self.row] * same, self._counted(crowd))
        rows = self.rows(crowd)
        if len(rows) == 1:
            return rows.expand(len(self.row), *rows.shape[1:])
        return rows if torch.equal(self.row, torch.arange(len(rows))) else rows[self.row]

    def _counted(self, crowd: Tensor) -> Tensor:
        """Return the crowd by cell as the weights count it: by mass, or each cell as one."""
        return crowd if self.by_mass else ratio(crowd, crowd.sum(2, keepdim=True))


def _mixed(weights: Tensor, crowd: Tensor) -> Tensor:
    """Return weighed sums (R, N, M) over the cells of a crowd (N, C, M)."""
    N, C, M = crowd.shape
    by_cell = crowd.permute(1, 0, 2)
    if torch.equal(weights, torch.eye(C, dtype=weights.dtype)):
        return by_cell
    return torch.mm(weights, by_cell.reshape(C, N * M)).reshape(-1, N, M)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, 0 where both are."""
    nothing = whole == 0
    return part / whole.masked_fill(nothing, 1.0)


def meeting_of(meets: Any, space: StateSpace) -> Meeting:
    """Return who meets whom as a game's argument says, else raise.

    Parameters
    ----------
    meets : "everyone", str, list of str, or labelled (C, C) array
        Everyone; those who share a type, or several; or an exposure matrix.
    space : StateSpace
        The types.

    Raises
    ------
    ValueError, TypeError
        If a name is no type, or a matrix does not have the types' labels.
    """
    C = space.n_cells
    one = torch.zeros(C, dtype=torch.int64)
    if isinstance(meets, str) and meets == "everyone" and "everyone" not in space.types:
        return Meeting(torch.ones(1, C, dtype=torch.float64), one)
    names = [meets] if isinstance(meets, str) else meets
    if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
        unknown = [n for n in names if n not in space.types]
        if unknown:
            known = f"the types are {list(space.types)}" if space.types else "there are no types"
            raise ValueError(
                f"`meets` must be 'everyone', a type, several types or an exposure matrix; got "
                f"{unknown[0]!r}, and {known}.{suggestion(unknown[0], ['everyone', *space.types])}"
            )
        codes = dict(zip(space.cells.coordinates, space.cells.codes, strict=True))
        distinct, row = np.unique(np.stack([codes[n] for n in names]), axis=1, return_inverse=True)
        row = row.reshape(-1)
        weights = (row[None] == np.arange(distinct.shape[1])[:, None]).astype(float)
        return Meeting(torch.from_numpy(weights), torch.from_numpy(row.astype(np.int64)))
    matrix = _exposure_matrix(meets, space)
    distinct, row = np.unique(matrix, axis=0, return_inverse=True)
    where = torch.from_numpy(row.reshape(-1).astype(np.int64))
    return Meeting(torch.from_numpy(distinct), where, by_mass=False)


def _exposure_matrix(meets: Any, space: StateSpace) -> np.ndarray:
    """Return an exposure matrix (C, C) in the order of the cells, else raise."""
    cells = space.cells
    if (
        not space.types
        or isinstance(meets, Mapping)
        or not isinstance(meets, (xr.DataArray, pd.DataFrame))
    ):
        raise TypeError(
            "`meets` must be 'everyone', a type, a list of types, or an exposure matrix as a "
            f"DataFrame with the types' labels on both sides; got {type(meets).__name__}."
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
