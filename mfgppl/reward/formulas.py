"""Formulas as of R and statsmodels, in formulaic's syntax, with a game's inputs as variables.

Formulaic codes the columns on a table with one row per type, time, state and action. What the
crowd's flow moves is no part of that table: such a column is a product of factors, of which those
are worked out in each run.
"""

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mfgppl._arguments import suggestion
from mfgppl._keep import keep
from mfgppl.data.bins import Bin
from mfgppl.data.space import text_labels
from mfgppl.game import MeanFieldGame
from mfgppl.reward.coordinates import Labels, Numbers
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.named_inputs import named_inputs

CROWD = ("density", "occupancy", "expect", "share")  # inputs that the flow moves
OF_SAMPLE = ("center", "scale", "standardize", "poly")  # which would take means over the game
MATH = ("exp", "log", "log1p", "sqrt", "abs", "maximum", "minimum")
PYTHON = re.compile(r"==|!=|<|>|&|\||~")  # of a condition, and of no formula


class Column(NamedTuple):
    """One column of a formula: a product.

    Attributes
    ----------
    name : str
        What statsmodels would call its coefficient.
    table : Tensor
        The factors that no flow moves, which broadcasts to the shape of the reward.
    moved : tuple of str
        The expressions of the others.
    text : str
        The product as an expression of a reward program.
    """

    name: str
    table: Tensor
    moved: tuple[str, ...]
    text: str


def columns_of(formula: str, x: RewardInputs) -> dict[str, Tensor]:
    """Return the columns of a formula along a flow, by name, each broadcasting to the reward."""
    return {column.name: _value(column, x) for column in coded_columns(formula, x.game)}


def coded_columns(formula: str, game: MeanFieldGame) -> tuple[Column, ...]:
    """Return the columns of a formula in a game, without its intercept, which moves no choice.

    Raises
    ------
    ValueError
        If the formula is none, or names what the game lacks.
    ImportError
        If formulaic is not installed.
    """
    return keep(game, f"formula {formula}", lambda: _coded(formula, game))


def _value(column: Column, x: RewardInputs) -> Tensor:
    value = column.table
    for code in column.moved:
        value = value * evaluated(code, x)
    return value


def evaluated(code: str, x: RewardInputs) -> Tensor:
    """Return an expression of a formula along a flow."""
    return _run(code, {n: getattr(x, n) for n in _names(ast.parse(code)) if _is_input(n, x)})


def _run(code: str, inputs: Mapping[str, Any]) -> Tensor:
    """Return an expression of some inputs."""
    functions = {name: getattr(torch, name) for name in MATH}
    found = eval(code, {"__builtins__": {}, "np": torch, "I": lambda v: v, **functions, **inputs})
    return torch.as_tensor(found, dtype=torch.float64) * 1.0


def _is_input(name: str, x: RewardInputs) -> bool:
    return name in CROWD or name in named_inputs(x.game)


def check_formula(formula: str) -> None:
    """Raise where a text can be no formula of a reward, whatever the game."""
    if "~" in _own_level(_blanked(formula)):
        raise ValueError(f"`features` as a formula has a right side alone; got {formula!r}.")
    if not formula.strip():
        raise ValueError("`features` must name at least one feature; got none.")
    try:
        import formulaic  # noqa: F401
    except ImportError:
        raise ImportError(
            "a formula needs formulaic: pip install 'mfgppl[formulas]', or give a mapping of names "
            "to features."
        ) from None


def with_conditions(formula: str) -> str:
    """Return a formula with conditions in parentheses as names in backticks.

    A pair of parentheses that calls no function holds a condition if a comparison or `&`, `|`, `~`
    stands in it at its own level.
    """
    plain, k, made = _blanked(formula), 0, ""
    while k < len(formula):
        end = _closing(plain, k)
        if plain[k] != "(" or (k and (plain[k - 1].isalnum() or plain[k - 1] in "_])")):
            made, k = made + formula[k], k + 1
            continue
        inside = formula[k + 1 : end]
        condition = PYTHON.search(_own_level(plain[k + 1 : end]))
        made += f"`({inside})`" if condition else f"({with_conditions(inside)})"
        k = end + 1
    return made


def _blanked(text: str) -> str:
    """Return a text of the same length without what stands in quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: "." * len(m[0]), text)


def _closing(text: str, start: int) -> int:
    """Return where the parenthesis closes that opens at a position; the end if it never does."""
    depth = 0
    for k in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[k], 0)
        if depth == 0:
            return k
    return len(text)


def _own_level(text: str) -> str:
    """Return a text without what stands in parentheses or braces."""
    kept, depth = "", 0
    for letter in text:
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
        kept += letter if depth == 0 else ""
    return kept


def _coded(formula: str, game: MeanFieldGame) -> tuple[Column, ...]:
    import formulaic
    from formulaic.errors import FormulaicError

    grid, context = _grid(game), {"centre": _centre, **_placeholders(game)}
    for code in re.findall("`([^`]*)`", with_conditions(formula)):
        _check_factor(code, game)
        grid[code] = _condition(code, game)
    try:
        terms = formulaic.Formula(with_conditions(formula))
        factors = {f.expr: f.eval_method.value for term in terms for f in term.factors}
        for code in factors:
            _check_factor(code, game)
        whole = formulaic.model_matrix(terms, grid, context=context, na_action="raise")
        each = {code: _of_factor(code, grid, context) for code in factors if code != "1"}
    except (FormulaicError, AttributeError, SyntaxError) as error:
        said = re.sub(r"\x1b?\[[0-9;]*m|⧛[^m]*m|⧚", "", str(error)).splitlines()[0]
        raise ValueError(
            f"`features` is no formula that formulaic reads ({said}): {formula!r}. A comparison "
            "stands in parentheses, as in price:(action != 'hold')."
        ) from None
    columns = []
    for structure in whole.model_spec.structure:
        for scoped in structure.scoped_terms:
            kept = [each[f.factor.expr] for f in scoped.factors]
            for parts in itertools.product(*(table.items() for table in kept)):
                name = ":".join(part for part, _ in parts)
                if name in structure.columns and parts:
                    codes = [f.factor.expr for f in scoped.factors]
                    columns.append(_column(name, codes, parts, game))
    placed = {column.name: column for column in columns}
    names = [name for name in whole.columns if name != "Intercept"]
    if not names:
        raise ValueError(f"`features` has no column besides the intercept: {formula!r}.")
    return tuple(placed[name] for name in names)


def _grid(game: MeanFieldGame) -> pd.DataFrame:
    """Return a table of all inputs, one row per type, time, state and action."""
    shape = _shape(game)
    held: dict[str, Any] = {}
    for name, value in named_inputs(game).items():
        if isinstance(value, Labels):
            code = value.codes.broadcast_to(shape).reshape(-1).numpy().copy()
            categories = pd.Index(list(value.labels), dtype=object)
            held[name] = pd.Categorical.from_codes(code, categories=categories, ordered=True)
        elif value.ndim <= len(shape):
            number = value.plain.broadcast_to(shape).reshape(-1).numpy().copy()
            whole = value.labels is not None and all(isinstance(v, int) for v in value.labels)
            held[name] = number.astype(np.int64) if whole else number
    ones = np.ones(int(np.prod(shape)))
    held |= {"density": ones, **({"occupancy": ones} if game.joint else {})}
    return pd.DataFrame(held)


def _condition(code: str, game: MeanFieldGame) -> np.ndarray:
    """Return a condition on all rows, 1 on those where the flow decides."""
    if _moves(code):
        return np.ones(int(np.prod(_shape(game))))
    found = _run(code, named_inputs(game))
    return found.broadcast_to(_shape(game)).reshape(-1).numpy().copy()


def _shape(game: MeanFieldGame) -> tuple[int, ...]:
    T, S, A = game.shape
    C = game.n_cells
    return (C, T, S // C, A) if game.space.types else (T, S, A)


def _placeholders(game: MeanFieldGame) -> dict[str, Callable[..., Any]]:
    ones = np.ones(int(np.prod(_shape(game))))
    return {"share": lambda **_: ones, "expect": lambda *_, **__: ones}


def _centre(column: pd.Series) -> pd.Series:
    """Return the centres of the bins of a column."""
    categories = list(column.cat.categories) if hasattr(column, "cat") else []
    if not categories or not all(isinstance(label, Bin) for label in categories):
        raise ValueError(
            f"`features` takes the centre of {column.name!r}, whose labels have none: bin the "
            "column with mfg.discretise, and give the game the panel's labels, "
            "panel.space.coordinates."
        )
    centres = np.array([label.centre for label in categories])
    return pd.Series(centres[column.cat.codes], index=column.index)


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _check_factor(code: str, game: MeanFieldGame) -> None:
    """Raise where a factor names what the game lacks, or would take a mean over the game."""
    known = named_inputs(game)
    tree = ast.parse(code)
    names = _names(tree)
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in OF_SAMPLE:
            raise ValueError(
                f"`features` has {called.id}(...), which would take its mean over all states of "
                "the game and not over the panel; subtract and divide by numbers, I(price - 2.5)."
            )
    called_names = {n.func.id for n in ast.walk(tree)
                    if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
    strange = sorted(names - set(known) - set(CROWD) - called_names - {"np", "contr"})
    if "occupancy" in names and not game.joint:
        strange.append("occupancy")
    if strange:
        listed = [*known, "density", *(["occupancy"] if game.joint else [])]
        raise ValueError(
            f"`features` names {strange[0]!r}, which is no input of the game;"
            f"{suggestion(strange[0], listed)} inputs: {', '.join(sorted(listed))}."
        )
    if names & set(CROWD) and called_names & {"C", "bs", "cs", "cr", "cc", "hashed", "lag"}:
        raise ValueError(
            f"`features` has {code!r}: what the crowd's flow moves enters as a number, as in "
            "density, np.log(density) or density:C(size)."
        )


def _moves(code: str) -> bool:
    return bool(_names(ast.parse(code)) & set(CROWD))


def _of_factor(code: str, grid: pd.DataFrame, context: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns of one factor, with all levels and against the first."""
    import formulaic

    found: dict[str, np.ndarray] = {}
    for lead in ("0", "1"):
        formula = f"{lead} + `{code}`" if code in grid else f"{lead} + {{{code}}}"
        made = formulaic.model_matrix(formula, grid, context=context, na_action="raise")
        found |= {name: made[name].to_numpy(dtype=float) for name in made.columns}
    found.pop("Intercept", None)
    return found


def _column(
    name: str, codes: list[str], parts: tuple[tuple[str, np.ndarray], ...], game: MeanFieldGame
) -> Column:
    values = np.ones(int(np.prod(_shape(game))))
    moved, texts = [], []
    for code, (part, column) in zip(codes, parts, strict=True):
        if _moves(code):
            moved.append(code)
            texts.append(_written(code, game))
        else:
            values = values * column
            texts.append(_text_of(code, part, column, game))
    table = _narrow(torch.tensor(values).reshape(_shape(game)))
    return Column(name, table, tuple(moved), " * ".join(texts))


def _narrow(table: Tensor) -> Tensor:
    """Return a table with one entry along each axis on which it does not vary."""
    for k in range(table.ndim):
        first = table.narrow(k, 0, 1)
        if bool((table == first).all()):
            table = first
    return table.clone()


def _text_of(code: str, part: str, column: np.ndarray, game: MeanFieldGame) -> str:
    """Return a column of a factor as an expression of a reward program."""
    level = re.fullmatch(r"(?:C\((\w+).*\)|(\w+))\[(?:T\.)?(.*)\]", part, re.DOTALL)
    axis = named_inputs(game).get(level[1] or level[2]) if level else None
    if isinstance(axis, (Labels, Numbers)) and axis.labels is not None and level:
        for label, text in zip(axis.labels, text_labels(axis.labels), strict=True):
            condition = axis == label
            here = (condition.truth.broadcast_to(_shape(game)).reshape(-1)).numpy()
            if text in (level[3], level[3].removesuffix(".0")) and np.array_equal(here, column):
                return f"(x.{level[1] or level[2]} == {_plain(label)!r})"
    text = _written(code, game) if part == code else ""
    return text or _literal(column, game)


def _plain(label: Any) -> Any:
    return str(label) if isinstance(label, str) else label


def _literal(column: np.ndarray, game: MeanFieldGame) -> str:
    table = _narrow(torch.tensor(column).reshape(_shape(game)))
    return f"torch.tensor({table.tolist()}, dtype=torch.float64)"


class _ToProgram(ast.NodeTransformer):
    """Write an expression of a formula as one of a reward program."""

    def __init__(self, inputs: set[str]) -> None:
        self.inputs, self.known = inputs, True

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Read inputs from x, and functions from torch."""
        if node.id in self.inputs:
            return ast.parse(f"x.{node.id}", mode="eval").body
        return ast.Name("torch" if node.id == "np" else node.id, node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Leave out `I`, read centres from labels, and take functions from torch."""
        called = node.func.id if isinstance(node.func, ast.Name) else None
        inside = [self.visit(arg) for arg in node.args]
        if called == "I":
            return inside[0]
        if called == "centre":
            return ast.Attribute(inside[0], "centres", ast.Load())
        if called in MATH:
            return ast.Call(ast.parse(f"torch.{called}", mode="eval").body, inside, [])
        self.known &= called is None or called in CROWD
        return ast.Call(self.visit(node.func), inside, node.keywords)


def _written(code: str, game: MeanFieldGame) -> str:
    """Return an expression as a reward program writes it, "" where it has no such words."""
    writer = _ToProgram({*named_inputs(game), *CROWD})
    tree = writer.visit(ast.parse(code, mode="eval"))
    text = ast.unparse(ast.fix_missing_locations(tree))
    if not writer.known:
        return ""
    return text if re.fullmatch(r"[\w.]+(\([^()]*\))?", text) else f"({text})"
