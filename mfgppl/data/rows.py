"""A panel as a table again: one row per agent and time, one column per coordinate."""

import numpy as np
import pandas as pd

from mfgppl._arguments import is_a
from mfgppl.data.coded_rows import CodedRows
from mfgppl.data.orders import bins_of, needs_order
from mfgppl.data.space import index_of


def table_of(panel: CodedRows, *, agent: str, time: str, action: str) -> pd.DataFrame:
    """Return the table of a panel; see `Trajectories.to_frame`.

    Raises
    ------
    TypeError, ValueError
        If a name of a column is no text, or that of another.
    """
    _check_names(panel, agent=agent, time=time, action=action)
    columns = {agent: panel.agents[panel.trajectory], time: _dates(panel)}
    columns |= {name: values[panel.state] for name, values in panel.space.columns.items()}
    moves = index_of([*panel.actions, None])[panel.action]
    columns[action] = pd.Series(moves).infer_objects().to_numpy()
    table = pd.DataFrame(columns)
    ordered = {**panel.space.coordinates, action: panel.actions}
    for name in (name for name, labels in ordered.items() if needs_order(labels)):
        categories = pd.Index(list(ordered[name]), dtype=object)
        code = panel.space.codes_of(name)[panel.state] if name != action else panel.action
        table[name] = pd.Series(
            pd.Categorical.from_codes(code, categories=categories, ordered=True)
        )
    if bins := bins_of(panel.space):
        table.attrs["bins"] = {name: made.as_dict() for name, made in bins.items()}
    return table


def _check_names(panel: CodedRows, **given: str) -> None:
    for argument, name in given.items():
        is_a(argument, name, str)
    names = [given["agent"], given["time"], *panel.space.coordinates, given["action"]]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each column needs a name of its own; got {name!r} twice.")


def _dates(panel: CodedRows) -> np.ndarray:
    """Return the time of each row: an integer, or the date on which it begins."""
    called = panel.times_called()
    if panel.clock.unit is not None:
        called = pd.PeriodIndex(called, freq=panel.clock.unit).to_timestamp().to_numpy()
    return np.asarray(called[panel.time])
