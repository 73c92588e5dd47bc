"""Arguments that differ by type: a mapping by label, or a labelled array; each cell gets its own.

A cell is one combination of types. A bare array never carries types: it serves all cells.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.data.labelled import as_data_array
from mfgppl.data.space import StateSpace, plain_label
from mfgppl.data.transitions import TransitionEstimate


def by_cell(name: str, value: Any, space: StateSpace) -> list[Any] | None:
    """Return an argument's value for each cell; None where one value serves all.

    Parameters
    ----------
    name : str
        What the caller calls it.
    value : object
        A mapping from the labels of a type, in which other types may be nested, or from tuples of
        the labels of all types; a DataArray, a pandas object with named axes or a
        TransitionEstimate with a type among its dims; or anything else, which serves all cells.
    space : StateSpace
        The types and their labels.

    Raises
    ------
    ValueError
        If labels are missing or unknown.
    """
    if not space.types:
        if isinstance(value, Mapping):
            raise ValueError(
                f"`{name}` is given by {list(value)}, and the game has no types; declare them, as "
                'in types={"size": ["small", "large"]}.'
            )
        return None
    if not isinstance(value, Mapping) and not _type_dims(value, space):
        return None
    cells = space.cells
    names, codes = list(cells.coordinates), cells.codes.T
    labels = [
        {k: cells.coordinates[k][c] for k, c in zip(names, row, strict=True)} for row in codes
    ]
    return [_of_cell(name, value, own, cells) for own in labels]


def _of_cell(name: str, value: Any, own: dict[str, Any], cells: StateSpace) -> Any:
    """Return what a value holds for a cell, whose labels by type are given."""
    while isinstance(value, Mapping):
        value = value[_key(name, value, own, cells)]
    if not _type_dims(value, cells):
        return value
    if isinstance(value, TransitionEstimate):
        parts = {
            k: _selected(name, part, own, cells)
            for k, part in value._asdict().items()
            if isinstance(part, xr.DataArray)
        }
        return value._replace(**parts)
    return _selected(name, value, own, cells)


def _key(name: str, value: Mapping[Any, Any], own: dict[str, Any], cells: StateSpace) -> Any:
    """Return under which key of a mapping by label a cell stands."""
    keys = {plain_label(k) if not isinstance(k, tuple) else k: k for k in value}
    fits = [k for k, labels in cells.coordinates.items() if set(keys) == set(labels)]
    if len(fits) > 1:
        raise ValueError(
            f"`{name}` is given by {list(value)}, which are labels of {' and of '.join(fits)}; "
            "give a DataArray, whose dims say which."
        )
    if fits:
        return keys[own[fits[0]]]
    if tuple(own.values()) in keys and len(keys) == cells.size:
        return keys[tuple(own.values())]
    known = {k: list(v) for k, v in cells.coordinates.items()}
    flat = [label for labels in known.values() for label in labels]
    strange = [k for k in keys if k not in flat and not isinstance(k, tuple)]
    hint = suggestion(strange[0], flat) if strange else ""
    raise ValueError(
        f"`{name}` must have a value for each label of one type (the others nested in it), or for "
        f"each tuple of labels; the types are {known}; got the keys {list(value)}.{hint}"
    )


def _type_dims(value: Any, space: StateSpace) -> list[str]:
    """Return the types that are among the axes of a labelled value."""
    if isinstance(value, TransitionEstimate):
        value = value.probabilities
    if isinstance(value, xr.DataArray):
        names: list[Any] = list(value.dims)
    elif isinstance(value, (pd.Series, pd.DataFrame)):
        names = [n for axis in value.axes for n in axis.names]
    else:
        return []
    return [n for n in names if n in space.types]


def _selected(name: str, value: Any, own: dict[str, Any], cells: StateSpace) -> Any:
    """Return the part of a labelled array at a cell's labels."""
    array = value if isinstance(value, xr.DataArray) else as_data_array(value)
    where = {}
    for dim in _type_dims(value, cells):
        known = list(cells.coordinates[dim])
        if dim in array.coords:
            known = [plain_label(v) for v in array[dim].values.tolist()]
        elif array.sizes[dim] != len(known):
            raise ValueError(
                f"`{name}` has {array.sizes[dim]} entries along {dim!r}; the game has {known}."
            )
        label = own[dim]
        if label not in known:
            known, label = [str(v) for v in known], str(label)
        if label not in known:
            raise ValueError(f"`{name}` lacks {own[dim]!r} along {dim!r}; it has {known[:10]}.")
        where[dim] = known.index(label)
    return array.isel(where, drop=True)


def stacked(tables: Sequence[Tensor]) -> Tensor:
    """Return tables of transitions by cell in one tensor.

    Parameters
    ----------
    tables : list of Tensor, shape (S, A, S) or (T-1, S, A, S) each
        Dense or sparse COO.

    Returns
    -------
    Tensor
        Shape (C, S, A, S) or (T-1, C, S, A, S) where all are dense; a view of one table where all
        cells share it. If any is sparse, the block diagonal one over stacked states, sparse COO,
        of shape (C * S, A, C * S), or led by T-1.
    """
    n_steps = max((len(t) for t in tables if t.ndim == 4), default=0)
    if n_steps:
        whole = [t if t.ndim == 4 else torch.stack([t] * n_steps) for t in tables]
    else:
        whole = list(tables)
    if any(t.layout != torch.strided for t in whole):
        return _block_diagonal([t if t.is_sparse else t.to_sparse() for t in whole])
    axis = 1 if n_steps else 0
    if all(t is tables[0] for t in tables):
        shape = list(whole[0].shape)
        return whole[0].unsqueeze(axis).expand(*shape[:axis], len(tables), *shape[axis:])
    return torch.stack(whole, axis)


def along_steps(tables: Sequence[Tensor], n_cells: int, shape: tuple[int, ...]) -> Tensor:
    """Return the tables of T-1 steps, each as a game has it at one time, in one tensor.

    What cells share at each step they share in the result, a view.

    Parameters
    ----------
    tables : list of Tensor, shape (S, A, S) or (C, S, A, S) each
        Dense or sparse COO; possibly none.
    n_cells : int
        Number of cells C.
    shape : tuple of int
        (S, A, S).
    """
    lead = (n_cells,) if n_cells > 1 else ()
    if not tables:
        return torch.zeros(0, *lead, *shape, dtype=torch.float64)
    shared = bool(lead) and all(t.layout == torch.strided and t.stride(0) == 0 for t in tables)
    if not shared:
        return torch.stack(list(tables))
    once = torch.stack([t[0] for t in tables])
    return once[:, None].expand(len(once), n_cells, *once.shape[1:])


def _block_diagonal(tables: Sequence[Tensor]) -> Tensor:
    """Return sparse tables as one over stacked states."""
    entries = [t.coalesce() for t in tables]
    *lead, S, A, _ = entries[0].shape
    shift = torch.zeros(len(lead) + 3, 1, dtype=torch.int64)
    shift[[-3, -1]] = S
    where = torch.cat([t.indices() + c * shift for c, t in enumerate(entries)], 1)
    values = torch.cat([t.values() for t in entries])
    size = len(tables) * S
    table = torch.sparse_coo_tensor(where, values, (*lead, size, A, size), check_invariants=False)
    return table.coalesce()
