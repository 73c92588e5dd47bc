"""What every analysis writes: tables, figures, and the two options of its command line."""

import argparse
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

Text = Callable[[float], str]


def fixed(digits: int) -> Text:
    """Return a function that shows a number with so many decimals, NaN as nothing."""
    return lambda v: "" if math.isnan(v) else f"{round(v, digits) + 0.0:.{digits}f}"


def significant(digits: int) -> Text:
    """Return a function that shows so many significant digits of a number, NaN as nothing."""
    return lambda v: "" if math.isnan(v) else f"{v:.{digits}g}"


def write_table(
    table: pd.DataFrame,
    out: Path,
    name: str,
    text: Text | None = None,
    *,
    digits: Mapping[str, int] | None = None,
    csv: bool = True,
) -> None:
    """Write a table as Markdown and in full as CSV; print it.

    Numbers have three decimals by default, and in columns named in `digits` so many.
    """
    own = {column: fixed(n) for column, n in (digits or {}).items()}
    texts = [own.get(column, text or fixed(3)) for column in table.columns]
    if csv:
        table.to_csv(out / f"{name}.csv", index=False)
    right = [pd.api.types.is_numeric_dtype(table[c]) for c in table.columns]
    rows = [list(map(str, table.columns)), ["---:" if r else "---" for r in right]]
    for row in table.itertuples(index=False, name=None):
        rows.append(
            [t(v) if isinstance(v, float) else str(v) for t, v in zip(texts, row, strict=True)]
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines[1] = f"|{'|'.join(rows[1])}|"
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print(f"\n{name}\n{table.to_string(index=False)}")


RATIOS = {"statistic": 1, "mean": 1, "upper": 1}  # decimals of a table of tests


def write_figure(figure: plt.Figure, out: Path, name: str, dpi: int = 120) -> None:
    """Write a figure as PNG and close it."""
    figure.savefig(out / f"{name}.png", dpi=dpi)
    plt.close(figure)


def resumed(rows_of: Callable[[int], list[dict[str, Any]]], n: int, path: Path) -> pd.DataFrame:
    """Return the rows of panels 0 to n - 1 and of any further that a file holds.

    What the file lacks is worked out and appended to it, so that a run may be stopped at any time.
    """
    done = set(pd.read_csv(path)["panel"]) if path.exists() else set()
    for number in range(n):
        if number in done:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is in the rows
            rows = pd.DataFrame(rows_of(number))
        rows.to_csv(path, mode="a", header=not path.exists(), index=False)
    return pd.read_csv(path)


def run(main: Callable[[bool, Path], Any], doc: str | None, out: Path, quick: str) -> None:
    """Run an analysis from a command line, with each warning shown once.

    Parameters
    ----------
    main : callable
        Takes whether the run is quick, and the folder to write in.
    doc : str
        What it does.
    out : Path
        The folder by default.
    quick : str
        What a quick run leaves out.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=out, help="folder of tables and figures")
    arguments = parser.parse_args()
    warnings.simplefilter("default")
    main(arguments.quick, arguments.out)
