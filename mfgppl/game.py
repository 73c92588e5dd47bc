"""The mean field game: its spaces, dynamics, start and constants. It knows no reward."""

import functools
import keyword
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
import torch
import xarray as xr
from torch import Tensor

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords, suggestion
from mfgppl.data.space import StateSpace, check_labels
from mfgppl.data.trajectories import TransitionEstimate

# what the inputs of a reward program are called whatever the game
RESERVED = (
    "action", "density", "expect", "mean_field", "occupancy", "play", "shape", "share", "state",
    "time",
)  # fmt: skip
ROW_SUM = 1e-8  # how far the rows of a distribution may be from 1


@dataclass(frozen=True, eq=False, repr=False, init=False)
class MeanFieldGame:
    """A finite mean field game, checked on construction.

    Parameters
    ----------
    states : mapping of str to list, or list
        Labels of each state coordinate; the state space is their product, row-major.
    actions : list
        Action labels.
    horizon : int or None
        Number of decision times T. None makes the game stationary: it goes on for ever, discounted,
        and flows, policies and rewards keep a time axis of length one.
    transition : array, sparse matrix or list of them, DataArray, TransitionEstimate or callable
        Probability of the next state: shape (S, A, S); or (T-1, S, A, S), one table a step; or
        scipy sparse of shape (S*A, S), or a list of T-1 of them; or a function of the mean field
        at a time, (S,) or (S, A) if `joint`, and the time that returns (S, A, S), or (S*A, S) as
        scipy sparse. Labelled arrays are put in the game's order. Sparse transitions stay sparse
        in all sweeps over time.
    initial : array or DataArray, shape (S,)
        Distribution of the first state.
    features : mapping of str to array, optional
        Extra inputs of reward programs by named axes: a DataArray, or a pair (dims, values), with
        dims among "time", "state", "action" and the coordinates' names.
    available : array, shape (S, A), or DataArray, optional
        Which actions each state allows; by default all.
    discount : float in (0, 1]
        Weight of the next period.
    temperature : float, positive
        Weight of the policy's entropy, in reward units.
    joint : bool
        Whether the mean field is the crowd's distribution over states and actions, (T, S, A), and
        not over states alone, (T, S).

    Raises
    ------
    ValueError, TypeError
        If a shape, a label or a probability is wrong.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    horizon: int | None
    transition: Tensor | Callable[[Tensor, int], Any]
    initial: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    available: Tensor = field(default_factory=lambda: torch.ones(0))
    discount: float = 1.0
    temperature: float = 1.0
    joint: bool = False
    _given: dict[str, Any] = field(default_factory=dict)
    _recordings: OrderedDict[Any, Any] = field(default_factory=OrderedDict)

    @strict_keywords
    def __init__(
        self,
        *,
        states: Mapping[str, Sequence[Any]] | Sequence[Any],
        actions: Sequence[Any],
        horizon: int | None,
        transition: Any,
        initial: Any,
        features: Mapping[str, Any] | None = None,
        available: Any = None,
        discount: float = 1.0,
        temperature: float = 1.0,
        joint: bool = False,
    ) -> None:
        put = functools.partial(object.__setattr__, self)
        put("space", StateSpace.from_labels(states))
        put("actions", check_labels("actions", actions))
        put("horizon", None if horizon is None else positive_int("horizon", horizon))
        put("discount", real_between("discount", discount, above=0.0, upto=1.0))
        put("temperature", real_between("temperature", temperature, above=0.0))
        put("joint", is_a("joint", joint, bool))
        if horizon is None and self.discount == 1.0:
            raise ValueError("a game without `horizon` needs a `discount` below 1; got 1.")
        given = {
            "states": states, "actions": actions, "horizon": horizon, "transition": transition,
            "initial": initial, "features": features, "available": available,
            "discount": discount, "temperature": temperature, "joint": joint,
        }  # fmt: skip
        put("_given", given)
        put("_recordings", OrderedDict())  # of rewards, by solvers
        is_a("features", features if features is not None else {}, Mapping)
        self._check_names(features or {})
        put("initial", self._check_initial(initial))
        put("transition", self._check_transition(transition))
        put("available", self._check_available(available))
        put("features", {k: self._named_feature(k, v) for k, v in (features or {}).items()})

    def replace(self, **changes: Any) -> "MeanFieldGame":
        """Return the game with some of its arguments changed: another world, the same question.

        Parameters
        ----------
        **changes
            Arguments of `MeanFieldGame`, as in `game.replace(temperature=0.5)`.

        Raises
        ------
        TypeError
            If an argument has no such name.
        """
        return MeanFieldGame(**(self._given | changes))

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return self.space.size

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return len(self.actions)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, S, A), with T = 1 for a stationary game."""
        return self.horizon or 1, self.n_states, self.n_actions

    @property
    def stationary(self) -> bool:
        """Whether the game has no horizon."""
        return self.horizon is None

    @property
    def flow_shape(self) -> tuple[int, ...]:
        """Shape of a mean field over time: (T, S), or (T, S, A) in a joint game."""
        return self.shape if self.joint else self.shape[:2]

    @property
    def n_steps(self) -> int:
        """How many times a table of transitions is used: T-1, or 1 in a stationary game."""
        return 1 if self.horizon is None else self.horizon - 1

    @property
    def crowd_moves_dynamics(self) -> bool:
        """Whether the transition depends on the mean field."""
        return callable(self.transition)

    def transition_along(self, mean_field: Tensor) -> Tensor:
        """Return the transition along a flow.

        Parameters
        ----------
        mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
            The flow; each time's shares sum to 1.

        Returns
        -------
        Tensor, shape (1, S, A, S) or (T-1, S, A, S)
            One table, or one a step where it changes; in torch's sparse COO layout where the
            game's transition is sparse.

        Raises
        ------
        ValueError
            If a callable transition returns a wrong shape or no probabilities.
        """
        if callable(self.transition):
            steps = [self.transition_at(mean_field[t], t) for t in range(self.n_steps)]
            return torch.stack(steps) if steps else torch.zeros(1, *self._table_shape).double()
        return self.transition if self.transition.ndim == 4 else self.transition[None]

    def check_flow(self, name: str, mean_field: Any) -> Tensor:
        """Return a flow (T, S), or (T, S, A) in a joint game, as float64, else raise."""
        hint = "(T, S, A)" if self.joint else "(T, S)"
        flow = _probabilities(name, mean_field, self.flow_shape, hint)
        totals = flow.detach().flatten(1).sum(1)
        wrong = ((totals - 1).abs() > ROW_SUM).nonzero()
        if len(wrong):
            t = int(wrong[0])
            message = f"the shares of `{name}` must sum to 1 at each time; at time {t} they sum to"
            single = (
                " Rounded to float32? Build it in float64." if abs(totals[t] - 1) < 1e-5 else ""
            )
            raise ValueError(f"{message} {totals[t]:.10g}.{single}")
        return flow

    @property
    def _table_shape(self) -> tuple[int, int, int]:
        return self.n_states, self.n_actions, self.n_states

    def _check_names(self, features: Mapping[str, Any]) -> None:
        for name in [*self.space.coordinates, *features]:
            if name in RESERVED and not (name == "state" and len(self.space.coordinates) == 1):
                raise ValueError(
                    f"{name!r} is an input of every reward program; rename the coordinate or "
                    f"feature. Reserved: {', '.join(RESERVED)}."
                )
            if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
                raise ValueError(
                    f"{name!r} must be a plain Python name: reward programs read `x.{name}`."
                )
        clash = sorted(set(self.space.coordinates) & set(features))
        if clash:
            raise ValueError(f"`features` names {clash[0]!r}, which is a state coordinate already.")

    def _check_initial(self, initial: Any) -> Tensor:
        if isinstance(initial, xr.DataArray):
            initial = self._in_game_order("initial", initial, ("state",))
        array = _probabilities("initial", initial, (self.n_states,), "(S,)")
        if not torch.isclose(array.sum(), torch.ones((), dtype=array.dtype), rtol=0, atol=ROW_SUM):
            raise ValueError(f"`initial` must sum to 1; it sums to {array.sum():.6g}.")
        return array

    def _check_transition(self, transition: Any) -> Any:
        if callable(transition):
            object.__setattr__(self, "transition", transition)
            start = self.initial
            if self.joint:
                start = start[:, None].expand(-1, self.n_actions) / self.n_actions
            for t in {0, max(self.n_steps - 1, 0)}:
                self.transition_at(start, t)
            return transition
        if scipy.sparse.issparse(transition):
            return self._sparse_table(transition)
        if isinstance(transition, (list, tuple)) and any(map(scipy.sparse.issparse, transition)):
            if self.stationary:
                raise ValueError("a stationary game takes one `transition`; got a list of them.")
            if len(transition) != self.n_steps:
                raise ValueError(
                    f"`transition` as a list must hold T-1 = {self.n_steps} sparse matrices, "
                    f"one a step; got {len(transition)}."
                )
            return torch.stack([self._sparse_table(m, t) for t, m in enumerate(transition)])
        if isinstance(transition, TransitionEstimate):
            transition = self._estimated(transition)
        elif isinstance(transition, xr.DataArray):
            step = ("time",) if "time" in transition.dims else ()
            dims = (*step, "state", "action", "next_state")
            transition = self._in_game_order("transition", transition, dims)
        steps = self.n_steps
        by_time = np.ndim(transition) == 4 and not self.stationary
        shape = (steps, *self._table_shape) if by_time else self._table_shape
        if by_time and np.shape(transition)[0] == steps + 1 and steps > 0:
            raise ValueError(
                f"`transition` has {steps + 1} steps where T-1 = {steps} are used: after the "
                "last decision nothing follows; drop the last table."
            )
        hint = "(T-1, S, A, S)" if by_time else "(S, A, S)"
        array = _probabilities("transition", transition, shape, hint)
        self._check_rows(array.sum(-1))
        return array

    def transition_at(self, mean_field: Tensor, time: int) -> Tensor:
        """Return the table (S, A, S) that a callable transition gives at a time, checked.

        Parameters
        ----------
        mean_field : Tensor, shape (S,), or (S, A) in a joint game
            The crowd at that time.
        time : int
            The time.

        Raises
        ------
        ValueError
            If it is no transition.
        """
        try:
            value = self.transition(mean_field, time)  # type: ignore[operator]
        except Exception as error:
            shape = "(S, A)" if self.joint else "(S,)"
            message = f"`transition` failed at time {time} of a mean field {shape}: {error!r}"
            raise ValueError(message) from error
        if scipy.sparse.issparse(value):
            return self._sparse_table(value, time)
        hint = f"(S, A, S) at time {time}"
        array = _probabilities("transition", value, self._table_shape, hint)
        self._check_rows(array.detach().sum(-1), time)
        return array

    def _sparse_table(self, matrix: Any, time: int | None = None) -> Tensor:
        """Return a scipy matrix (S*A, S) as a sparse COO tensor (S, A, S), else raise."""
        if not scipy.sparse.issparse(matrix):
            came = type(matrix).__name__
            raise TypeError(f"`transition` as a list must hold sparse matrices only; got {came}.")
        entries = scipy.sparse.coo_array(scipy.sparse.csr_array(matrix, dtype=np.float64))
        expected = (self.n_states * self.n_actions, self.n_states)
        if entries.shape != expected:
            message = f"a sparse `transition` must have shape (S*A, S) = {expected}"
            raise ValueError(f"{message}; got {entries.shape}.")
        if not np.isfinite(entries.data).all():
            raise ValueError("`transition` has an entry that is not finite.")
        self._check_rows(torch.as_tensor(entries.sum(1)).reshape(self._table_shape[:2]), time)
        if entries.data.size and not entries.data.min() >= 0:
            raise ValueError(f"`transition` has the negative entry {entries.data.min():.6g}.")
        row, following = entries.coords
        where = np.stack([row // self.n_actions, row % self.n_actions, following])
        table = torch.sparse_coo_tensor(
            torch.as_tensor(where), torch.as_tensor(entries.data), self._table_shape,
            check_invariants=False,
        )  # fmt: skip
        return table.coalesce()

    def _check_rows(self, sums: Tensor, time: int | None = None) -> None:
        wrong = ((sums - 1).abs() > ROW_SUM).nonzero()
        if len(wrong):
            *step, s, a = wrong[0].tolist()
            when = f", time={step[0] if step else time}" if step or time is not None else ""
            rounded = bool(((sums - 1).abs() < 1e-5).all())
            single = " Rounded to float32? Build it in float64." if rounded else ""
            raise ValueError(
                f"each row of `transition` must sum to 1; {len(wrong)} do not, first "
                f"state={self.space.labels[s]!r}, action={self.actions[a]!r}{when} with sum "
                f"{sums[tuple(wrong[0])]:.10g}.{single}"
            )

    def _estimated(self, estimate: TransitionEstimate) -> np.ndarray:
        where = self.space.positions_of(estimate.space, whose="the estimated `transition`")
        if len(where) != self.n_states:
            raise ValueError(
                f"the estimated `transition` has {len(where)} states, the game {self.n_states}: "
                "some labels never occur in the panel. Pass all of them as `state_labels` when "
                "reading it."
            )
        array = estimate.probabilities
        unknown = [a for a in array.action.values.tolist() if a not in self.actions]
        if unknown or array.sizes["action"] != self.n_actions:
            raise ValueError(
                f"the estimated `transition` has the actions {array.action.values.tolist()}, the "
                f"game {list(self.actions)}; pass them as `action_labels` when reading the panel."
            )
        moves = [self.actions.index(a) for a in array.action.values.tolist()]
        values = np.empty(array.shape)
        values[..., where[:, None, None], np.array(moves)[None, :, None], where] = array.values
        return values

    def _in_game_order(self, name: str, array: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
        """Return a labelled array with the given dims, its labels in the game's order."""
        if set(array.dims) != set(dims):
            raise ValueError(f"`{name}` must have the dims {dims}; got {array.dims}.")
        if "coordinates" in array.attrs and len(self.space.coordinates) > 1:
            other = StateSpace({k: tuple(v) for k, v in array.attrs["coordinates"].items()})
            where = self.space.positions_of(other, whose=f"`{name}`")
            values = np.zeros(self.n_states)
            values[where] = array.values
            return values
        known = {"state": self.space.labels, "next_state": self.space.labels}
        known |= {"action": self.actions, **self.space.coordinates}
        for dim in dims:
            if dim in array.coords and dim in known:
                array = self._select(name, array, dim, known[dim])
        return array.transpose(*dims).values

    def _select(
        self, name: str, array: xr.DataArray, dim: str, labels: Sequence[Any]
    ) -> xr.DataArray:
        there = array[dim].values.tolist()
        absent = [v for v in labels if v not in there]
        strange = [v for v in there if v not in labels]
        if absent or strange:
            odd = f"lacks {absent[0]!r}" if absent else f"has the unknown {strange[0]!r}"
            raise ValueError(f"`{name}` {odd} along {dim!r}; the game has {list(labels)}.")
        return array.isel({dim: [there.index(v) for v in labels]})

    def _check_available(self, available: Any) -> Tensor:
        if available is None:
            return torch.ones(self.n_states, self.n_actions, dtype=torch.bool)
        if isinstance(available, xr.DataArray):
            available = self._in_game_order("available", available, ("state", "action"))
        array = torch.as_tensor(np.asarray(available))
        expected = (self.n_states, self.n_actions)
        if tuple(array.shape) != expected:
            message = f"`available` must have shape (S, A) = {expected}"
            raise ValueError(f"{message}; got {tuple(array.shape)}.")
        if not bool(((array == 0) | (array == 1)).all()):
            raise ValueError("`available` must be true or false for each state and action.")
        stuck = (~array.bool().any(1)).nonzero()
        if len(stuck):
            label = self.space.labels[int(stuck[0])]
            raise ValueError(
                f"`available` leaves no action in state {label!r}; leave at least one."
            )
        return array.bool()

    def _named_feature(self, name: str, value: Any) -> Tensor:
        """Return a feature as a tensor that broadcasts to (T, S, A)."""
        try:
            return self._read_feature(name, value)
        except TypeError as error:
            raise TypeError(f"feature {name!r} must hold numbers: {error}") from None

    def _read_feature(self, name: str, value: Any) -> Tensor:
        if isinstance(value, tuple) and len(value) == 2 and _names_axes(value[0]):
            dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
            if np.ndim(value[1]) != len(dims):
                raise ValueError(
                    f"feature {name!r} names the axes {dims} but has {np.ndim(value[1])} of them."
                )
            value = xr.DataArray(np.asarray(value[1]), dims=dims)
        if not isinstance(value, xr.DataArray):
            try:
                shape = np.shape(value)
            except ValueError:  # rows of several lengths, or (dims, values) as a list
                shape = None
            if shape != self.shape:
                came = f"shape {shape}" if shape is not None else f"a {type(value).__name__}"
                raise ValueError(
                    f"feature {name!r} must be a DataArray or a pair (dims, values), or have the "
                    f"full shape (T, S, A) = {self.shape}; got {came}."
                )
            value = xr.DataArray(np.asarray(value), dims=("time", "state", "action"))
        sizes = {"time": self.shape[0], "state": self.n_states, "action": self.n_actions}
        sizes |= {k: len(v) for k, v in self.space.coordinates.items()}
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
        steps = np.diff(value["time"].values) if "time" in value.coords else np.ones(1)
        if not (np.asarray(steps) == 1).all():
            raise ValueError(f"feature {name!r} has times that do not count up by 1 a step.")
        values = self._in_game_order(name, value, tuple(str(d) for d in value.dims))
        if np.asarray(values).dtype.kind not in "buif":
            raise TypeError(f"got {np.asarray(values).dtype} values; code words as numbers.")
        if not np.isfinite(np.asarray(values, dtype=float)).all():
            raise ValueError(f"feature {name!r} has a value that is not finite.")
        return self._broadcast(np.asarray(values, dtype=float), tuple(map(str, value.dims)))

    def _broadcast(self, values: np.ndarray, dims: tuple[str, ...]) -> Tensor:
        """Spread an array over named axes to one that broadcasts to (T, S, A)."""
        coordinates = list(self.space.coordinates)
        whole = "state" in dims and "state" not in coordinates
        axes = ["time", *(["state"] if whole else coordinates), "action"]
        array = xr.DataArray(values, dims=dims)
        if whole and set(dims) & set(coordinates):
            raise ValueError(f"an array names both 'state' and a coordinate: {dims}.")
        array = array.expand_dims([a for a in axes if a not in dims]).transpose(*axes)
        if not whole and set(dims) & set(coordinates):
            full = {k: len(v) for k, v in self.space.coordinates.items()}
            shape = (array.sizes["time"], *full.values(), array.sizes["action"])
            spread = np.broadcast_to(array.values, shape)
            return torch.as_tensor(spread.reshape(shape[0], -1, shape[-1]).copy())
        flat = array.values.reshape(array.sizes["time"], -1, array.sizes["action"])
        return torch.as_tensor(flat.copy())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be recorded anew, for a task that travels to another process."""
        return vars(self) | {"_recordings": OrderedDict()}

    def __repr__(self) -> str:
        T, S, A = self.shape
        times = "stationary" if self.stationary else f"{T} decision times"
        return (
            f"MeanFieldGame({S} states, {A} actions, {times}, "
            f"discount={self.discount:g}, temperature={self.temperature:g})"
        )


def _names_axes(value: Any) -> bool:
    """Return whether a value is an axis name or a tuple or list of them."""
    return isinstance(value, str) or (
        isinstance(value, (tuple, list)) and all(isinstance(v, str) for v in value)
    )


def _probabilities(name: str, value: Any, shape: tuple[int, ...], hint: str) -> Tensor:
    """Return an array of probabilities as float64, else raise."""
    try:
        array = value if isinstance(value, Tensor) else torch.tensor(np.asarray(value, float))
    except (TypeError, ValueError):
        message = f"`{name}` must be an array of numbers of shape {hint}"
        raise TypeError(f"{message}; got {type(value).__name__}.") from None
    array = array.to(torch.float64)
    if tuple(array.shape) != tuple(shape):
        raise ValueError(
            f"`{name}` must have shape {hint} = {tuple(shape)}; got {tuple(array.shape)}."
        )
    if not bool(torch.isfinite(array.detach()).all()):
        raise ValueError(f"`{name}` has an entry that is not finite.")
    if bool((array.detach() < 0).any()):
        raise ValueError(f"`{name}` has the negative entry {array.detach().min():.6g}.")
    return array.clone()
