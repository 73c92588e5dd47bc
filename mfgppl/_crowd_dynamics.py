"""Dynamics that the crowd moves: functions of a crowd, as the tables of each cell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.sparse
import torch
from torch import Tensor

from mfgppl._by_type import along_steps, stacked
from mfgppl._game_arguments import TABLE, check_rows, probabilities, sparse_table, table_shape
from mfgppl._keep import Keeper, kept
from mfgppl._meeting import Meeting, ratio
from mfgppl.control.steps import DenseSteps, Steps, as_steps
from mfgppl.data.labelled import Order, in_order

SAME = 1e-12  # difference of a probability that is rounding


@dataclass(frozen=True, eq=False)
class CrowdDynamics(Keeper):
    """Functions of the crowd that agents meet, which give a table of transitions at each time.

    Attributes
    ----------
    functions : callable or list
        A function of the crowd and the time; with types one of each cell, or its tensor.
    meets : Meeting
        Which crowd the agents of each cell meet.
    order : Order
        The states of one cell, and the actions.
    joint : bool
        Whether crowds are over states and actions.
    """

    functions: Any
    meets: Meeting
    order: Order
    joint: bool

    def steps(self, crowds: Sequence[Tensor], times: range, *, checked: bool = True) -> Steps:
        """Return the dynamics step by step along the crowds of some times.

        Without checks, which read values, they can be recorded.
        """
        if not checked and len(times):
            try:
                tables = [self.dense(crowd, t) for crowd, t in zip(crowds, times, strict=True)]
            except TypeError:  # sparse matrices of scipy, which are not recorded
                return self.steps(crowds, times)
            return DenseSteps(torch.stack(tables).expand(-1, len(self.meets.row), -1, -1, -1))
        return as_steps(self.along(crowds, times), len(times) + 1)

    def along(self, crowds: Sequence[Tensor], times: range) -> Tensor:
        """Return the tables along the crowds of some times (n, S, A, S), or by cell, else raise."""
        tables = [self.checked(crowd, t) for crowd, t in zip(crowds, times, strict=True)]
        return along_steps(tables, len(self.meets.row), table_shape(self.order))

    def checked(self, mean_field: Tensor, time: int) -> Tensor:
        """Return the table (S, A, S) at a time, (C, S, A, S) of C > 1 cells, else raise.

        Raises
        ------
        ValueError
            If a function fails, or returns no transition.
        """
        try:
            made = self.tables(mean_field, time)
        except Exception as error:
            shape = "(S, A)" if self.joint else "(S,)"
            message = f"`transition` failed at time {time} of a mean field {shape}: {error!r}"
            raise ValueError(message) from error
        if isinstance(made, Tensor):
            return self._checked_at_once(made, time)
        checked = {id(table): self._checked(table, time) for table in made}
        tables = [checked[id(table)] for table in made]
        return tables[0] if self._one_cell else stacked(tables)

    def dense(self, mean_field: Tensor, time: int) -> Tensor:
        """Return the same unchecked, once where all cells share it, (1, S, A, S) or (C, S, A, S).

        Raises
        ------
        TypeError
            If they are not dense tensors.
        """
        made = self.tables(mean_field, time)
        if isinstance(made, Tensor):
            return made.to(torch.float64)
        if not all(isinstance(t, Tensor) and t.layout == torch.strided for t in made):
            raise TypeError("only dense tensors move with the crowd in kernels")
        shared = all(t is made[0] for t in made)
        return torch.stack([t.to(torch.float64) for t in (made[:1] if shared else made)])

    def tables(self, mean_field: Tensor, time: int) -> list[Any] | Tensor:
        """Return each cell's table at a time, the same object where cells share it.

        Or all in one tensor (C, S, A, S), where the function takes many crowds at once.
        """
        if self._one_cell:
            return [self.functions(mean_field, time)]
        crowds = exposures(self.meets, mean_field[None], self._shape)[:, 0]
        if self._takes_many:
            return self.meets.by_cell(at_once(self.functions[0], crowds, time))
        rows = self.meets.row.tolist()
        known: dict[tuple[int, int], Any] = {}
        for function, row in zip(self.functions, rows, strict=True):
            if (id(function), row) in known:
                continue
            if callable(function):
                known[id(function), row] = function(crowds[row], time)
            else:
                known[id(function), row] = function[time] if function.ndim == 4 else function
        return [known[id(f), row] for f, row in zip(self.functions, rows, strict=True)]

    @property
    def _one_cell(self) -> bool:
        return callable(self.functions)

    @property
    def _shape(self) -> tuple[int, ...]:
        return crowd_shape(self.order, self.joint)

    @property
    @kept
    def _takes_many(self) -> bool:
        """Whether one function gives the dynamics of many crowds at once as it gives each."""
        one, several = self.functions[0], len(torch.unique(self.meets.row)) > 1
        if not several or any(function is not one for function in self.functions):
            return False
        return agrees_at_once(one, (3, *self._shape))

    def _checked_at_once(self, tables: Tensor, time: int) -> Tensor:
        """Return tables of all cells (C, S, A, S) if they are transitions, else raise."""
        shape = (len(self.functions), *table_shape(self.order))
        array = probabilities("transition", tables, shape, f"(C, S, A, S) at time {time}")
        sums = array.detach().sum(-1)
        worst = int((sums - 1).abs().amax((1, 2)).argmax())
        check_rows(self.order, sums[worst], time)
        return array

    def _checked(self, value: Any, time: int) -> Tensor:
        """Return what a function gave as a table (S, A, S), else raise."""
        if scipy.sparse.issparse(value):
            return sparse_table(self.order, value, time)
        value = in_order("transition", value, TABLE, self.order)
        hint = f"(S, A, S) at time {time}"
        array = probabilities("transition", value, table_shape(self.order), hint)
        check_rows(self.order, array.detach().sum(-1), time)
        return array


def crowd_shape(order: Order, joint: bool) -> tuple[int, ...]:
    """Return the shape of the crowd that an agent meets: (S,), or (S, A) in a joint game."""
    return (order.space.size, len(order.actions))[: 1 + joint]


def exposures(meets: Meeting, mean_field: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the crowds (R, T, ...) that agents meet along a flow (T, C * S, ...)."""
    T, C = len(mean_field), len(meets.row)
    rows = meets.rows(mean_field.reshape(T, C, -1))
    if meets.normalised and not meets.everyone:
        rows = ratio(rows, rows.sum(2, keepdim=True))
    return rows.reshape(-1, T, *shape)


def at_once(function: Callable[[Tensor, int], Tensor], crowds: Tensor, time: int) -> Tensor:
    """Return what a function of a crowd gives for each of many, (R, ...) of crowds (R, ...)."""
    made: Tensor = torch.vmap(lambda crowd: function(crowd, time))(crowds)
    return made


def agrees_at_once(function: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a function may be asked so: it gives what it gives for one crowd at a time.

    Functions that branch on the crowd, leave torch or write in place do not, and are called once
    for each crowd.

    Parameters
    ----------
    function : callable
        Dynamics as a function of the crowd and the time.
    shape : tuple of int
        Crowds on which it is tried, (R, S) or (R, S, A).
    """
    generator = torch.Generator().manual_seed(0)
    crowds = torch.rand(shape, dtype=torch.float64, generator=generator)
    crowds /= crowds.flatten(1).sum(1).reshape(-1, *[1] * (len(shape) - 1))
    with torch.no_grad():
        try:
            many = at_once(function, crowds, 0)
            each = [function(crowd, 0) for crowd in crowds]
        except Exception:  # whatever the user's function raises is raised where it is called alone
            return False
    if not all(isinstance(table, Tensor) for table in [many, *each]):
        return False
    single = torch.stack([table.to(many.dtype) for table in each])
    return single.shape == many.shape and bool((single - many).abs().max() <= SAME)
