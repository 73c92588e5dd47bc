"""Text and tables in LaTeX, with its own characters escaped."""

from typing import Any

import pandas as pd

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {c: "\\" + c for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}


def latex_text(value: Any) -> str:
    """Return a value as text for LaTeX, on one line: an empty one would end a paragraph."""
    text = "".join(SPECIAL.get(c, c) for c in str(value))
    return " ".join(text.split()) if any(c.isspace() and c != " " for c in text) else text


MOST_ROWS = 60  # of a table that is printed whole


class Table(pd.DataFrame):
    """A table that prints all its columns, and whose LaTeX escapes its labels.

    Those of pandas do so only when asked.
    """

    @property
    def _constructor(self) -> type["Table"]:
        return Table

    def to_latex(self, *args: Any, **kwargs: Any) -> Any:
        """Return the table as of pandas, its labels escaped unless `escape` is given."""
        if "escape" in kwargs:
            return super().to_latex(*args, **kwargs)
        escaped = pd.DataFrame(self).rename(index=latex_text, columns=latex_text)
        texts = escaped.select_dtypes(exclude="number").columns
        escaped[texts] = escaped[texts].map(latex_text)
        return escaped.to_latex(*args, escape=False, **kwargs)

    def __repr__(self) -> str:
        return self.to_string() if len(self) <= MOST_ROWS else super().__repr__()
