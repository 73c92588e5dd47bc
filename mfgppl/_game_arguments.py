"""What a game may be made of: checks of its arguments, which return tensors in its order."""

import keyword
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import one_of, positive_int, real_between, suggestion
from mfgppl._arrays import as_numbers, is_labelled
from mfgppl._by_type import by_cell, stacked
from mfgppl.data.labelled import Order, in_order, named_axes
from mfgppl.data.space import StateSpace
from mfgppl.data.transitions import TransitionEstimate

# what the inputs of a reward program are called whatever the game
RESERVED = (
    "action", "agents", "among", "crowd", "density", "everyone", "expect", "first_state", "game",
    "mean_field", "neighbours", "occupancy", "shape", "share", "state", "time", "type", "within",
)  # fmt: skip
ROW_SUM = 1e-8  # how far the rows of a distribution may be from 1
AXES = ("time", "state", "action")
TABLE = ("state", "action", "next_state")


def check_names(space: StateSpace, features: Mapping[str, Any], *, periods: bool = False) -> None:
    """Raise a `ValueError` where reward programs could not read coordinates and features."""
    for name in [*space.coordinates, *features]:
        if periods and name == "period":
            raise ValueError(
                "'period' is an input of reward programs where `horizon` gives labels of times; "
                "rename the coordinate or feature, or give a number as `horizon`."
            )
        alone = name == "state" and list(space.within.coordinates) == ["state"]
        if name in RESERVED and not (alone and name not in features):
            raise ValueError(
                f"{name!r} is an input of every reward program; rename the coordinate or "
                f"feature. Reserved: {', '.join(RESERVED)}."
            )
        if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
            raise ValueError(
                f"{name!r} must be a plain Python name: reward programs read `x.{name}`."
            )
    clash = sorted(set(space.coordinates) & set(features))
    if clash:
        raise ValueError(f"`features` names {clash[0]!r}, which is a state coordinate already.")


def initial_distribution(order: Order, initial: Any) -> Tensor:
    """Return the distribution of the first state over stacked states (C * S,), else raise."""
    space, hint = order.space, "(S,)"
    if space.types:
        hint = "(C * S,), over types and states, types leading,"
        if isinstance(initial, Mapping):
            each = by_cell("initial", initial, space) or []
            within = Order(space.within, order.actions)
            parts = [in_order("initial", v, ("state",), within) for v in each]
            shape = (space.within.size,)
            initial = torch.cat([probabilities("initial", v, shape, "(S,)") for v in parts])
    initial = in_order("initial", initial, ("state",), order)
    array = probabilities("initial", initial, (space.size,), hint)
    if not torch.isclose(array.sum(), torch.ones((), dtype=array.dtype), rtol=0, atol=ROW_SUM):
        raise ValueError(f"`initial` must sum to 1; it sums to {array.sum():.6g}.")
    return array


def transition_by_cell(
    space: StateSpace, actions: tuple[Any, ...], transition: Any, **steps: Any
) -> Any:
    """Return a game's dynamics, of all agents or by type, else raise.

    Parameters
    ----------
    space : StateSpace
        Types and states.
    actions : tuple
        Action labels.
    transition : object
        As of `MeanFieldGame`.
    **steps
        Of `transition_tables`.

    Returns
    -------
    Tensor or list
        Tables as `transition_tables` returns them, of several cells as `stacked` does; or, where
        the crowd moves the dynamics, a function, or a list of a function or tables for each cell.
    """
    order = Order(space.within, actions)

    def tables(value: Any) -> Any:
        return value if callable(value) else transition_tables(order, value, **steps)

    each = by_cell("transition", transition, space)
    if each is None:
        one = tables(transition)
        parts = [one] * space.n_cells
    else:
        known = {id(v): v for v in each}  # read once where cells share a value
        made = {k: tables(v) for k, v in known.items()}
        parts = [made[id(v)] for v in each]
    if space.n_cells == 1:
        return parts[0]
    return parts if any(map(callable, parts)) else stacked(parts)


def table_shape(order: Order) -> tuple[int, int, int]:
    """Return the shape (S, A, S) of a table of transitions."""
    return order.space.size, len(order.actions), order.space.size


def transition_tables(order: Order, transition: Any, *, n_steps: int, stationary: bool) -> Tensor:
    """Return a transition that no crowd moves, one table or one for each of T-1 steps, else raise.

    Or for T steps, with the move after the last decision. Sparse matrices become sparse COO
    tensors.
    """
    if scipy.sparse.issparse(transition):
        return sparse_table(order, transition)
    if isinstance(transition, (list, tuple)) and any(map(scipy.sparse.issparse, transition)):
        if stationary:
            raise ValueError("a stationary game takes one `transition`; got a list of them.")
        if len(transition) not in (n_steps, n_steps + 1):
            raise ValueError(
                f"`transition` as a list must hold T-1 = {n_steps} sparse matrices, one a step, or "
                f"T with the move after the last decision; got {len(transition)}."
            )
        return torch.stack([sparse_table(order, m, t) for t, m in enumerate(transition)])
    if isinstance(transition, TransitionEstimate):
        transition = _estimated_tables(order, transition)
    elif is_labelled(transition):
        transition = _labelled_tables(order, transition)
    by_time = np.ndim(transition) == 4 and not stationary
    with_last = by_time and np.shape(transition)[0] == n_steps + 1
    shape = (n_steps + with_last, *table_shape(order)) if by_time else table_shape(order)
    hint = "(T, S, A, S)" if with_last else "(T-1, S, A, S)" if by_time else "(S, A, S)"
    array = probabilities("transition", transition, shape, hint)
    check_rows(order, array.sum(-1))
    return array


def sparse_table(order: Order, matrix: Any, time: int | None = None) -> Tensor:
    """Return a scipy matrix (S*A, S) as a sparse COO tensor (S, A, S), else raise."""
    if not scipy.sparse.issparse(matrix):
        came = type(matrix).__name__
        raise TypeError(f"`transition` as a list must hold sparse matrices only; got {came}.")
    entries = scipy.sparse.coo_array(scipy.sparse.csr_array(matrix, dtype=np.float64))
    S, A, _ = shape = table_shape(order)
    expected = (S * A, S)
    if entries.shape != expected:
        message = f"a sparse `transition` must have shape (S*A, S) = {expected}"
        raise ValueError(f"{message}; got {entries.shape}.")
    if not np.isfinite(entries.data).all():
        raise ValueError("`transition` has an entry that is not finite.")
    check_rows(order, torch.as_tensor(entries.sum(1)).reshape(S, A), time)
    if entries.data.size and not entries.data.min() >= 0:
        raise ValueError(f"`transition` has the negative entry {entries.data.min():.6g}.")
    row, following = entries.coords
    where = np.stack([row // A, row % A, following])
    table = torch.sparse_coo_tensor(
        torch.as_tensor(where), torch.as_tensor(entries.data), shape,
        check_invariants=False,
    )  # fmt: skip
    return table.coalesce()


def flow_shares(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """Return a flow (T, S) or (T, S, A), whose shares sum to 1 at each time, else raise."""
    flow = probabilities(name, value, shape, "(T, S, A)" if len(shape) == 3 else "(T, S)")
    totals = flow.detach().flatten(1).sum(1)
    wrong = ((totals - 1).abs() > ROW_SUM).nonzero()
    if len(wrong):
        t = int(wrong[0])
        message = f"the shares of `{name}` must sum to 1 at each time; at time {t} they sum to"
        single = " Rounded to float32? Build it in float64." if abs(totals[t] - 1) < 1e-5 else ""
        raise ValueError(f"{message} {totals[t]:.10g}.{single}")
    return flow


def split_last(tables: Tensor, n_steps: int) -> tuple[Tensor, Tensor | None]:
    """Return tables by time of T-1 steps and the one after the last decision, None if unknown."""
    if len(tables) == n_steps:
        return tables, None
    if tables.layout == torch.strided:  # views, where cells share tables
        return tables[:n_steps], tables[-1]
    return torch.stack([tables[t] for t in range(n_steps)]), tables[-1]


def check_rows(order: Order, sums: Tensor, time: int | None = None) -> None:
    """Raise a `ValueError` unless the rows of a transition, with these sums, are distributions."""
    wrong = ((sums - 1).abs() > ROW_SUM).nonzero()
    if len(wrong):
        *step, s, a = wrong[0].tolist()
        when = f", time={step[0] if step else time}" if step or time is not None else ""
        rounded = bool(((sums - 1).abs() < 1e-5).all())
        single = " Rounded to float32? Build it in float64." if rounded else ""
        raise ValueError(
            f"each row of `transition` must sum to 1; {len(wrong)} do not, first "
            f"state={order.space.labels[s]!r}, action={order.actions[a]!r}{when} with sum "
            f"{sums[tuple(wrong[0])]:.10g}.{single}"
        )


def _labelled_tables(order: Order, transition: Any) -> Any:
    """Return a labelled transition's values, one table or one a step."""
    by_time = isinstance(transition, xr.DataArray) and "time" in transition.dims
    if not isinstance(transition, xr.DataArray):
        by_time = any("time" in axis.names for axis in transition.axes)
    return in_order("transition", transition, ("time", *TABLE) if by_time else TABLE, order)


def _estimated_tables(order: Order, estimate: TransitionEstimate) -> np.ndarray:
    """Return the values of an estimate in the game's order, else raise."""
    n_states, actions = order.space.size, order.actions
    where = order.space.positions_of(estimate.space, whose="the estimated `transition`")
    if len(where) != n_states:
        raise ValueError(
            f"the estimated `transition` has {len(where)} states, the game {n_states}: "
            "some labels never occur in the panel. Pass all of them as `state_labels` when "
            "reading it."
        )
    array = estimate.probabilities
    unknown = [a for a in array.action.values.tolist() if a not in actions]
    if unknown or array.sizes["action"] != len(actions):
        raise ValueError(
            f"the estimated `transition` has the actions {array.action.values.tolist()}, the "
            f"game {list(actions)}; pass them as `action_labels` when reading the panel."
        )
    moves = [actions.index(a) for a in array.action.values.tolist()]
    values = np.empty(array.shape)
    values[..., where[:, None, None], np.array(moves)[None, :, None], where] = array.values
    return values


def available_actions(
    space: StateSpace, actions: tuple[Any, ...], available: Any, n_times: int | None
) -> Tensor:
    """Return which actions each state allows, by default all, else raise.

    Parameters
    ----------
    space : StateSpace
        Types and states.
    actions : tuple
        Action labels.
    available : object
        As of `MeanFieldGame`.
    n_times : int or None
        Number of decision times; None where availability cannot differ by time.

    Returns
    -------
    Tensor of bool, shape (S, A) or (T, S, A)
        Over stacked states.
    """
    if available is None:
        return torch.ones(space.size, len(actions), dtype=torch.bool)
    each = by_cell("available", available, space)
    if each is None and np.shape(available) == (space.size, len(actions)):
        return _allowed(Order(space, actions), available, n_times)
    order = Order(space.within, actions)
    given = [available] * space.n_cells if each is None else each
    parts = [_allowed(order, v, n_times) for v in given]
    if any(part.ndim == 3 for part in parts):
        parts = [part.expand(n_times or 1, -1, -1) for part in parts]
    return torch.cat(parts, -2)


def _allowed(order: Order, available: Any, n_times: int | None) -> Tensor:
    """Return which actions each state allows, (S, A) or (T, S, A), else raise."""
    expected: tuple[int, ...] = (order.space.size, len(order.actions))
    by_time = np.ndim(available) == 3
    if is_labelled(available):
        names: list[Any] = list(getattr(available, "dims", ()))
        if not isinstance(available, xr.DataArray):
            names = [n for axis in available.axes for n in axis.names]
        by_time = "time" in names
    if by_time and n_times is not None:
        expected = (n_times, *expected)
    dims_of = AXES if by_time else AXES[1:]
    shape = "(T, S, A)" if len(expected) == 3 else "(S, A)"
    array = as_numbers("available", in_order("available", available, dims_of, order), shape)
    if tuple(array.shape) != expected:
        message = f"`available` must have shape {shape} = {expected}"
        raise ValueError(f"{message}; got {tuple(array.shape)}.")
    if not bool(((array == 0) | (array == 1)).all()):
        raise ValueError("`available` must be true or false for each state and action.")
    stuck = (~array.bool().any(-1)).nonzero()
    if len(stuck):
        *time, state = stuck[0].tolist()
        when = f" at time {time[0]}" if time else ""
        label = order.space.labels[state]
        raise ValueError(
            f"`available` leaves no action in state {label!r}{when}; leave at least one."
        )
    return array.bool()


def feature_tensor(order: Order, n_times: int, name: str, value: Any) -> Tensor:
    """Return a feature by named axes as a tensor that broadcasts to (T, S, A), else raise.

    With types to (C, T, S, A), of which C is 1 where the feature names no type.
    """
    try:
        array = _feature_array(order, n_times, name, value)
        each = by_cell(f"feature {name!r}", array, order.space)
        within = Order(order.space.within, order.actions)
        parts = [_spread(within, _ordered(within, name, v)) for v in each or [array]]
    except TypeError as error:
        raise TypeError(f"feature {name!r} must hold numbers: {error}") from None
    return torch.stack(parts) if order.space.types else parts[0]


def _feature_array(order: Order, n_times: int, name: str, value: Any) -> xr.DataArray:
    """Return a feature as an array with named axes of the game's sizes, else raise."""
    space, within = order.space, order.space.within
    shape = (n_times, within.size, len(order.actions))
    if isinstance(value, tuple) and len(value) == 2 and _names_axes(value[0]):
        dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
        if np.ndim(value[1]) != len(dims):
            raise ValueError(
                f"feature {name!r} names the axes {dims} but has {np.ndim(value[1])} of them."
            )
        value = xr.DataArray(np.asarray(value[1]), dims=dims)
    sizes = dict(zip(AXES, shape, strict=True))
    sizes |= {k: len(v) for k, v in space.coordinates.items()}
    if isinstance(value, (pd.Series, pd.DataFrame)):
        value = named_axes(f"feature {name!r}", value, list(sizes))
    if not isinstance(value, xr.DataArray):
        try:
            came_shape = np.shape(value)
        except ValueError:  # rows of several lengths, or (dims, values) as a list
            came_shape = None
        if came_shape != shape:
            came = f"shape {came_shape}" if came_shape is not None else f"a {type(value).__name__}"
            raise ValueError(
                f"feature {name!r} must be a DataArray or a pair (dims, values), or have the "
                f"full shape (T, S, A) = {shape}; got {came}."
            )
        value = xr.DataArray(np.asarray(value), dims=AXES)
    for dim, size in value.sizes.items():
        if dim not in sizes:
            raise ValueError(
                f"feature {name!r} has the axis {dim!r}; the game's axes are "
                f"{', '.join(sizes)}.{suggestion(dim, sizes)}"
            )
        if size != sizes[str(dim)]:
            raise ValueError(
                f"feature {name!r} has {size} entries along {dim!r}; the game has {sizes[dim]}."
            )
    both = set(value.dims) & set(within.coordinates)
    if "state" in value.dims and both and "state" not in both:
        raise ValueError(f"feature {name!r} names both 'state' and a coordinate: {value.dims}.")
    return value


def _ordered(order: Order, name: str, value: xr.DataArray) -> xr.DataArray:
    """Return a feature in the game's order of labels, as numbers, else raise."""
    values = in_order(name, value, tuple(str(d) for d in value.dims), order)
    if np.asarray(values).dtype.kind not in "buif":
        raise TypeError(f"got {np.asarray(values).dtype} values; code words as numbers.")
    if not np.isfinite(np.asarray(values, dtype=float)).all():
        raise ValueError(f"feature {name!r} has a value that is not finite.")
    return xr.DataArray(np.asarray(values, dtype=float), dims=value.dims)


def _names_axes(value: Any) -> bool:
    """Return whether a value is an axis name or a tuple or list of them."""
    return isinstance(value, str) or (
        isinstance(value, (tuple, list)) and all(isinstance(v, str) for v in value)
    )


def _spread(order: Order, array: xr.DataArray) -> Tensor:
    """Spread an array over named axes to one that broadcasts to (T, S, A)."""
    dims = array.dims
    coordinates = list(order.space.coordinates)
    whole = "state" in dims and "state" not in coordinates
    axes = ["time", *(["state"] if whole else coordinates), "action"]
    array = array.expand_dims([a for a in axes if a not in dims]).transpose(*axes)
    if not whole and set(dims) & set(coordinates):
        full = {k: len(v) for k, v in order.space.coordinates.items()}
        shape = (array.sizes["time"], *full.values(), array.sizes["action"])
        spread = np.broadcast_to(array.values, shape)
        return torch.as_tensor(spread.reshape(shape[0], -1, shape[-1]).copy())
    flat = array.values.reshape(array.sizes["time"], -1, array.sizes["action"])
    return torch.as_tensor(flat.copy())


def probabilities(name: str, value: Any, shape: tuple[int, ...], hint: str) -> Tensor:
    """Return an array of probabilities as float64, else raise."""
    array = as_numbers(name, value, hint).to(torch.float64)
    if tuple(array.shape) != tuple(shape):
        raise ValueError(
            f"`{name}` must have shape {hint} = {tuple(shape)}; got {tuple(array.shape)}."
        )
    if not bool(torch.isfinite(array.detach()).all()):
        raise ValueError(f"`{name}` has an entry that is not finite.")
    if bool((array.detach() < 0).any()):
        raise ValueError(f"`{name}` has the negative entry {array.detach().min():.6g}.")
    return array.clone()


def known_beliefs(beliefs: Any, *, stationary: bool) -> str | int:
    """Return what agents expect of the crowd, "equilibrium", "static" or a level, else raise."""
    if isinstance(beliefs, str):
        one_of("beliefs", beliefs, ["equilibrium", "static"])
        return beliefs
    level = positive_int("beliefs", beliefs)
    if stationary:
        raise ValueError(
            f"levels of reasoning belong to games with a horizon; got beliefs={level} in a "
            "stationary one."
        )
    return level


def constants_of(
    space: StateSpace, discount: Any, temperature: Any
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return a game's constants as numbers, and those that differ by type, (C,) each.

    As a number the latter is its largest: what has one for all refuses it.
    """
    numbers, by_type = {}, {}
    for name, value, upto in (("discount", discount, 1.0), ("temperature", temperature, np.inf)):
        cells = by_cell(name, value, space)
        given = [value] if cells is None else cells
        if name == "discount" and any(isinstance(v, (int, float)) and v == 0 for v in given):
            raise ValueError(
                "`discount` must lie in (0, 1]; got 0. Agents who do not look ahead are those of "
                "lookahead=1."
            )
        each = [real_between(name, v, above=0.0, upto=upto) for v in given]
        numbers[name] = max(each)
        if len(set(each)) > 1:
            by_type[name] = torch.tensor(each, dtype=torch.float64)
    return numbers, by_type
