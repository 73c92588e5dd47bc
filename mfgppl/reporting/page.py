"""The uncertainty report: one HTML page, or a summary in Markdown, and its numbers as JSON."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from mfgppl._arguments import Seed, is_a, real_between, seed_of, strict_keywords
from mfgppl._files import check_target, path_of, write_files
from mfgppl._version import __version__
from mfgppl.checks.imperfect_choices import Imperfection
from mfgppl.checks.runaway_crowds import Runaway
from mfgppl.flows.coupling import CouplingTest
from mfgppl.flows.side_by_side import Treatments
from mfgppl.likelihood.model import TrajectoryModel
from mfgppl.reporting.comparison_section import check_comparable
from mfgppl.reporting.glossary import GLOSSARY, Term, term_of
from mfgppl.reporting.json_text import json_text
from mfgppl.reporting.reported_fit import Fit, check_groups, checked_fit, noted_of
from mfgppl.reporting.subject import PARTS, Section, Subject, lead_of
from mfgppl.reporting.summary import SUMMARY_MADE_BY, method_of, summary, text_of

NOTED = (
    "created_at", "random_seed", "sampling_time", "compile_time", "density_path", "versions",
    "game_hash", "data_hash", "inference_library_version",
)  # fmt: skip
MADE_BY = '<meta name="generator" content="mfgppl">'  # of the template
FLOWS = {
    "empirical": "the panel's own flow, held fixed (plug-in)",
    "equilibrium": "the equilibrium under the reward (coupled)",
    "known": "given, held fixed",
}


@strict_keywords
def report(
    fit: Fit,
    path: str | Path,
    *,
    model: TrajectoryModel | None = None,
    against: Mapping[str, Fit] | None = None,
    treatments: Treatments | None = None,
    coupling: CouplingTest | None = None,
    imperfection: Imperfection | None = None,
    runaway: Runaway | None = None,
    groups: str | None = None,
    ci_prob: float = 0.9,
    title: str | None = None,
    random_seed: Seed = 0,
    overwrite: bool = False,
) -> Path:
    """Write the uncertainty report of a fit, and its numbers as JSON beside it.

    Parameters
    ----------
    fit : DataTree or PointEstimate
        A result of `nuts`, `laplace` or `vi`, one read with `load` or by xarray or ArviZ, whole
        or a selection of its draws, or of `mle` or `map_estimate`.
    path : str or Path
        The file to write: a page if it ends in .html, a short summary if it ends in .md. The JSON
        file is called the same. ~ is the home folder. An earlier report is replaced, page and
        numbers together.
    model : TrajectoryModel, optional
        The fitted model: adds identification, predictive checks, distance from equilibrium and
        sensitivity to the prior. A point estimate needs it.
    against : mapping of str to DataTree or PointEstimate, optional
        Fits of other models to the same panel, of the same kind, to compare with.
    treatments : Treatments, optional
        What `mfg.flows.treatments` gives for the model: adds a section on the crowd's flow.
    coupling : CouplingTest, optional
        What `mfg.flows.coupling_test` gives, best with free="time": says what is left to the crowd
        where periods are free.
    imperfection : Imperfection, optional
        What `mfg.checks.imperfection` gives: adds a section on what agents leave on the table.
    runaway : Runaway, optional
        What `mfg.checks.runaway` gives: says whether the fitted game leaves the crowd that was
        seen, and whether it has several equilibria.
    groups : str, optional
        Clusters of standard errors, "agent" or one of the panel's `groups`: of a point estimate,
        and of the maximum likelihood estimates beside draws, which need `model`.
    ci_prob : float in (0, 1)
        Mass of an interval: equal-tailed of draws, Wald of a point.
    title : str, optional
        Heading of the page.
    random_seed : int or SeedSequence
        Seed of the panels that the checks draw.
    overwrite : bool
        Whether to replace files of these names that are no report of this package.

    Returns
    -------
    Path
        The page written.

    Raises
    ------
    ValueError
        If the tree is not a result of this package, has draws that are not finite, the model is
        another's, or fits cannot be compared.
    FileNotFoundError
        If the folder of `path` does not exist.
    FileExistsError
        If there is a page or a JSON file of that name that is no report of this package.
    OSError
        If the report cannot be written; the earlier one is as it was.
    """
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    random_seed = seed_of(random_seed)
    if title is not None:
        is_a("title", title, str)
    fit = checked_fit("fit", fit)
    by_name = " Give fits by name, as {'no crowd': other}."
    given = {} if against is None else is_a("against", against, Mapping, by_name)
    others = {name: checked_fit(f"against[{name!r}]", other) for name, other in given.items()}
    for name, other in others.items():
        check_comparable(fit, other, str(name))
    path = _check_target(path, overwrite)
    # matplotlib and ArviZ's plots take seconds to import, and only a report needs them
    from mfgppl.reporting.sections import sections_of

    if treatments is not None:
        is_a("treatments", treatments, Treatments, " Make it with mfg.flows.treatments.")
    if coupling is not None:
        is_a("coupling", coupling, CouplingTest, " Make it with mfg.flows.coupling_test.")
    if imperfection is not None:
        hint = " Make it with mfg.checks.imperfection."
        is_a("imperfection", imperfection, Imperfection, hint)
    if runaway is not None:
        is_a("runaway", runaway, Runaway, " Make it with mfg.checks.runaway.")
    record = noted_of(fit, model)
    if groups is not None:
        check_groups(groups, fit, model)
    subject = Subject(
        fit, model, others, treatments, coupling, imperfection, runaway, ci_prob, random_seed,
        groups, record,
    )  # fmt: skip
    sections = sections_of(subject)
    heading = title or "Uncertainty report of a mean field game"
    headline, trusted = _headline(sections)
    write = summary if path.suffix.lower() == ".md" else _page
    page = write(heading, headline, trusted, sections, subject)
    numbers = _numbers(heading, headline, trusted, sections, subject)
    text = json_text(numbers)
    write_files({path: page.encode("utf-8"), path.with_suffix(".json"): text.encode("utf-8")})
    return path


def _page(
    heading: str, headline: str, trusted: bool, sections: list[Section], subject: Subject
) -> str:
    """Return the page."""
    source = resources.files("mfgppl.reporting").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    contexts = [_context_of(section) for section in sections]
    return environment.from_string(source).render(
        title=heading,
        headline=headline,
        trusted=trusted,
        lead=lead_of(sections),
        messages=subject.messages,
        method=method_of(subject),
        parts=[(part, [c for c in contexts if c["part"] == part]) for part in PARTS],
        model=_model_rows(subject),
        priors=json.loads(subject.record["priors"]),
        source=subject.record["reward_source"],
        mean_field=subject.record["mean_field"],
        record=_provenance(subject.record),
        glossary=_terms_of(contexts),
        term_of=term_of,
    )


def _terms_of(contexts: list[dict[str, Any]]) -> list[Term]:
    """Return the terms that headings of sections have, in the glossary's order."""
    headings = [h for c in contexts for h in c["facts"]]
    tables = [t for c in contexts for t in (c["table"], c["short"]) if t is not None]
    headings += [str(h) for table in tables for h in table.columns]
    used = {term_of(heading) for heading in headings}
    return [term for term in GLOSSARY if term in used]


def _check_target(given: Any, overwrite: bool) -> Path:
    """Return where the page goes, else raise before anything is computed."""
    path = path_of("path", given)
    if path.suffix.lower() not in (".html", ".htm", ".md"):
        raise ValueError(
            f"`path` is the page and must end in .html, or in .md for a summary; its numbers go "
            f"beside it. Got {path.name!r}."
        )
    for file, is_ours in ((path, _is_page), (path.with_suffix(".json"), _is_numbers)):
        check_target(file)
        if not overwrite and file.exists() and file.stat().st_size and not is_ours(file):
            raise FileExistsError(
                f"{file} exists and is no report of mfgppl; name another page, or pass "
                "overwrite=True"
            )
    return path


def _is_page(path: Path) -> bool:
    head = path.read_bytes()[:4096].decode("utf-8", "replace")
    return MADE_BY in head or SUMMARY_MADE_BY in head


def _is_numbers(path: Path) -> bool:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and {"mfgppl", "sections", "verdict"} <= set(content)


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


def _model_rows(subject: Subject) -> dict[str, str]:
    record = subject.record
    start = f", {record['start']} start" if record["start"] else ""
    return {
        "likelihood": f"{record['likelihood']}{start}",
        "mean field": FLOWS[record["mean_field"]],
        "discount": _constant(record, "discount"),
        "temperature": _constant(record, "temperature") + ", reward units",
        **_agents(record),
        "method": method_of(subject),
    }


def _constant(record: Mapping[str, Any], name: str) -> str:
    """Return a constant as text: a number, those by type, or that the program has its own."""
    agents = json.loads(record.get("agents", "{}"))
    if name in agents.get("parts", ()):
        return "the program's own"
    by_type = agents.get("by_type", {}).get(name)
    return f"{record[name]:g}" if by_type is None else ", ".join(f"{v:g}" for v in by_type)


def _agents(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what agents are beside maximisers of a reward, a row for each."""
    agents = json.loads(record.get("agents", "{}"))
    rows = {k: str(agents[k]) for k in ("behaviour", "lookahead", "beliefs") if k in agents}
    further = [part for part in agents.get("parts", ()) if part not in ("discount", "temperature")]
    return rows | ({"beside the reward": ", ".join(further)} if further else {})


def _context_of(section: Section) -> dict[str, Any]:
    """Return a section as the template takes it."""
    from mfgppl.plots.predictions import drawn

    facts = {k: text_of(v) for k, v in section.numbers.items() if not isinstance(v, Mapping)}
    mark = {True: "good", False: "bad", None: "plain"}[section.good]
    return {
        "title": section.title,
        "part": section.part,
        "verdict": section.verdict,
        "sentences": section.sentences,
        "mark": mark,
        "facts": {k: v for k, v in facts.items() if v},
        "short": None if section.short is None else _cells(section.short),
        "table": None if section.table is None else _cells(section.table),
        "figures": [(caption, drawn(draw)) for caption, draw in section.drawings],
        "further": [(caption, drawn(draw)) for caption, draw in section.further],
        "notes": section.notes,
    }


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as text, without rows and columns that hold nothing."""
    cells = table.map(text_of)
    return cells.loc[(cells != "").any(axis=1), (cells != "").any(axis=0)]


def _provenance(record: Mapping[str, Any]) -> dict[str, str]:
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
        "lead": lead_of(sections),
        "warnings": subject.messages,
        "method": method_of(subject),
        "sections": [
            {
                "part": s.part,
                "title": s.title,
                "verdict": s.verdict,
                "sentences": list(s.sentences),
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
