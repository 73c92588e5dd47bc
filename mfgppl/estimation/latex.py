"""Text and tables in LaTeX, with its own characters escaped."""

from typing import Any

import pandas as pd

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {c: "\\" + c for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}


def latex_text(value: Any) -> str:
    """Return a value as text for LaTeX, on one line: an empty one would end a paragraph."""
    text = "".join(SPECIAL.get(c, c) for c in str(value))
    return " ".join(text.split()) if any(c.isspace() and c != " " for c in text) else text


class Table(pd.DataFrame):
    """A table whose LaTeX escapes its labels, as `to_latex` of pandas does only when asked."""

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
