"""The panel as trajectories, read from a table and taken apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import strict_keywords
from mfgppl.data.coded_rows import CodedRows
from mfgppl.data.column_parts import parts_of
from mfgppl.data.neighbours import expose
from mfgppl.data.panel import Panel
from mfgppl.data.reading import read_panel
from mfgppl.data.rows import table_of
from mfgppl.data.selection import select, split, without_type


class Trajectories(CodedRows):
    """A panel of agents, coded against labelled states and actions; read it with `from_frame`.

    Rows are sorted by agent and time. A trajectory is a run of consecutive times of one agent.

    Attributes
    ----------
    space : StateSpace
        The state coordinates and their labels.
    actions : tuple
        Action labels, length A.
    first_time : int
        The time of the data that is `t = 0`; of dates, counted in the unit of `clock`.
    horizon : int
        Number of decision times T.
    agents : ndarray of object, shape (J,)
        The agent of each trajectory.
    offsets : ndarray of int, shape (J + 1,)
        Rows of trajectory `j` are `offsets[j]:offsets[j + 1]`.
    time, state, action : ndarray of int, shape (n_rows,)
        Codes of each row; `action` is -1 where a trajectory's last row has none.
    groups : dict of str to ndarray, shape (J,)
        Labels constant within an agent, for clustering.
    covariates : DataFrame
        One row for each label of the type that the covariates make, one column each of several
        covariates; a game takes them as `features=dict(panel.covariates)`.
    carried : ndarray of int, shape (J,)
        Periods that each trajectory is carried forward in the absorbing state of its last row: it
        counts in `visits`, and in nothing else.
    pooled_times : bool
        Whether all times are taken for one.
    owner : ndarray of int, shape (J,)
        Number of the agent of each trajectory, from 0 in the order of the rows. An agent who is
        drawn twice, as in a bootstrap, counts as two.
    exposures : dict of str to Exposure
        State coordinates that say what an agent's own neighbours do, by name.
    clock : Clock
        From one time to the next: a step, in integers or a unit of dates.
    """

    @classmethod
    @strict_keywords
    def from_frame(
        cls,
        frame: Any,
        *,
        agent: str = "agent",
        time: str = "time",
        state: str | Sequence[str] = "state",
        action: str = "action",
        types: Sequence[str] = (),
        covariates: Sequence[str] = (),
        state_labels: Mapping[str, Sequence[Any]] | None = None,
        action_labels: Sequence[Any] | None = None,
        type_labels: Mapping[str, Sequence[Any]] | None = None,
        absorbing: Mapping[str, Any] | None = None,
        text: Sequence[str] = (),
        groups: Sequence[str] = (),
        gaps: str = "error",
    ) -> "Trajectories":
        """Read a table with one row per agent and time.

        Parameters
        ----------
        frame : table or path
            A pandas, polars or pyarrow table, a DuckDB relation, anything else that narwhals
            reads, or the path of a CSV (also compressed) or Parquet file. Levels of a pandas
            index count as columns by their names.
        agent, time, action : str
            Column names. Times are integers or dates, evenly spaced: the step is found, dates
            count in the coarsest unit that keeps them apart, and `periods` says what times are
            called. The action may be empty in an agent's last row: a state is seen, no decision.
        state : str or list of str
            Column or columns whose product is the state.
        types : list of str
            Columns that never change in an agent (its size, its village): labels that rewards and
            dynamics may differ by. They come first in `space`. A column may be a type and in
            `groups`; one that `state` names as well is a type.
        covariates : list of str
            Columns of numbers that never change in an agent. Agents with the same numbers are of
            one type: of one covariate, the type has its name and the numbers as labels; of
            several, it is called "covariates", its labels count the distinct rows from 0, and
            `panel.covariates` holds the rows, which a game takes as
            `features=dict(panel.covariates)`. Each distinct row costs one sweep over time in every
            evaluation: bin what is continuous with `mfgppl.discretise`.
        state_labels, type_labels : mapping of str to list, optional
            Labels of each such column in order; by default those in the table, in the order
            that the column keeps (categories, an Enum, bins of `mfgppl.discretise`) or sorted.
        action_labels : list, optional
            Labels of the actions in order; by default those in the table, sorted; intervals, as
            of `pandas.cut`, by their ends.
        absorbing : mapping of str to label or list, optional
            Labels that make a state absorbing, by column of `state`, all of them at once:
            `{"law": "yes"}`. An agent who leaves the table from such a state, or has a gap after
            it, is carried forward in it until the panel's last time, or its next row: it counts in
            `visits` and the mean field, never in decisions, starts, ends or moves. One who is seen
            in another state later is a fault.
        text : list of str
            Columns of a CSV file to be read as text as they stand, so that codes such as 007 keep
            their zeros and words such as NA or null are labels. Without it a column of numbers
            holds numbers, those words are empty cells, and codes that become one number are a
            fault. Columns whose declared labels are all text are text too, and there declared
            words are labels.
        groups : list of str
            Columns constant within an agent (a category, a carrier), kept for clustering.
        gaps : {"error", "split"}
            Whether a missing time within an agent is a fault or starts a new trajectory.

        Returns
        -------
        Trajectories
            The panel, sorted by agent and time.

        Raises
        ------
        DataError
            With all faults of the table at once: missing columns or labels, unknown labels,
            non-integer times, duplicates, gaps, missing actions, types that change.
        """
        columns = {
            "agent": agent, "time": time, "state": state, "action": action,
            "types": types, "covariates": covariates,
        }  # fmt: skip
        labels = {"state": state_labels, "action": action_labels, "types": type_labels}
        parts = parts_of(columns, labels, gaps=gaps, text=text, groups=groups, absorbing=absorbing)
        return cls(**read_panel(frame, parts, groups=groups, gaps=gaps))

    @strict_keywords
    def to_frame(
        self, *, agent: str = "agent", time: str = "time", action: str = "action"
    ) -> pd.DataFrame:
        """Return the panel as a table: one row per agent and time, one column per coordinate.

        A column whose labels are bins, or words that are not in the order of the alphabet, is an
        ordered categorical, which `from_frame` reads as it is, also from a Parquet file.
        """
        return table_of(self, agent=agent, time=time, action=action)

    @strict_keywords
    def subset(self, keep: np.ndarray) -> "Trajectories":
        """Return the panel of some trajectories, by position; repeats are allowed (bootstrap)."""
        return select(self, keep)

    @strict_keywords
    def split(self, by: str) -> dict[Any, "Trajectories"]:
        """Return the panels of the groups, by label, sorted, or of the labels of a type, in order.

        Parameters
        ----------
        by : str
            A type, which the panels returned no longer have; or a column named in
            `from_frame(groups=)`.

        Raises
        ------
        ValueError
            If the panel has no such type or groups.
        """
        return split(self, by)

    @strict_keywords
    def exposure(
        self,
        edges: Any,
        *,
        of: Mapping[str, Any],
        bins: Any,
        name: str,
        alone: str | float | None = None,
    ) -> "Trajectories":
        """Return the panel with what an agent's own neighbours do as a coordinate of its state.

        It is the share of an agent's neighbours who are in given states at the time, in bins:
        neighbours who are absent at a time do not count, those carried forward do. It is seen
        before the agent acts.

        Parameters
        ----------
        edges : table, labelled matrix, networkx graph or libpysal graph
            Who sees whom, by the agents' labels, as `Network` takes it; a table may have a column
            `time`, where edges change.
        of : mapping of str to label or list
            The states of neighbours that count, as `{"capacity": [0, 1]}`: labels of coordinates
            or types, all of them at once.
        bins : int or list of float
            How many bins with about as many rows in each; or ascending ends, the first and last
            among them. A bin is called by the mean share of its rows, or its middle where it has
            none, so that programs can reckon with it.
        name : str
            Name of the coordinate, the last of the state.
        alone : str or number, optional
            Label of those without a neighbour at a time, who are a fault without it. A word makes
            all labels words to programs, which then compare and cannot reckon with them.

        Returns
        -------
        Trajectories
            The panel, its `exposures` with one more name.

        Raises
        ------
        DataError
            With the faults of the edges, and agents who have nobody around.
        ValueError, TypeError
            If a name, a label or the bins are wrong.

        Notes
        -----
        There is no equilibrium of such a coordinate, which no flow moves: its law is estimated,
        and taken as it is whatever an agent does (`mfgppl.networks.dynamics`).
        """
        return expose(self, edges, of=of, bins=bins, name=name, alone=alone)

    def drop_type(self, name: str) -> "Trajectories":
        """Return the panel as it is where nobody sees a type.

        Parameters
        ----------
        name : str
            A type.

        Raises
        ------
        ValueError
            If the panel has no such type.
        """
        return without_type(self, name)


def with_rows(panel: Panel, what: str) -> Trajectories:
    """Return a panel that has its rows, else raise a `ValueError` that says what needs them."""
    if not isinstance(panel, Trajectories):
        raise ValueError(
            f"{what} needs the trajectories one by one, which a {type(panel).__name__} does not "
            "keep; read the table with Trajectories.from_frame."
        )
    return panel
