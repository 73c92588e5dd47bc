"""What a reward program sees: the game and the crowd as broadcast-ready tensors."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl.game import MeanFieldGame


class Labels:
    """A labelled axis that answers `==`, `!=` and `isin` with 0/1 tensors.

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

    def _position(self, label: Any) -> int:
        if label not in self.labels:
            raise ValueError(
                f"x.{self.name} is compared with {label!r}, which is not one of its labels "
                f"{list(self.labels)}.{suggestion(label, self.labels)}"
            )
        return self.labels.index(label)

    def __eq__(self, label: object) -> Tensor:  # type: ignore[override]
        return (self.codes == self._position(label)).to(torch.float64)

    def __ne__(self, label: object) -> Tensor:  # type: ignore[override]
        return 1.0 - (self == label)

    def isin(self, labels: Sequence[Any]) -> Tensor:
        """Return 1 where the entry is one of `labels`."""
        none = torch.zeros(self.codes.shape, dtype=torch.float64)
        return functools.reduce(torch.maximum, [self == label for label in labels], none)

    def __repr__(self) -> str:
        return f"Labels({self.name}: {', '.join(map(str, self.labels))})"


class RewardInputs:
    """Inputs of a reward program, one axis each for time, state and action.

    State coordinates and the game's features are attributes by name. A coordinate (or the
    actions) with numbers as labels is a tensor of them; with words it is compared, `x.stock ==
    "low"`.

    Parameters
    ----------
    game : MeanFieldGame
        The game.
    mean_field : Tensor, shape (T, S), or (T, S, A) in a joint game
        The flow that the agents face.

    Attributes
    ----------
    time : Tensor, shape (T, 1, 1)
        0 .. T-1.
    action : Tensor or Labels, shape (1, 1, A)
        The action.
    mean_field : Tensor, shape (T, S)
        The flow.
    density : Tensor, shape (T, S, 1)
        Share of the crowd in one's own state.
    play : Labels, shape (1, 1, 1)
        In `Plays` only: which play this is.
    occupancy : Tensor, shape (T, S, A)
        In joint games only: share of the crowd in one's own state that takes one's own action.
    """

    play: Labels

    def __init__(self, game: MeanFieldGame, mean_field: Tensor) -> None:
        self._game = game
        if game.joint:
            self.occupancy = mean_field
            mean_field = mean_field.sum(-1)
        self.mean_field = mean_field
        self.density = mean_field[:, :, None]
        self.time = torch.arange(game.shape[0], dtype=torch.float64)[:, None, None]
        self.action = _axis("action", game.actions, torch.arange(game.n_actions)[None, None, :])
        codes = game.space.codes
        for row, (name, labels) in zip(codes, game.space.coordinates.items(), strict=True):
            setattr(self, name, _axis(name, labels, torch.as_tensor(row)[None, :, None]))
        for name, values in game.features.items():
            setattr(self, name, values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, S, A)."""
        return self._game.shape

    def expect(self, quantity: str | Tensor) -> Tensor:
        """Return the crowd's mean of a state coordinate, a feature or a tensor.

        Parameters
        ----------
        quantity : str or Tensor
            A name, or a tensor that broadcasts to (T, S, 1).

        Returns
        -------
        Tensor, shape (T, 1, 1)
            `sum_s mu_t(s) quantity_t(s)`.

        Raises
        ------
        TypeError
            If the quantity has words as labels, or varies with the action.
        """
        values = getattr(self, quantity) if isinstance(quantity, str) else quantity
        if isinstance(values, Labels):
            raise TypeError(
                f"x.expect({quantity!r}): {quantity} has words as labels and no mean; "
                f"use x.share({quantity}={values.labels[0]!r})."
            )
        if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[-1] != 1:
            came = tuple(values.shape) if isinstance(values, Tensor) else repr(values)
            raise TypeError(
                "x.expect takes a quantity of time and state, of a shape like (T, S, 1); "
                f"got {came}."
            )
        return (self.density * values).sum(1, keepdim=True)

    def share(self, **labels: Any) -> Tensor:
        """Return the share of the crowd with the given labels, `x.share(stock="low")`.

        Returns
        -------
        Tensor, shape (T, 1, 1)
            The mass of the states that have all of them.
        """
        inside = torch.ones(1, self._game.n_states, 1, dtype=torch.float64)
        for name, label in labels.items():
            known = self._game.space.coordinates.get(name)
            if known is None or label not in known:
                options = {k: list(v) for k, v in self._game.space.coordinates.items()}
                raise ValueError(f"x.share({name}={label!r}): the coordinates are {options}.")
            position = list(self._game.space.coordinates).index(name)
            codes = torch.as_tensor(self._game.space.codes[position])[None, :, None]
            inside = inside * (codes == known.index(label))
        return (self.density * inside).sum(1, keepdim=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "play":
            raise AttributeError(
                "this model has one play; x.play, which of several a program is in, is there with "
                "mfgppl.Plays."
            )
        if name == "occupancy":
            raise AttributeError(
                "this game's mean field is over states alone; x.occupancy, its distribution over "
                "states and actions, is there with MeanFieldGame(joint=True)."
            )
        known = [k for k in vars(self) if not k.startswith("_")] + ["expect", "share"]
        raise AttributeError(
            f"a reward program has no input x.{name};{suggestion(name, known)} "
            f"inputs: {', '.join(sorted(known))}."
        )


def _axis(name: str, labels: Sequence[Any], codes: Tensor) -> Any:
    """Return numbers as a tensor of them and words as `Labels`."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in labels):
        return torch.tensor([float(v) for v in labels], dtype=torch.float64)[codes]
    return Labels(name, labels, codes)
