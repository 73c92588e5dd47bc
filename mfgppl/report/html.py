"""The uncertainty report: one self-contained HTML page, and its numbers as JSON beside it."""

import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import is_a, positive_int, real_between, strict_keywords
from mfgppl._version import __version__
from mfgppl.inference.compiled import density_of
from mfgppl.inference.estimate import PointEstimate
from mfgppl.inference.results import record_of
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.report.comparison import check_comparable
from mfgppl.report.subject import Section, Subject

NOTED = (
    "created_at", "random_seed", "sampling_time", "compile_time", "density_path", "versions",
    "game_hash", "data_hash", "inference_library_version",
)  # fmt: skip
FLOWS = {
    "empirical": "the panel's own flow, held fixed (plug-in)",
    "equilibrium": "the equilibrium under the reward (coupled)",
    "given": "given, held fixed",
}
Fit = xr.DataTree | PointEstimate


@strict_keywords
def report(
    fit: Fit,
    path: str | Path,
    *,
    model: TrajectoryModel | None = None,
    against: Mapping[str, Fit] | None = None,
    ci_prob: float = 0.9,
    title: str | None = None,
    random_seed: int = 0,
) -> Path:
    """Write the uncertainty report of a fit, and its numbers as JSON beside it.

    Parameters
    ----------
    fit : DataTree or PointEstimate
        A result of `nuts`, `laplace` or `vi`, one read with `load`, or of `mle` or `map_estimate`.
    path : str or Path
        The HTML file to write; the JSON file is called the same.
    model : TrajectoryModel, optional
        The fitted model: adds identification, predictive checks, distance from equilibrium and
        sensitivity to the prior. A point estimate needs it.
    against : mapping of str to DataTree or PointEstimate, optional
        Fits of other models to the same panel, of the same kind, to compare with.
    ci_prob : float in (0, 1)
        Level of the intervals: equal-tailed of draws, Wald of a point.
    title : str, optional
        Heading of the page.
    random_seed : int
        Seed of the panels that the checks draw.

    Returns
    -------
    Path
        The page written.

    Raises
    ------
    ValueError
        If the tree is not a result of this package, the model is another's, or fits cannot be
        compared.
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    positive_int("random_seed", random_seed, least=0)
    _check_fit("fit", fit)
    others = {} if against is None else is_a("against", against, Mapping)
    for name, other in others.items():
        _check_fit(f"against[{name!r}]", other)
        check_comparable(fit, other, str(name))
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        raise ValueError(
            f"`path` is the page and must end in .html, its numbers go beside it; got "
            f"{path.name!r}."
        )
    if not path.parent.exists():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    # matplotlib and ArviZ's plots take seconds to import, and only a report needs them
    from mfgppl.report.sections import sections_of

    subject = Subject(fit, model, others, ci_prob, random_seed, _record(fit, model))
    sections = sections_of(subject)
    heading = title or "Uncertainty report of a mean field game"
    headline, trusted = _headline(sections)
    source = resources.files("mfgppl.report").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(
        title=heading,
        headline=headline,
        trusted=trusted,
        messages=subject.messages,
        method=_method(subject),
        sections=[_shown(section) for section in sections],
        model=_model_rows(subject),
        priors=json.loads(subject.record["priors"]),
        source=subject.record["reward_source"],
        flow=subject.record.get("flow", "empirical"),
        record=_noted(subject.record),
    )
    path.write_text(page, encoding="utf-8")
    numbers = _numbers(heading, headline, trusted, sections, subject)
    text = json.dumps(_jsonable(numbers), indent=2, allow_nan=False, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return path


def _check_fit(name: str, fit: Any) -> None:
    if isinstance(fit, PointEstimate):
        return
    if not isinstance(fit, xr.DataTree):
        raise TypeError(
            f"`{name}` must be a DataTree of nuts, laplace or vi, or a PointEstimate; "
            f"got {type(fit).__name__}."
        )
    if fit.attrs.get("inference_library") != "mfgppl" or "posterior" not in fit.children:
        raise ValueError(f"`{name}` must be a result of mfgppl with the group posterior.")


def _record(fit: Fit, model: TrajectoryModel | None) -> dict[str, Any]:
    """Return what was noted of a fit, of a point from its model."""
    if model is not None:
        is_a("model", model, TrajectoryModel)
    if isinstance(fit, PointEstimate):
        if model is None:
            raise ValueError("a point estimate does not hold its panel: give `model` as well.")
        density = density_of(model)
        if list(fit.params.index) != density.program.entry_names():
            raise ValueError(
                f"`model` must be the fitted one; its parameters are "
                f"{density.program.entry_names()}, the fit's {list(fit.params.index)}."
            )
        there = density.evaluator(prior=0.0, jacobian=0.0)(fit.theta)[0]
        if fit.nobs != model.panel.n_decisions or not math.isclose(there, fit.llf, rel_tol=1e-6):
            raise ValueError(
                f"`model` must be the fitted one; at the estimate its log likelihood is "
                f"{there:.3f}, the fit's {fit.llf:.3f}."
            )
        return record_of(model, density)
    record = {str(k): v for k, v in fit.attrs.items()}
    if model is not None:
        _check_model(model, record)
    return record


def _check_model(model: TrajectoryModel, record: Mapping[str, Any]) -> None:
    """Raise a `ValueError` unless a model is that of a record."""
    prints, density = model.fingerprint(), density_of(model)
    for what, same in (
        ("panel or flow", prints["data"] == record["data_hash"]),
        ("game", prints["game"] == record["game_hash"]),
        ("set of priors", density.program.priors() == json.loads(record["priors"])),
        ("likelihood", model.likelihood_name == record["likelihood"]),
    ):
        if not same:
            raise ValueError(f"`model` must be the fitted one; it has another {what}.")


def _headline(sections: list[Section]) -> tuple[str, bool]:
    """Return one sentence for the whole page, and whether nothing speaks against the fit."""
    against = [s for s in sections if s.good is False]
    judged = [s for s in sections if s.good is not None]
    if any(s.title == "Diagnostics" for s in against):
        return "Do not rely on these numbers yet: the fit itself failed a check.", False
    if against:
        names = ", ".join(s.title.rstrip("?") for s in against)
        verb = "asks" if len(against) == 1 else "ask"
        count = f"{len(against)} of {len(judged)} checks {verb} for care"
        return f"The fit did its work, but {count}: {names}.", False
    return f"Nothing speaks against this fit in {len(judged)} checks.", True


def _method(subject: Subject) -> str:
    """Name what made the fit, with what it says of itself."""
    fit, record = subject.fit, subject.record
    if isinstance(fit, PointEstimate):
        return "maximum likelihood" if fit.kind == "mle" else f"posterior mode, {fit.kind}"
    sizes = fit["posterior"].sizes
    if "tuning_steps" in record:
        chains = f"{sizes['chain']} chains of {sizes['draw']} draws"
        return f"NUTS by {record['sampler']}, {chains} after {record['tuning_steps']} tuning steps"
    return f"{record['sampler']}, {sizes['draw']} independent draws"


def _model_rows(subject: Subject) -> dict[str, str]:
    record = subject.record
    start = f", {record['start']} start" if record["start"] else ""
    return {
        "likelihood": f"{record['likelihood']}{start}",
        "mean field": FLOWS[record.get("flow", "empirical")],
        "discount": f"{record['discount']:g}",
        "temperature": f"{record['temperature']:g} reward units",
        "method": _method(subject),
    }


def _shown(section: Section) -> dict[str, Any]:
    """Return a section as the template takes it."""
    from mfgppl.report.figures import drawn

    facts = {k: _text(v) for k, v in section.numbers.items() if not isinstance(v, Mapping)}
    return {
        "title": section.title,
        "verdict": section.verdict,
        "mark": {True: "good", False: "bad", None: "plain"}[section.good],
        "facts": facts,
        "table": None if section.table is None else section.table.map(_text),
        "figures": [(caption, drawn(draw)) for caption, draw in section.drawings],
        "notes": section.notes,
    }


def _text(value: Any) -> str:
    """Return a cell as text, of four significant digits, empty where there is no number."""
    if isinstance(value, (float, np.floating)):
        number = float(value)
        large = math.isfinite(number) and abs(number) >= 1000
        return "" if math.isnan(number) else f"{number:.1f}" if large else f"{number:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(v) for v in value) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _noted(record: Mapping[str, Any]) -> dict[str, str]:
    return {
        k: f"{record[k]:.1f} s" if k.endswith("_time") else str(record[k])
        for k in NOTED
        if k in record
    }


def _numbers(
    heading: str, headline: str, trusted: bool, sections: list[Section], subject: Subject
) -> dict[str, Any]:
    """Return the page's numbers as plain records."""
    return {
        "title": heading,
        "verdict": headline,
        "trusted": trusted,
        "warnings": subject.messages,
        "method": _method(subject),
        "sections": [
            {
                "title": s.title,
                "verdict": s.verdict,
                "good": s.good,
                "numbers": s.numbers,
                "table": None if s.table is None else _records(s.table),
                "notes": list(s.notes),
            }
            for s in sections
        ],
        "model": _model_rows(subject),
        "priors": json.loads(subject.record["priors"]),
        "record": {k: subject.record[k] for k in NOTED if k in subject.record},
        "mfgppl": __version__,
    }


def _records(table: pd.DataFrame) -> dict[str, dict[str, Any]] | list[list[Any]]:
    """Return a table by row and column, or its rows with their names where these repeat."""
    if not table.index.is_unique:
        rows = zip(table.index, table.to_numpy().tolist(), strict=True)
        return [["", *map(str, table.columns)], *([str(name), *row] for name, row in rows)]
    return {
        str(name): {str(c): v for c, v in zip(table.columns, row, strict=True)}
        for name, row in zip(table.index, table.itertuples(index=False), strict=True)
    }


def _jsonable(value: Any) -> Any:
    """Return a value in JSON's terms: no numpy, null where there is no number."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _jsonable(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)
