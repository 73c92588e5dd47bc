"""The crowd that agents meet, whole or in part: its shares, means and conditional shares."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfgppl._arguments import names_of, suggestion
from mfgppl._meeting import Meeting, ratio
from mfgppl.data.space import StateSpace, plain_label
from mfgppl.game import MeanFieldGame
from mfgppl.network import Network
from mfgppl.reward.coordinates import Labels
from mfgppl.reward.named_inputs import named_inputs

_READS: ContextVar["Reads | None"] = ContextVar("reads", default=None)


@dataclass
class Reads:
    """What a program has read of the crowd.

    Attributes
    ----------
    by_cell : bool
        Whether it distinguished cells that it meets, and read more than their sum.
    shares : dict of str to tuple
        Shares that it asked for by label, in words: who is inside, (C, S), and a code of those
        among whom it is a share, (C, S).
    """

    by_cell: bool = False
    shares: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@contextmanager
def noted_reads() -> Iterator[Reads]:
    """Note what is read of crowds meanwhile."""
    reads = Reads()
    token = _READS.set(reads)
    try:
        yield reads
    finally:
        _READS.reset(token)


def note_cells() -> None:
    """Note that cells of the crowd are distinguished."""
    reads = _READS.get()
    if reads is not None:
        reads.by_cell = True


class Part(NamedTuple):
    """A part of the crowd: those with some labels, and with one's own labels of some types.

    Attributes
    ----------
    inside : Tensor or None, shape (C, S)
        1 for the types and states that are part of it; None where all are.
    alike : Tensor of int or None, shape (C,)
        A code of each cell: those with one's own are part of it; None where all are.
    """

    inside: Tensor | None = None
    alike: Tensor | None = None


WHOLE = Part()


class Crowd:
    """What agents meet of the crowd, as tensors with an axis each for type, time and state.

    The axis of types is left out in games without types.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    flow : Tensor, shape (T, S)
        Shares of the crowd over types and states.
    part : Part, optional
        The part of the crowd that is looked at; its shares sum to 1.
    meeting : Meeting, optional
        Who meets whom; by default as the game says.
    """

    def __init__(
        self,
        game: MeanFieldGame,
        flow: Tensor,
        part: Part = WHOLE,
        meeting: Meeting | None = None,
    ) -> None:
        self._game, self._part = game, part
        self._meeting = game.meets if meeting is None else meeting
        self._flow = flow.reshape(len(flow), game.n_cells, -1)  # by cell

    @property
    def mean_field(self) -> Tensor:
        """Shares of states among those whom one meets, shape (type, T, S); each time's sum to 1.

        0 where one meets nobody. Under an exposure matrix they sum to the matrix' rows.
        """
        return self._out(self._shares())

    @property
    def density(self) -> Tensor:
        """Share of those whom one meets who are in one's own state, shape (type, T, S, 1)."""
        return self.mean_field[..., None]

    def expect(self, quantity: str | Tensor, *, within: str | Sequence[str] = ()) -> Tensor:
        """Return the crowd's mean of a coordinate, a feature or a tensor.

        Parameters
        ----------
        quantity : str or Tensor
            A name, or a tensor that broadcasts to (type, T, S, 1).
        within : str or list of str
            State coordinates or types: the mean is over those who have one's own labels.

        Returns
        -------
        Tensor, shape (type, T, 1, 1), or (type, T, S, 1) with `within`
            0 where nobody is met.

        Raises
        ------
        TypeError
            If the quantity has words as labels, or varies with the action.
        """
        values = quantity
        if isinstance(quantity, str):
            values = _value_of(self._game, quantity)
        if isinstance(values, Labels):
            raise TypeError(
                f"x.expect({values.name!r}): {values.name} has words as labels and no mean; "
                f"use x.share({values.name}={values.labels[0]!r})."
            )
        n_axes = 4 if self._game.space.types else 3
        if not isinstance(values, Tensor) or values.ndim != n_axes or values.shape[-1] != 1:
            came = tuple(values.shape) if isinstance(values, Tensor) else repr(values)
            shape = "(type, T, S, 1)" if n_axes == 4 else "(T, S, 1)"
            raise TypeError(
                f"x.expect takes a quantity of time and state, of a shape like {shape}; got {came}."
            )
        by_cell = values[..., 0] if n_axes == 4 else values[None, ..., 0]
        return self._conditional(by_cell.permute(1, 0, 2), within)

    def share(self, *, within: str | Sequence[str] = (), **labels: Any) -> Tensor:
        """Return the share of the crowd with the given labels, `x.share(stock="low")`.

        Parameters
        ----------
        within : str or list of str
            State coordinates or types: the share is of those who have one's own labels, as in
            `x.share(last="high", within="region")`.
        **labels
            A label of each of some state coordinates or types.

        Returns
        -------
        Tensor, shape (type, T, 1, 1), or (type, T, S, 1) with `within`
            0 where nobody is met.

        Raises
        ------
        ValueError
            If a name is no coordinate or type, or a label none of its labels.
        """
        inside = _inside_of(self._game, "share", labels)
        found = self._conditional(inside[None], within)
        self._note_share(labels, names_of("within", within), inside)
        return found

    def _note_share(self, labels: dict[str, Any], within: list[str], inside: Tensor) -> None:
        reads, space = _READS.get(), self._game.space
        if reads is None or self._part != WHOLE:
            return
        states = [name for name in within if name not in space.types]
        code = (
            _codes(space.within, states)
            if states
            else torch.zeros(inside.shape[1], dtype=torch.int64)
        )
        group = torch.arange(len(inside))[:, None] * (int(code.max()) + 1) + code
        words = "with " + ", ".join(f"{name} = {label}" for name, label in labels.items())
        words += f" among those of one {' and '.join(within)}" * bool(within)
        reads.shares[words] = (inside, group)

    def among(self, **labels: Any) -> "Crowd":
        """Return a part of the crowd, `x.among(size="large").density`; its shares sum to 1.

        Raises
        ------
        ValueError
            If a name is no coordinate or type, or a label none of its labels.
        """
        if not labels:
            raise ValueError("x.among() takes labels, as in x.among(size='large').")
        inside = _inside_of(self._game, "among", labels)
        before = self._part.inside
        part = self._part._replace(inside=inside if before is None else before * inside)
        return self._of(part)

    def edge(self, name: str) -> Tensor:
        """Return a number of each edge of the network of those whom one meets, shape (E,).

        Parameters
        ----------
        name : str
            "weight", or another column of the network's edges, whose order this is.

        Raises
        ------
        ValueError
            If agents do not meet through a network, or its edges have no such column.
        """
        network = self._network("edge")
        known = {"weight": network.weight, **network.attributes}
        if name not in known:
            raise ValueError(
                f"x.neighbours.edge({name!r}): the edges have {', '.join(known)}."
                f"{suggestion(name, known)}"
            )
        return torch.from_numpy(known[name].copy())

    def weighted(self, weights: Tensor) -> "Crowd":
        """Return the crowd that one meets if each edge's weight is multiplied by another.

        Parameters
        ----------
        weights : Tensor, shape (E,)
            Not negative, in the order of `edge`, as `torch.exp(-rho * x.neighbours.edge("km"))`;
            they may depend on parameters.

        Raises
        ------
        ValueError
            If agents do not meet through a network.
        TypeError
            If there is not one weight for each edge.
        """
        network = self._network("weighted")
        if not isinstance(weights, Tensor) or tuple(weights.shape) != (network.n_edges,):
            came = tuple(weights.shape) if isinstance(weights, Tensor) else repr(weights)
            raise TypeError(
                f"x.neighbours.weighted takes a tensor with one weight for each of the "
                f"{network.n_edges} edges; got {came}."
            )
        note_cells()
        meeting = self._meeting.weighted(weights.to(torch.float64))
        return type(self)(self._game, self._flow.flatten(1), self._part, meeting)

    def _network(self, method: str) -> Network:
        network = self._meeting.network
        if network is None:
            raise ValueError(
                f"x.neighbours.{method} needs a network; declare "
                "MeanFieldGame(meets=mfg.Network(edges))."
            )
        return network

    def _of(self, part: Part) -> "Crowd":
        """Return another part of the same crowd."""
        return type(self)(self._game, self._flow.flatten(1), part, self._meeting)

    def _shares(self) -> Tensor:
        """Return shares of states among those met, (C, T, S)."""
        met = self._met(self._flow)
        return met if self._is_whole else ratio(met, met.sum(2, keepdim=True))

    @property
    def _is_whole(self) -> bool:
        """Whether what is met sums to what is known: to 1, or as an exposure matrix says."""
        meeting = self._meeting
        nobody_left_out = self._part.inside is None and self._part.alike is None
        return nobody_left_out and (meeting.everyone or not meeting.normalised)

    def _met(self, crowd: Tensor) -> Tensor:
        """Return what those met of this part have, (C, T, M), of numbers (T, C, M) by cell."""
        inside, alike = self._part
        if alike is not None or (inside is not None and bool((inside != inside[:1]).any())):
            note_cells()
        return self._meeting.seen(crowd if inside is None else crowd * inside, alike)

    def _conditional(self, values: Tensor, within: str | Sequence[str]) -> Tensor:
        """Return the mean of values (T or 1, C or 1, S) of those met with one's own labels."""
        names = names_of("within", within)
        space = self._game.space
        if values.shape[1] > 1:
            note_cells()
        for name in names:
            if name not in space.coordinates:
                known = list(space.coordinates)
                hint = suggestion(name, known)
                raise ValueError(f"within={name!r} is no coordinate; they are {known}.{hint}")
        types = [name for name in names if name in space.types]
        states = [name for name in names if name not in space.types]
        part = self._part
        if types:
            part = part._replace(alike=_codes(space.cells, types))
        crowd = self._of(part)
        if not states:
            weighed = crowd._met(self._flow * values).sum(2, keepdim=True)
            if not crowd._is_whole:
                weighed = ratio(weighed, crowd._met(self._flow).sum(2, keepdim=True))
            return self._out(weighed)[..., None]
        code = _codes(space.within, states)
        same = (code[:, None] == code[None]).to(torch.float64)
        weighed, all_met = crowd._met(self._flow * values), crowd._met(self._flow)
        return self._out(ratio(weighed @ same, all_met @ same))[..., None]

    def _out(self, by_cell: Tensor) -> Tensor:
        """Return a tensor (C, ...) without the axis of cells where there are no types."""
        return by_cell if self._game.space.types else by_cell[0]


def _value_of(game: MeanFieldGame, name: str) -> Any:
    """Return a coordinate, type or feature by name."""
    known = named_inputs(game)
    if name not in known:
        hint = suggestion(name, known)
        raise ValueError(f"x.expect({name!r}): there are {', '.join(known)}.{hint}")
    return known[name]


def _inside_of(game: MeanFieldGame, what: str, labels: dict[str, Any]) -> Tensor:
    """Return 1 for types and states that have all of some labels, shape (C, S)."""
    space = game.space
    inside = torch.ones(space.size, dtype=torch.float64)
    for name, label in labels.items():
        label, known = plain_label(label), space.coordinates.get(name)
        call = f"x.{what}({name}={label!r})"
        if known is None:
            names = list(space.coordinates)
            raise ValueError(
                f"{call}: {name!r} is no coordinate; there are {', '.join(names)}."
                f"{suggestion(name, names)}"
            )
        if not isinstance(label, (str, int, float)) or label not in known:
            raise ValueError(
                f"{call}: {label!r} is no label of {name!r}, which has {list(known)}."
                f"{suggestion(label, known)}"
            )
        codes = torch.as_tensor(space.codes[list(space.coordinates).index(name)])
        inside = inside * (codes == known.index(label))
    return inside.reshape(space.n_cells, -1)


def _codes(space: StateSpace, names: Sequence[str]) -> Tensor:
    """Return one number for each entry of a space, the same where it has the same labels, (n,)."""
    codes = dict(zip(space.coordinates, space.codes, strict=True))
    sizes = [len(space.coordinates[name]) for name in names]
    return torch.from_numpy(np.ravel_multi_index([codes[name] for name in names], sizes))
