"""The mean field game: its spaces, dynamics, start and constants. It knows no reward."""

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import differentiable_door, is_a, one_of, positive_int
from mfgppl._crowd_dynamics import CrowdDynamics
from mfgppl._game_arguments import (
    AXES,
    available_actions,
    check_names,
    constants_of,
    feature_tensor,
    flow_shares,
    initial_distribution,
    known_beliefs,
    split_last,
    transition_by_cell,
)
from mfgppl._keep import Keeper, keep, kept
from mfgppl._meeting import Meeting, meeting_of
from mfgppl.control.plans import LAWS
from mfgppl.control.steps import Steps, as_steps
from mfgppl.data.labelled import Order, in_order
from mfgppl.data.periods import Periods, periods_of
from mfgppl.data.space import StateSpace, check_labels


@dataclass(frozen=True, eq=False, repr=False, init=False)
class MeanFieldGame(Keeper):
    """A finite mean field game, checked on construction.

    Parameters
    ----------
    states : mapping of str to list, list, or `panel.space`
        Labels of each state coordinate; the state space is their product, row-major. A panel's
        space has its types as well.
    actions : list
        Action labels.
    horizon : int, list of int, `panel.periods` or None
        Number of decision times T, or what they are called, which programs then read as
        `x.period`. None makes the game stationary: it goes on for ever, discounted,
        and flows, policies and rewards keep a time axis of length one.
    transition : array, sparse matrix or list of them, DataArray, TransitionEstimate or callable
        Probability of the next state: shape (S, A, S); or (T-1, S, A, S), one table a step, or T
        of them where states are worth something after the last decision; or scipy sparse of shape
        (S*A, S), or a list of T-1 or T of them; or a function of the mean field
        at a time, (S,) or (S, A) if `joint`, and the time that returns (S, A, S), or (S*A, S) as
        scipy sparse. Sparse transitions stay sparse in all sweeps over time.
    initial : array, DataArray or Series, shape (S,)
        Distribution of the first state.
    features : mapping of str to array, optional
        Extra inputs of reward programs by named axes: a DataArray, a Series or DataFrame with a
        named index (and columns), or a pair (dims, values), with dims among "time", "state",
        "action" and the coordinates' names. Agents know them at all times: along "time" they
        foresee what is still to come, from the first decision on.
    available : array, DataArray or DataFrame, shape (S, A) or (T, S, A), optional
        Which actions each state allows, always or by time; by default all.
    discount : float in (0, 1], or mapping by type
        Weight of the next period.
    temperature : float, positive, or mapping by type
        Weight of the policy's entropy, in reward units.
    joint : bool
        Whether the mean field is the crowd's distribution over states and actions, (T, S, A), and
        not over states alone, (T, S).
    types : mapping of str to list, optional
        Labels of what never changes in an agent and is seen in the panel, a firm's size say. A
        combination of types is a cell. Transition, availability, initial and features may differ
        by type: a mapping by label (other types nested in it, or tuples of labels), or a labelled
        array with the type among its axes. A bare array serves all types.
    behaviour : {"entropy", "mistakes", "boltzmann"}
        What the noise in choices is to agents who look ahead: taste, whose value they count on;
        errors, which they expect of themselves and do not enjoy; or errors that they do not
        expect, as they plan to be perfect later.
    lookahead : int, optional
        Decisions that a plan looks at, with nothing after them but the end; by default all.
    beliefs : "equilibrium", "static" or int
        What agents expect of the crowd: its flow; that it stays as it is now; or, as those of a
        level of reasoning, that others are one level below, and act at random below the first.
    meets : "everyone", str, list of str, Network or DataFrame
        Whom agents meet: all; those who share a type, or several types; neighbours on a network
        between types; or an exposure matrix with the cells' labels on both sides, whose rows weigh
        the cells' own distributions. Rewards and dynamics read what an agent meets.

    Raises
    ------
    ValueError, TypeError
        If a shape, a label or a probability is wrong.

    Notes
    -----
    Labelled arrays (DataArray, Series, DataFrame) are put in the game's order wherever one is
    taken, flows and policies among them; labels that are missing or unknown are errors. States
    stand on one axis, by their labels, or on an axis or level for each coordinate. Other arrays
    are taken by position.

    A game with types is one over pairs of type and state whose type never changes, the types
    leading: S is then the number of these pairs in flows, policies and `initial`, whose sums over
    the states are the shares of the types. Dynamics are kept by type, never as one table of pairs.
    """

    space: StateSpace
    actions: tuple[Any, ...]
    horizon: int | None
    transition: Any
    initial: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    available: Tensor = field(default_factory=lambda: torch.ones(0))
    discount: float = 1.0
    temperature: float = 1.0
    joint: bool = False
    behaviour: str = "entropy"
    lookahead: int | None = None
    beliefs: str | int = "equilibrium"
    constants_by_type: dict[str, Tensor] = field(default_factory=dict)
    meets: Meeting = field(default_factory=lambda: meeting_of("everyone", StateSpace({})))
    periods: Periods | None = None
    _last: Any = None
    _given: dict[str, Any] = field(default_factory=dict)

    @differentiable_door
    def __init__(
        self,
        *,
        states: Mapping[str, Sequence[Any]] | Sequence[Any] | StateSpace,
        actions: Sequence[Any],
        horizon: int | Sequence[int] | None,
        transition: Any,
        initial: Any,
        features: Mapping[str, Any] | None = None,
        available: Any = None,
        discount: Any = 1.0,
        temperature: Any = 1.0,
        joint: bool = False,
        types: Mapping[str, Sequence[Any]] | None = None,
        meets: Any = "everyone",
        behaviour: str = "entropy",
        lookahead: int | None = None,
        beliefs: str | int = "equilibrium",
    ) -> None:
        put = functools.partial(object.__setattr__, self)
        put("space", StateSpace.from_labels(states, types))
        put("actions", check_labels("actions", actions))
        if isinstance(horizon, (Sequence, range, np.ndarray)) and not isinstance(horizon, str):
            put("periods", periods_of(horizon))
        number = horizon if self.periods is None else len(self.periods)
        put("horizon", None if number is None else positive_int("horizon", number))
        numbers, by_type = constants_of(self.space, discount, temperature)
        put("discount", numbers["discount"])
        put("temperature", numbers["temperature"])
        put("constants_by_type", by_type)
        put("joint", bool(joint))
        if horizon is None and self.discount == 1.0:
            raise ValueError("a game without `horizon` needs a `discount` below 1; got 1.")
        given = {
            "states": states, "actions": actions, "horizon": horizon, "transition": transition,
            "initial": initial, "features": features, "available": available,
            "discount": discount, "temperature": temperature, "joint": joint, "types": types,
            "meets": meets, "behaviour": behaviour, "lookahead": lookahead, "beliefs": beliefs,
        }  # fmt: skip
        put("_given", given)
        put("behaviour", one_of("behaviour", behaviour, LAWS))
        put("lookahead", None if lookahead is None else positive_int("lookahead", lookahead))
        put("beliefs", known_beliefs(beliefs, stationary=self.stationary))
        if self.stationary and by_type:
            raise ValueError(
                f"a stationary game takes one {next(iter(by_type))}; got some by type."
            )
        if self.stationary and behaviour != "entropy":
            raise ValueError(
                f"a stationary game knows behaviour='entropy' alone; got {behaviour!r}."
            )
        is_a("features", features if features is not None else {}, Mapping)
        check_names(self.space, features or {}, periods=self.periods is not None)
        put("meets", meeting_of(meets, self.space))
        put("initial", initial_distribution(self._order, initial))
        steps = {"n_steps": self.n_steps, "stationary": self.stationary}
        put("transition", transition_by_cell(self.space, self.actions, transition, **steps))
        put("_last", self.transition)
        if self.tables_by_time and not self.crowd_moves_dynamics:
            tables, last = split_last(self.transition, self.n_steps)
            put("transition", tables)
            put("_last", last)
        if self.crowd_moves_dynamics:
            self._check_at_start()
        put("available", available_actions(self.space, self.actions, available, self.horizon))
        put("features", {k: self.named_feature(k, v) for k, v in (features or {}).items()})

    def replace(self, **changes: Any) -> "MeanFieldGame":
        """Return the game with some of its arguments changed: another world, the same question.

        Parameters
        ----------
        **changes
            Arguments of `MeanFieldGame`, as in `game.replace(temperature=0.5)`. A `horizon` that
            is a number leaves labels of times as they are, and goes on with them.

        Raises
        ------
        TypeError
            If an argument has no such name.
        """
        horizon = changes.get("horizon")
        if self.periods is not None and isinstance(horizon, (int, np.integer)):
            changes["horizon"] = self.periods.resized(int(horizon))
        return MeanFieldGame(**(self._given | changes))

    def starting(self, initial: Tensor) -> "MeanFieldGame":
        """Return the game with another start (S,), which may require grad and is not checked."""
        other = copy.copy(self)
        object.__setattr__(other, "initial", initial)
        object.__setattr__(other, "_given", self._given | {"initial": initial})
        return other

    @property
    def n_states(self) -> int:
        """Number of states S, of pairs of type and state where there are types."""
        return self.space.size

    @property
    def n_cells(self) -> int:
        """Number of combinations of types C; 1 without types."""
        return self.space.n_cells

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
    def tables_by_time(self) -> bool:
        """Whether each of the T-1 steps has a table of its own; the last decision then has none."""
        if self.stationary:
            return False
        return self.crowd_moves_dynamics or self.transition.ndim == 4 + self._dense_by_cell

    @property
    def crowd_moves_dynamics(self) -> bool:
        """Whether the transition depends on the mean field."""
        return not isinstance(self.transition, Tensor)

    @property
    def plain(self) -> bool:
        """Whether all are soft maximisers alike, over all decisions along the crowd's own flow."""
        ways = self.behaviour, self.lookahead, self.beliefs
        return ways == ("entropy", None, "equilibrium") and not self.constants_by_type

    @property
    @kept
    def steps(self) -> Steps:
        """The dynamics step by step, where no crowd moves them."""
        return as_steps(self.transition_along(self.initial), self.horizon or 1)

    @property
    def _dense_by_cell(self) -> bool:
        """Whether the tables of a transition that no crowd moves have an axis for cells."""
        return self.n_cells > 1 and self.transition.layout == torch.strided

    @differentiable_door
    def transition_along(self, mean_field: Tensor) -> Tensor:
        """Return the transition along a flow.

        Parameters
        ----------
        mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
            The flow; each time's shares sum to 1.

        Returns
        -------
        Tensor, shape (1, S, A, S) or (T-1, S, A, S)
            One table for all steps; or, in a game with `tables_by_time`, one for each of its T-1
            steps, so none at all where T is 1. With C > 1 cells an axis of them stands before the
            states, which are then those of one cell. In torch's sparse COO layout, without the
            axis of cells, where the game's transition is sparse.

        Raises
        ------
        ValueError
            If a callable transition returns a wrong shape or no probabilities.
        """
        if self.crowd_moves_dynamics:
            times = range(self.n_steps)
            return self._moved.along([mean_field[t] for t in times], times)
        return self.transition if self.tables_by_time else self.transition[None]

    def steps_along(self, mean_field: Tensor, *, checked: bool = True) -> Steps:
        """Return the dynamics along a flow step by step.

        Without checks, which read values, they can be recorded.
        """
        if not self.crowd_moves_dynamics:
            return self.steps
        times = range(self.n_steps)
        return self._moved.steps([mean_field[t] for t in times], times, checked=checked)

    def step_at(self, mean_field: Tensor, time: int, *, checked: bool = True) -> Steps:
        """Return the dynamics that the crowd of a time moves, a single step."""
        return self._moved.steps([mean_field], range(time, time + 1), checked=checked)

    @differentiable_door
    def check_flow(self, name: str, mean_field: Any) -> Tensor:
        """Return a flow (T, S), or (T, S, A) in a joint game, as float64, else raise."""
        mean_field = self.in_order(name, mean_field, AXES[: len(self.flow_shape)])
        return flow_shares(name, mean_field, self.flow_shape)

    def in_order(self, name: str, value: Any, dims: tuple[str, ...]) -> Any:
        """Return a labelled array's values along dims in the game's order, else what came.

        Parameters
        ----------
        name : str
            What the caller calls it.
        value : object
            A DataArray, Series or DataFrame with the game's labels; or an array, as it is.
        dims : tuple of str
            Among "time", "state", "action" and "next_state".

        Raises
        ------
        ValueError
            If axes or labels are missing, repeated or unknown.
        """
        return in_order(name, value, dims, self._order)

    @property
    def _order(self) -> Order:
        return Order(self.space, self.actions)

    @property
    def _within(self) -> Order:
        return Order(self.space.within, self.actions)

    @property
    @kept
    def _moved(self) -> CrowdDynamics:
        """The dynamics that the crowd moves."""
        return CrowdDynamics(self.transition, self.meets, self._within, self.joint)

    def last_move(self, mean_field: Tensor) -> Steps:
        """Return the dynamics after the last decision along a crowd, a single step.

        Parameters
        ----------
        mean_field : Tensor, shape (S,), or (S, A) in a joint game
            The crowd at the last decision time.

        Raises
        ------
        ValueError
            If tables by time were given for T-1 steps alone.
        """
        if self._last is None:
            raise ValueError(
                "a terminal value needs the move after the last decision: give `transition` with T "
                f"= {self.horizon} tables; got {self.n_steps}."
            )
        if not self.crowd_moves_dynamics:
            return keep(self, "last_move", lambda: as_steps(self._last[None], 1))
        return self.step_at(mean_field, (self.horizon or 1) - 1, checked=False)

    def _check_at_start(self) -> None:
        """Raise where a callable transition returns no tables along the crowd of the start."""
        start = self.initial
        if self.joint:
            start = start[:, None].expand(-1, self.n_actions) / self.n_actions
        for t in {0, max(self.n_steps - 1, 0)}:
            self.transition_at(start, t)

    @differentiable_door
    def transition_at(self, mean_field: Tensor, time: int) -> Tensor:
        """Return the table that a callable transition gives at a time, checked.

        Parameters
        ----------
        mean_field : Tensor, shape (S,), or (S, A) in a joint game
            The crowd at that time.
        time : int
            The time.

        Returns
        -------
        Tensor, shape (S, A, S)
            Sparse COO where the function returns scipy's; with C > 1 cells (C, S, A, S), where S
            is the number of states of one cell.

        Raises
        ------
        ValueError
            If it is no transition.
        """
        return self._moved.checked(mean_field, time)

    def moving_tables(self, mean_field: Tensor, time: int) -> Tensor:
        """Return the same unchecked, once where all cells share it, (1, S, A, S) or (C, S, A, S).

        Raises
        ------
        TypeError
            If they are not dense tensors.
        """
        return self._moved.dense(mean_field, time)

    def named_feature(self, name: str, value: Any) -> Tensor:
        """Return a feature by named axes as a tensor that broadcasts to (T, S, A), else raise."""
        return feature_tensor(self._order, self.shape[0], name, value)

    def __repr__(self) -> str:
        T, S, A = self.shape
        cells = f"{self.n_cells} types of {S // self.n_cells} states" if self.space.types else ""
        times = "stationary" if self.stationary else f"{T} decision times"
        return (
            f"MeanFieldGame({cells or f'{S} states'}, {A} actions, {times}, "
            f"discount={self.discount:g}, temperature={self.temperature:g}{self._unusual})"
        )

    @property
    def _unusual(self) -> str:
        """What is said of agents who are not plain."""
        usual = {"behaviour": "entropy", "lookahead": None, "beliefs": "equilibrium"}
        other = {k: getattr(self, k) for k, v in usual.items() if getattr(self, k) != v}
        other |= {f"{k} by type": v.tolist() for k, v in self.constants_by_type.items()}
        return "".join(f", {name}={value!r}" for name, value in other.items())
