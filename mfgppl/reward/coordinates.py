"""The axes that a reward program compares: what they are called, and where each entry stands.

A comparison is a number, 1 where it holds and 0 elsewhere, whatever the labels are called.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.data.bins import Bin
from mfgppl.reward.remedies import CONDITIONS as HOW_TO_COMBINE
from mfgppl.reward.remedies import PARENTHESES
from mfgppl.reward.site_values import one_each

# functions of torch that take a condition, and where among their arguments
CONDITIONS = {
    torch.where: 0,
    Tensor.where: 1,
    torch.masked_fill: 1,
    Tensor.masked_fill: 1,
    Tensor.masked_fill_: 1,
    torch.masked_select: 1,
    Tensor.masked_select: 1,
    Tensor.__getitem__: 1,
}


class InMiddle:
    """How axes and comparisons meet NumPy arrays on either side, and `and` and `if`."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Run a function of NumPy as torch's of the same name, on plain tensors."""
        run = getattr(torch, ufunc.__name__, None)
        if method != "__call__" or options or run is None:
            return NotImplemented
        return run(*(torch.as_tensor(_number(value)) for value in inputs))

    def __bool__(self) -> bool:
        """Refuse: there is one answer for each time, state and action."""
        raise TypeError(f"{self!r} is no one condition. {HOW_TO_COMBINE}")


class Indicator(InMiddle, Tensor):
    """A tensor of 0 and 1 in float64 that also serves torch as a condition.

    Whatever is computed from it is a plain tensor; `&`, `|`, `^` and `~` give another indicator.

    Parameters
    ----------
    truth : Tensor of bool
        Where it is 1.
    """

    truth: Tensor

    def __new__(cls, truth: Tensor) -> "Indicator":
        """Make an indicator of a tensor of bool."""
        made = Tensor._make_subclass(cls, truth)
        made.truth = truth
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch on plain tensors."""
        return _call_plain(func, args, kwargs)

    def __and__(self, other: Any) -> "Indicator":
        """Return 1 where both are."""
        return Indicator(self.truth & _truth(other))

    def __or__(self, other: Any) -> "Indicator":
        """Return 1 where either is."""
        return Indicator(self.truth | _truth(other))

    def __xor__(self, other: Any) -> "Indicator":
        """Return 1 where one is and the other is not."""
        return Indicator(self.truth ^ _truth(other))

    def __invert__(self) -> "Indicator":
        """Return 1 where it is not."""
        return Indicator(~self.truth)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"a comparison of shape {tuple(self.shape)}"


class Labels(InMiddle):
    """An axis with words as labels, which answers comparisons and `isin` with 0/1 tensors.

    It is compared with a label, or with another axis label by label: `x.last != x.action`. The
    order is that of the labels.

    Parameters
    ----------
    name : str
        What the axis is called in messages.
    labels : sequence
        The labels.
    codes : Tensor of int
        Position of each entry, in a shape that broadcasts to (T, S, A).
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str, labels: Sequence[Any], codes: Tensor) -> None:
        self.name, self.labels, self.codes = name, tuple(labels), codes

    def __eq__(self, other: object) -> Indicator:  # type: ignore[override]
        if isinstance(other, (Labels, Numbers)):
            return Indicator(_same_label(self, other))
        return Indicator(self.codes == position(self.name, self.labels, other))

    def __ne__(self, other: object) -> Indicator:  # type: ignore[override]
        return ~(self == other)

    def __lt__(self, other: object) -> Indicator:
        return Indicator(self.codes < self._place(other))

    def __le__(self, other: object) -> Indicator:
        return Indicator(self.codes <= self._place(other))

    def __gt__(self, other: object) -> Indicator:
        return Indicator(self.codes > self._place(other))

    def __ge__(self, other: object) -> Indicator:
        return Indicator(self.codes >= self._place(other))

    def _place(self, other: object) -> Any:
        """Return where a label, or the labels of an axis with the same ones, stand in order."""
        if not isinstance(other, (Labels, Numbers)):
            return position(self.name, self.labels, other)
        if other.labels != self.labels:
            raise ValueError(
                f"x.{self.name} and x.{_called(other)} have no common order: their labels are "
                f"{list(self.labels)} and {list(other.labels or ())}."
            )
        return other.codes

    @property
    def centres(self) -> Tensor:
        """The centre of each entry's bin, in the unit of what was binned.

        Raises
        ------
        AttributeError
            If the labels are not those of `mfgppl.discretise`.
        """
        if not all(isinstance(label, Bin) for label in self.labels):
            raise AttributeError(
                f"the labels of x.{self.name} have no centres: bin the column with mfg.discretise, "
                f"and give the game the panel's labels, states={{{self.name!r}: "
                f"panel.space.coordinates[{self.name!r}]}}."
            )
        values = [label.centre for label in self.labels]
        return torch.tensor(values, dtype=torch.float64)[self.codes]

    def isin(self, labels: Sequence[Any]) -> Indicator:
        """Return 1 where the entry is one of `labels`."""
        return _any_of(self.name, self.labels, self.codes, labels)

    def each(self, prior: dist.Distribution) -> dist.Distribution:
        """Return a prior with one entry per label, whose dimension results call by the labels."""
        return one_each(self.name, self.labels, prior)

    def _reckoned_with(self, *_: object) -> Any:
        word = next(label for label in self.labels if isinstance(label, str))
        raise TypeError(
            f"x.{self.name} has words as labels ({word!r}), with which nothing can be reckoned; "
            f"compare it, x.{self.name} == {word!r}, or pick entries by x.{self.name}.codes."
        )

    def _combined(self, *_: object) -> Any:
        raise TypeError(f"x.{self.name} is no condition. {PARENTHESES}")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _reckoned_with
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __neg__ = _reckoned_with
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _combined

    def __repr__(self) -> str:
        return f"Labels({self.name}: {', '.join(map(str, self.labels))})"


class Numbers(InMiddle, Tensor):
    """An axis with numbers as labels: a tensor of them whose comparisons are 0/1 tensors.

    `==`, `!=` and `isin` take labels, and `==` and `!=` also tensors and other axes; the other
    comparisons take any number. Whatever is computed from it is a plain tensor.

    Parameters
    ----------
    values : Tensor
        The number of each entry, in a shape that broadcasts to (T, S, A).
    name : str
        What the axis is called in messages.
    labels : sequence, optional
        The labels; without them any number is compared.
    codes : Tensor of int, optional
        Position of each entry among the labels.
    """

    plain: Tensor
    called: str
    labels: tuple[Any, ...] | None
    codes: Tensor

    def __new__(
        cls,
        values: Tensor,
        name: str,
        labels: Sequence[Any] | None = None,
        codes: Tensor | None = None,
    ) -> "Numbers":
        """Make an axis of a tensor of numbers."""
        made = Tensor._make_subclass(cls, values)
        made.plain, made.called = values, name
        made.labels = None if labels is None else tuple(labels)
        if codes is not None:
            made.codes = codes
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch on plain tensors."""
        return _call_plain(func, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Travel to another process with the labels."""
        return type(self), (self.plain, *self._arguments)

    def __deepcopy__(self, memo: Any) -> "Numbers":
        """Copy the numbers; the labels never change."""
        return type(self)(self.plain.clone(), *self._arguments)

    __hash__ = Tensor.__hash__

    def __eq__(self, other: Any) -> Indicator:  # type: ignore[override]
        if isinstance(other, Labels):
            return Indicator(_same_label(self, other))
        if self.labels is None or _is_array(other):
            return Indicator(torch.eq(self.plain, _number(other)))
        return Indicator(self.codes == position(self.called, self.labels, other))

    def __ne__(self, other: Any) -> Indicator:  # type: ignore[override]
        return ~(self == other)

    def __lt__(self, other: Any) -> Indicator:
        return Indicator(self.plain < _number(other))

    def __le__(self, other: Any) -> Indicator:
        return Indicator(self.plain <= _number(other))

    def __gt__(self, other: Any) -> Indicator:
        return Indicator(self.plain > _number(other))

    def __ge__(self, other: Any) -> Indicator:
        return Indicator(self.plain >= _number(other))

    def _as_condition(self) -> Tensor:
        """Return the truth of an axis of 0 and 1."""
        if set(self.labels or (None,)) <= {0, 1}:
            return self.plain != 0
        raise TypeError(f"x.{self.called} is no condition. {PARENTHESES}")

    def __and__(self, other: Any) -> Indicator:
        """Return 1 where both are, of an axis of 0 and 1."""
        return Indicator(self._as_condition() & _truth(other))

    def __or__(self, other: Any) -> Indicator:
        """Return 1 where either is, of an axis of 0 and 1."""
        return Indicator(self._as_condition() | _truth(other))

    def __xor__(self, other: Any) -> Indicator:
        """Return 1 where one is and the other is not, of an axis of 0 and 1."""
        return Indicator(self._as_condition() ^ _truth(other))

    def __invert__(self) -> Indicator:
        """Return 1 where it is not, of an axis of 0 and 1."""
        return Indicator(~self._as_condition())

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"x.{self.called}, of shape {tuple(self.shape)},"

    def isin(self, labels: Sequence[Any]) -> Indicator:
        """Return 1 where the entry is one of `labels`."""
        if self.labels is None:
            return Indicator(torch.isin(self.plain, torch.tensor(list(labels)).to(self.plain)))
        return _any_of(self.called, self.labels, self.codes, labels)

    def each(self, prior: dist.Distribution) -> dist.Distribution:
        """Return a prior with one entry per label, whose dimension results call by the labels."""
        if self.labels is None:
            raise TypeError(f"x.{self.called} has no labels; x.{self.called}.each needs them.")
        return one_each(self.called, self.labels, prior)

    @property
    def _arguments(self) -> tuple[Any, ...]:
        return self.called, self.labels, vars(self).get("codes")


def axis(name: str, labels: Sequence[Any], codes: Tensor) -> Numbers | Labels:
    """Return an axis by its labels, numbers or words."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in labels):
        values = torch.tensor([float(v) for v in labels], dtype=torch.float64)[codes]
        return Numbers(values, name, labels, codes)
    return Labels(name, labels, codes)


def position(name: str, labels: tuple[Any, ...], label: Any) -> int:
    """Return where a label stands, else raise a `ValueError` that lists the labels."""
    plain = label.item() if isinstance(label, (np.ndarray, np.generic)) else label
    if isinstance(plain, (str, int, float)) and plain in labels:
        return labels.index(plain)
    several = isinstance(label, (list, tuple)) and all(one in labels for one in label)
    hint = f" Write x.{name}.isin({label!r})." if several else suggestion(label, labels)
    raise ValueError(
        f"x.{name} is compared with {label!r}, which is not one of its labels {list(labels)}.{hint}"
    )


def _called(axis: "Labels | Numbers") -> str:
    return axis.name if isinstance(axis, Labels) else axis.called


def _same_label(one: "Labels | Numbers", other: "Labels | Numbers") -> Tensor:
    """Return whether the entries of two axes have the same label, else raise a `ValueError`."""
    ours, theirs = one.labels or (), other.labels or ()
    if not set(ours) & set(theirs):
        raise ValueError(
            f"x.{_called(one)} and x.{_called(other)} have no label in common: {list(ours)} and "
            f"{list(theirs)}; call the same thing by the same label."
        )
    place = {label: k for k, label in enumerate(dict.fromkeys([*ours, *theirs]))}
    here, there = (torch.tensor([place[v] for v in labels]) for labels in (ours, theirs))
    return here[one.codes] == there[other.codes]


def as_index(value: Any) -> Any:
    """Return what picks entries of a tensor with positions in place of axes.

    Raises
    ------
    TypeError
        If an axis has numbers as labels that are not their positions, so that both could be meant.
    """
    if isinstance(value, Labels):
        return value.codes
    if isinstance(value, Numbers):
        return _positions_of(value)
    return tuple(map(as_index, value)) if type(value) is tuple else value


def _positions_of(axis: Numbers) -> Tensor:
    """Return the positions of whole numbers from 0 on."""
    if axis.labels is None and bool((axis.plain == axis.plain.round()).all()):
        return axis.plain.long()
    if axis.labels == tuple(range(len(axis.labels or ()))):
        return axis.codes
    raise TypeError(
        f"x.{axis.called} has numbers as labels that are not 0, 1, 2 ...: write "
        f"[x.{axis.called}.codes] to pick entries by the position of the label, or "
        f"[x.{axis.called}.long()] by the number itself."
    )


def _any_of(name: str, labels: tuple[Any, ...], codes: Tensor, asked: Sequence[Any]) -> Indicator:
    """Return 1 where an axis has any of some labels."""
    asked = [asked] if isinstance(asked, str) else asked
    places = [position(name, labels, label) for label in asked]
    return Indicator(torch.isin(codes, torch.tensor(places, dtype=codes.dtype)))


def _call_plain(func: Any, args: Any, kwargs: dict[str, Any] | None) -> Any:
    """Run a function of torch with plain tensors for indicators and numbers."""
    place = CONDITIONS.get(func)
    if func == Tensor.__getitem__:
        args = args[0], as_index(args[1])
    given = [_truths(v) if k == place else _values(v) for k, v in enumerate(args)]
    named = {k: _truths(v) if k in ("condition", "mask") else _values(v) for k, v in
             (kwargs or {}).items()}  # fmt: skip
    return func(*given, **named)


def _values(value: Any) -> Any:
    """Return a value with plain tensors of numbers in place of ours."""
    if isinstance(value, Indicator):
        return value.truth.to(torch.float64)
    if isinstance(value, Numbers):
        return value.plain
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    return type(value)(map(_values, value)) if type(value) in (list, tuple) else value


def _truths(value: Any) -> Any:
    """Return a value with plain tensors of bool in place of indicators."""
    if isinstance(value, Indicator):
        return value.truth
    return tuple(map(_truths, value)) if type(value) is tuple else _values(value)


def _truth(value: Any) -> Any:
    """Return the other side of `&`, `|` or `^` as a condition."""
    if isinstance(value, Indicator):
        return value.truth
    if isinstance(value, Numbers):
        return value._as_condition()
    if isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (bool, torch.bool):
        return torch.as_tensor(value)
    raise TypeError(f"&, | and ^ take conditions; got {value!r}. {PARENTHESES}")


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _number(value: Any) -> Any:
    """Return the other side of a comparison as plain torch takes it."""
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else _values(value)
