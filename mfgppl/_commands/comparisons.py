"""Saved draws side by side: a table of estimates, and ranks by what they predict."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import mfgppl as mfg
from mfgppl.reporting.summary import SUMMARY_MADE_BY
from mfgppl.reporting.tables import FitTable

SHOWN = ["rank", "elpd", "se", "elpd_diff", "dse", "weight"]
MARKS = {".md": "{}", ".html": "{}", ".tex": "% {}", ".txt": "# {}"}


class Comparison(NamedTuple):
    """Saved draws side by side.

    Attributes
    ----------
    fits : FitTable
        Their estimates.
    ranks : DataFrame or None
        Their ranks by the score of trajectories left out.
    why : str
        Why there are no ranks.
    """

    fits: FitTable
    ranks: pd.DataFrame | None
    why: str

    def record(self) -> dict[str, Any]:
        """Return all of it as a plain record."""
        ranks = None if self.ranks is None else self.ranks.to_dict(orient="index")
        return {
            "mfgppl": mfg.__version__,
            "estimates": self.fits.estimates.to_dict(),
            "errors": self.fits.std_err.to_dict(),
            "statistics": self.fits.statistics.to_dict(),
            "ranks": ranks,
            "notes": [*self.fits.notes, *([self.why] if self.why else [])],
        }


def compared(files: Sequence[str]) -> Comparison:
    """Return draws side by side, under the names of their files."""
    fits = dict(zip(_names(files), map(mfg.load, files), strict=True))
    table = mfg.compare_fits(fits)
    if len(fits) < 2:
        return Comparison(table, None, "one fit alone has no rank")
    seen = [fit["observed_data"].dataset["action_counts"].values for fit in fits.values()]
    if not all(np.array_equal(seen[0], counts) for counts in seen[1:]):
        return Comparison(table, None, "no rank: the fits are of different panels")
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        ranks = mfg.compare_models(fits)[SHOWN]
    said = [str(w.message) for w in raised if issubclass(w.category, UserWarning)]
    return Comparison(table, ranks, "; ".join(dict.fromkeys(said)))


def table_text(found: Comparison, suffix: str) -> str:
    """Return the table as a file of a kind holds it."""
    table = found.fits
    made = {".md": table.to_markdown, ".html": table.to_html, ".tex": table.to_latex}
    mark = MARKS[suffix].format(SUMMARY_MADE_BY)
    return f"{mark}\n" + made.get(suffix, table.to_text)().rstrip() + "\n"


def _names(files: Sequence[str]) -> list[str]:
    """Return a name for each file: its stem, or its path where stems repeat."""
    stems = [Path(file).stem for file in files]
    if len(set(files)) < len(files):
        raise ValueError(f"each file must be named once; got {', '.join(files)}.")
    return stems if len(set(stems)) == len(stems) else list(files)
