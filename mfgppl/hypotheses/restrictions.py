"""Linear restrictions on parameters, read from text such as "a = 0, b + 2 c = d"."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from mfgppl._arguments import suggestion
from mfgppl.density.curvature import describe_direction

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
WORD = r"[^\W\d]\w*(?:\[[^\]]*\])?"


class Restrictions(NamedTuple):
    """Linear restrictions `matrix @ parameters = values`, none implied by the others.

    Attributes
    ----------
    matrix : ndarray, shape (M, P)
        One row per restriction.
    values : ndarray, shape (M,)
        What they must equal.
    text : str
        The restrictions in words.
    """

    matrix: np.ndarray
    values: np.ndarray
    text: str


def restrictions_of(
    given: str | Sequence[str] | np.ndarray, values: object, names: list[str]
) -> Restrictions:
    """Return restrictions from text, or from a matrix and values, without redundant rows.

    Raises
    ------
    ValueError
        If the text does not parse, sizes disagree, or restrictions contradict each other.
    """
    if isinstance(given, str):
        if values is not None:
            raise ValueError("`values` belong to a matrix; write them in the text: 'a = 1'.")
        matrix, right = parse_restrictions(given, names)
        text = given.strip()
    else:
        matrix, right = _from_matrix(given, values, len(names))
        text = ", ".join(
            f"{describe_direction(row, names)} = {value / row[np.abs(row).argmax()]:g}"
            for row, value in zip(matrix, right, strict=True)
            if row.any()
        )
    return _independent_rows(Restrictions(matrix, right, text))


def parse_restrictions(text: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and the values of restrictions written as sums of numbers times names.

    Parameters
    ----------
    text : str
        Equations separated by commas; `2 a`, `2 * a` and `a * 2` are the same.
    names : list of str
        The parameters, entries of vectors as `w[2]`.

    Returns
    -------
    matrix : ndarray, shape (M, P)
        Coefficients of the parameters.
    values : ndarray, shape (M,)
        Right-hand sides.
    """
    rows = []
    equation: list[list[str]] = [[]]
    for token in [*_tokens(text, names), ","]:
        if token == "=":
            equation.append([])
        elif token == ",":
            rows += _equations([_sum(side, names, text) for side in equation], text)
            equation = [[]]
        else:
            equation[-1].append(token)
    stacked = np.stack(rows)
    return stacked[:, :-1], -stacked[:, -1]


def _tokens(text: str, names: list[str]) -> list[str]:
    """Split a text into names, numbers and signs."""
    longest_first = sorted(names, key=len, reverse=True)
    known = "|".join(re.escape(n) for n in longest_first)
    pattern = re.compile(rf"\s*((?:{known})(?![\w\[])|{NUMBER}|[=+\-*,]|{WORD}|\S)")
    tokens = pattern.findall(text)
    for token in tokens:
        if token in names or re.fullmatch(NUMBER, token) or token in "=+-*,":
            continue
        hint = suggestion(token, names)
        raise ValueError(
            f"`restrictions` has {token!r} in {text!r}; it may hold numbers, signs and the "
            f"parameters {', '.join(names)}.{hint}"
        )
    return tokens


def _sum(tokens: list[str], names: list[str], text: str) -> np.ndarray:
    """Return one side of an equation as coefficients of the parameters and a constant."""
    total, sign = np.zeros(len(names) + 1), 1.0
    term: list[str] = []
    if not tokens:
        raise ValueError(f"`restrictions` has an empty side in {text!r}; write 'a = 0'.")
    for token in [*tokens, "+"]:
        if token not in ("+", "-"):
            term.append(token)
            continue
        if term:
            total += sign * _term(term, names, text)
            sign, term = 1.0, []
        sign = -sign if token == "-" else sign
    if tokens[-1] in ("+", "-"):
        raise ValueError(f"`restrictions` has a sign without a term in {text!r}.")
    return total


def _term(tokens: list[str], names: list[str], text: str) -> np.ndarray:
    """Return a number, a name or their product as coefficients and a constant."""
    named = [t for t in tokens if t in names]
    numbers = [t for t in tokens if re.fullmatch(NUMBER, t) and t not in names]
    stars = tokens.count("*")
    placed = stars == 0 or (len(tokens) > 2 and "*" not in (tokens[0], tokens[-1]))
    if len(named) > 1 or len(numbers) > 1 or stars > 1 or not placed:
        raise ValueError(
            f"`restrictions` has the term {' '.join(tokens)!r} in {text!r}; a term is a number, a "
            "parameter, or a number times a parameter."
        )
    row = np.zeros(len(names) + 1)
    row[names.index(named[0]) if named else -1] = float(numbers[0]) if numbers else 1.0
    return row


def _equations(sides: list[np.ndarray], text: str) -> list[np.ndarray]:
    """Return `a = b = c` as the rows a - b and b - c."""
    if len(sides) < 2:
        raise ValueError(f"`restrictions` lacks '=' in a part of {text!r}; write 'a = 0'.")
    rows = [left - right for left, right in itertools.pairwise(sides)]
    if not all(row[:-1].any() for row in rows):
        raise ValueError(f"`restrictions` has an equation without a parameter in {text!r}.")
    return rows


def _from_matrix(given: object, values: object, n_names: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        matrix = np.atleast_2d(np.asarray(given, dtype=float))
        right = np.zeros(len(matrix)) if values is None else np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            "`restrictions` must be text such as 'a = 0, b = c', or a matrix of numbers; got "
            f"{given!r}."
        ) from None
    right = np.atleast_1d(right)
    if matrix.ndim != 2 or matrix.shape[1] != n_names or right.shape != (len(matrix),):
        raise ValueError(
            f"`restrictions` must have shape (M, {n_names}), one column per parameter, and "
            f"`values` (M,); got {matrix.shape} and {right.shape}."
        )
    if not (np.isfinite(matrix).all() and np.isfinite(right).all() and matrix.any()):
        raise ValueError("`restrictions` and `values` must be finite, and not all zero.")
    return matrix, right


def _independent_rows(given: Restrictions) -> Restrictions:
    """Leave out rows that others imply; raise where they contradict each other."""
    matrix, values, text = given
    size = np.abs(matrix).max(1, initial=1e-300)
    scaled = matrix / size[:, None]
    rank = int(np.linalg.matrix_rank(scaled))
    order = np.sort(scipy.linalg.qr(scaled.T, pivoting=True)[2][:rank])
    weights = np.linalg.lstsq(scaled[order].T, scaled.T, rcond=None)[0]
    gap = weights.T @ (values / size)[order] - values / size
    if np.abs(gap).max() > 1e-9 * float(np.abs(values / size).max()):
        raise ValueError(f"`restrictions` contradict each other: {text!r}.")
    return Restrictions(matrix[order], values[order], text)
