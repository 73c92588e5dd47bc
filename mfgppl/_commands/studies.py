"""A model file for a table: its columns, labels, dynamics, and terms to start from."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
import pyro.distributions as dist
import scipy.linalg

from mfgppl._commands.boundary import OneLine

if TYPE_CHECKING:
    from mfgppl.data.trajectories import Trajectories

ROLES = {
    "agent": "Column of the agent",
    "time": "Column of the time, integers one step apart",
    "state": "Columns of the state, with commas",
    "action": "Column of the action",
}
MOST_LABELS = 12  # of a column that have a term each
OF_STATE = 1000.0  # makes terms of states those that are left out

PAGE = '''"""What are the agents of {table} after?

Check the table:     mfgppl check {path} {options}
Fit it:              mfgppl fit {file} {path} --method mle
Draw and report:     mfgppl fit {file} {path} --out {stem}.nc --report {stem}.html
"""

import mfgppl as mfg

# Which columns are what, and their labels in order.
COLUMNS = {columns}

# What agents may care about: each term is a feature times a coefficient of that name, in units of
# the noise in choices. Agents look ahead: a term in the state is earned in every period.
TERMS = {{
{terms}
}}


def game(panel):
    """Return the world: dynamics are frequencies of the table, smoothed by half a count."""
    return mfg.MeanFieldGame(
        states=panel.space.within.coordinates,
        actions=panel.actions,
{types}        horizon=panel.horizon,
        transition=panel.estimate_transition(prior_count=0.5),
        initial=panel.initial_distribution(),
        discount=1.0,  # what the next period weighs
    )


def model(panel):
    """Return the model that `mfgppl fit` fits: normal priors whose scales leave choices open."""
    world = game(panel)
    reward = mfg.design.weakly_informative(world, TERMS, mean_field=panel.mean_field())
    return mfg.TrajectoryModel(world, reward, panel)
'''


class Term(NamedTuple):
    """A term of a reward.

    Attributes
    ----------
    name : str
        Its coefficient's name.
    code : str
        Its feature, as the file has it.
    comment : str
        What it is.
    of_state : bool
        Whether it depends on the state alone.
    """

    name: str
    code: str
    comment: str
    of_state: bool


def columns_of(path: Path) -> list[str]:
    """Return the names of a table's columns."""
    import pyarrow.csv
    import pyarrow.parquet

    from mfgppl.data.files import file_faults, format_of

    kind = format_of(path)
    with file_faults(path, kind):
        if kind == "parquet":
            return list(pyarrow.parquet.ParquetDataset(path).schema.names)
        with pyarrow.csv.open_csv(path) as opened:
            return list(opened.schema.names)


def asked(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of the roles, asking for those that are not given."""
    missing = [role for role in ROLES if not given[role]]
    if missing:
        click.echo(f"Columns: {', '.join(names)}", err=True)
    answers = {role: _answer(role, names) for role in missing}
    return {role: given[role] or answers[role] for role in ROLES}


def _answer(role: str, names: Sequence[str]) -> Any:
    own = role if role in names else None
    text = click.prompt(ROLES[role], default=own, err=True)
    parts = [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in names]
    if unknown:
        raise OneLine(f"no column {unknown[0]!r}; the table has {', '.join(names)}")
    return parts if role == "state" else text.strip()


class Page(NamedTuple):
    """A model file.

    Attributes
    ----------
    text : str
        What it holds.
    left_out : tuple of str
        Terms that no data can identify, which it has as comments.
    """

    text: str
    left_out: tuple[str, ...]


def page_of(panel: "Trajectories", columns: Mapping[str, Any], table: str, file: Path) -> Page:
    """Return the model file of a panel.

    Parameters
    ----------
    panel : Trajectories
        The table as read.
    columns : mapping
        Arguments of `Trajectories.from_frame`.
    table : str
        The table, as a command names it.
    file : Path
        Where the page is to be.
    """
    terms = terms_of(panel)
    draft = _filled(panel, columns, table, file, terms, ())
    left_out = _not_identified(draft, panel, terms)
    if len(left_out) == len(terms):
        raise OneLine(
            f"no data can identify what the agents of {table} are after: each has no choice"
        )
    return Page(_filled(panel, columns, table, file, terms, left_out), left_out)


def terms_of(panel: "Trajectories") -> list[Term]:
    """Return terms to start from: actions and states beside the most frequent, and the crowd."""
    taken = panel.counts.actions.sum((0, 1))
    terms = _of_labels("action", panel.actions, taken, of_state=False)
    within, visits = panel.space.within, panel.visits.sum(0).reshape(panel.space.n_cells, -1).sum(0)
    for (name, labels), codes in zip(within.coordinates.items(), within.codes, strict=True):
        seen = np.bincount(codes, weights=visits, minlength=len(labels))
        terms += _of_labels(name, labels, seen, of_state=True)
    crowd = Term("crowd", '"density"', "the share of all agents in one's own state", True)
    return _with_names_of_their_own([*terms, crowd])


def _of_labels(name: str, labels: Sequence[Any], seen: Any, *, of_state: bool) -> list[Term]:
    """Return a slope in numbers, or a term for each label but the most frequent."""
    odd = [v for v in labels if not isinstance(v, (str, int, float))]
    if odd:
        raise OneLine(f"labels of {name} must be words or numbers; got {odd[0]!r}")
    if len(labels) < 2:
        return []
    words = any(isinstance(v, (str, bool)) for v in labels)
    if not words and (of_state or len(labels) > MOST_LABELS):
        return [Term(_slug(name), f"lambda x: x.{name}", f"one unit more of {name}", of_state)]
    usual = int(np.argmax(seen))
    shown = [v for k, v in enumerate(labels) if k != usual][:MOST_LABELS]
    prefix = "" if words and not of_state else f"{name} "
    return [
        Term(_slug(f"{prefix}{v}"), f"lambda x: x.{name} == {_literal(v)}",
             f"beside {labels[usual]}, the most frequent {name}", of_state)
        for v in shown
    ]  # fmt: skip


def _slug(text: str) -> str:
    """Return a name that tests and tables take."""
    word = re.sub(r"\W+", "_", text).strip("_") or "term"
    return f"_{word}" if word[0].isdigit() else word


def _with_names_of_their_own(terms: Sequence[Term]) -> list[Term]:
    names: list[str] = []
    for term in terms:
        again = sum(re.fullmatch(rf"{re.escape(term.name)}(_\d+)?", n) is not None for n in names)
        names.append(f"{term.name}_{again + 1}" if again else term.name)
    return [term._replace(name=name) for term, name in zip(terms, names, strict=True)]


def _not_identified(draft: str, panel: "Trajectories", terms: Sequence[Term]) -> tuple[str, ...]:
    """Return as many terms as there are combinations that no data can identify, of states first."""
    import mfgppl as mfg

    page: dict[str, Any] = {}
    exec(compile(draft, "model.py", "exec"), page)
    reward = mfg.linear_reward(page["TERMS"], dist.Normal(0.0, 1.0))
    found = mfg.identify(page["game"](panel), reward, mean_field=panel.mean_field())
    flat = found.directions[[term.name for term in terms]].to_numpy()
    if not len(flat):
        return ()
    weights = np.array([OF_STATE if term.of_state else 1.0 for term in terms])
    order = scipy.linalg.qr(flat * weights, mode="r", pivoting=True)[1]
    return tuple(terms[k].name for k in sorted(order[: len(flat)]))


def _filled(
    panel: "Trajectories", columns: Mapping[str, Any], table: str, file: Path,
    terms: Sequence[Term], left_out: Sequence[str],
) -> str:  # fmt: skip
    space = panel.space
    known = {k: v for k, v in columns.items() if v and (k, v) != ("gaps", "error")}
    if len(known["state"]) == 1:
        known["state"] = known["state"][0]
    known["state_labels"] = {k: list(v) for k, v in space.within.coordinates.items()}
    known["action_labels"] = list(panel.actions)
    if space.types:
        known["type_labels"] = {k: list(v) for k, v in space.cells.coordinates.items()}
    return PAGE.format(
        table=Path(table).name.replace("\\", "/"),
        path=shlex.quote(table),
        options=_options(columns),
        file=shlex.quote(str(file)),
        stem=shlex.quote(str(file.with_name("fit"))),
        columns=_dictionary(known),
        terms="\n".join(_line(term, term.name in left_out) for term in terms),
        types="        types=panel.space.cells.coordinates,\n" if space.types else "",
    )


def _dictionary(columns: Mapping[str, Any]) -> str:
    """Return columns as a dict in Python, one key a line."""
    lines = [f"    {_literal(k)}: {_literal(v)},\n" for k, v in columns.items()]
    return "{\n" + "".join(lines) + "}"


def _literal(value: Any) -> str:
    """Return a value in Python, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)


def _line(term: Term, left_out: bool) -> str:
    entry = f"{_literal(term.name)}: {term.code},  # {term.comment}"
    return f"    # no data can identify: {entry}" if left_out else f"    {entry}"


def _options(columns: Mapping[str, Any]) -> str:
    """Return columns as options of `mfgppl check`."""
    words = {"types": "type", "groups": None}
    parts = []
    for role, value in columns.items():
        option = words.get(role, role)
        if option is None or (option, value) == ("gaps", "error"):
            continue
        for each in [value] if isinstance(value, str) else value:
            parts.append(f"--{option} {shlex.quote(each)}")
    return " ".join(parts)
