"""The axes that a reward program compares: what they are called, and where each entry stands.

A comparison is a number, 1 where it holds and 0 elsewhere, whatever the labels are called.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.data.space import text_labels

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


class Indicator(Tensor):
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


class Labels:
    """An axis with words as labels, which answers `==`, `!=` and `isin` with 0/1 tensors.

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

    def __eq__(self, label: object) -> Indicator:  # type: ignore[override]
        return Indicator(self.codes == position(self.name, self.labels, label))

    def __ne__(self, label: object) -> Indicator:  # type: ignore[override]
        return Indicator(self.codes != position(self.name, self.labels, label))

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

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _reckoned_with
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __neg__ = _reckoned_with

    def __repr__(self) -> str:
        return f"Labels({self.name}: {', '.join(map(str, self.labels))})"


class Numbers(Tensor):
    """An axis with numbers as labels: a tensor of them whose comparisons are 0/1 tensors.

    `==`, `!=` and `isin` take labels, and `==` and `!=` also tensors; the other comparisons take
    any number. Whatever is computed from it is a plain tensor.

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


def one_each(name: str, labels: Sequence[Any], prior: dist.Distribution) -> dist.Distribution:
    """Return a prior for a vector with one independent entry per label.

    Parameters
    ----------
    name : str
        What the labels are of.
    labels : sequence
        The labels.
    prior : Distribution
        Of an entry, a number.

    Raises
    ------
    TypeError
        If the prior is no distribution of a number.
    """
    shape = getattr(prior, "batch_shape", None), getattr(prior, "event_shape", None)
    if not hasattr(prior, "log_prob") or shape != ((), ()):
        raise TypeError(
            f"x.{name}.each takes the prior of one entry, as dist.Normal(0.0, 1.0); got {prior!r}."
        )
    made = prior.expand([len(labels)]).to_event(1)
    made.entries = ((name, tuple(labels)),)
    return made


def entry_labels(entries: Sequence[tuple[str, Sequence[Any]]]) -> list[str]:
    """Return the label of each entry of an array whose axes have labels: "small, 0"."""
    axes = [text_labels(labels) for _, labels in entries]
    return [", ".join(parts) for parts in itertools.product(*axes)]


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
    raise ValueError(
        f"x.{name} is compared with {label!r}, which is not one of its labels "
        f"{list(labels)}.{suggestion(label, labels)}"
    )


def _any_of(name: str, labels: tuple[Any, ...], codes: Tensor, asked: Sequence[Any]) -> Indicator:
    """Return 1 where an axis has any of some labels."""
    asked = [asked] if isinstance(asked, str) else asked
    places = [position(name, labels, label) for label in asked]
    return Indicator(torch.isin(codes, torch.tensor(places, dtype=codes.dtype)))


def _call_plain(func: Any, args: Any, kwargs: dict[str, Any] | None) -> Any:
    """Run a function of torch with plain tensors for indicators and numbers."""
    place = CONDITIONS.get(func)
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
    return value != 0 if isinstance(value, Tensor) else bool(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _number(value: Any) -> Any:
    """Return the other side of a comparison as plain torch takes it."""
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else _values(value)
