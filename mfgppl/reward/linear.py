"""Rewards that are sums of weights times features, said by names, functions or a formula."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from mfgppl._arguments import is_a, names_of, strict_keywords, suggestion
from mfgppl.data.labelled import is_labelled
from mfgppl.game import MeanFieldGame
from mfgppl.reward.formulas import check_formula, coded_columns, columns_of
from mfgppl.reward.inputs import RewardInputs
from mfgppl.reward.preferences import Preferences
from mfgppl.reward.program import check_prior
from mfgppl.reward.source import values_read

Features = Mapping[str, Any] | Sequence[str] | str
Priors = Any  # a distribution, or a mapping of names to them


@strict_keywords
def linear_reward(
    features: Features,
    priors: Priors,
    *,
    terminal: Features | None = None,
    shock: Features | None = None,
    names: Mapping[str, str] | None = None,
) -> "LinearReward":
    """Return the reward program `sum_k w_k phi_k`, one scalar latent site a feature.

    Parameters
    ----------
    features : str, mapping of str to callable, or list of str
        A formula in formulaic's syntax, "price + density + C(size):(action != 'hold')", with the
        game's inputs as variables; or the name of each weight and its feature: a function of the
        inputs `x`, an array that broadcasts to (T, S, A), a labelled one as of a game's features,
        or the name of an input. A list names inputs.
    priors : mapping of str to Distribution, or Distribution
        Prior of each weight, those of all parts among them, or one for all.
    terminal, shock : as `features`, optional
        Of what a state is worth after the last decision, (1, S, 1), and of shocks that agents did
        not foresee, which sum to zero over time; see `Preferences`.
    names : mapping of str to str, optional
        What weights of a formula are called, by the name that statsmodels would give them:
        `{"density": "crowding"}`. By default they keep that name.

    Returns
    -------
    LinearReward
        The reward program; `written(game)` is the Pyro program that it stands for, as text.

    Raises
    ------
    ValueError
        If features and priors do not have the same names, or two parts share one; if a formula is
        none. What a formula says of a game is checked where the program first meets one.
    ImportError
        If a formula is given without formulaic.

    Notes
    -----
    In a formula words are categories, with the first label as the base, and numbers are numbers;
    `C(price)` makes categories of numbers, `centre(margin)` numbers of bins. A comparison in
    parentheses is 1 where it holds, else 0. `density`, `occupancy`, `share(stock='low')` and
    `expect('price')` are the crowd's. The intercept takes part in the coding and has no weight: a
    reward that is the same for all actions moves no choice.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> herd = {"crowd": "density", "move": lambda x: x.action != "stay"}
    >>> reward = linear_reward(herd, priors=dist.Normal(0.0, 5.0))
    >>> agent = linear_reward(herd, dist.Normal(0.0, 5.0), terminal={"end": "price"})
    """
    further = {"terminal": terminal, "shock": shock}
    given = {"features": features} | {k: v for k, v in further.items() if v is not None}
    parts = {name: _named(name, part) for name, part in given.items()}
    formulas = [part for part in parts.values() if isinstance(part, str)]
    if names is not None:
        is_a("names", names, Mapping, " Write {'density': 'crowding'}.")
        if not formulas:
            raise ValueError("`names` renames weights of a formula; a mapping names its own.")
    if isinstance(priors, Mapping):
        for name, prior in priors.items():
            check_prior(name, prior)
    else:
        check_prior(next((k for part in parts.values() for k in _own_names(part)), "each"), priors)
    made = LinearReward(parts, priors, dict(names or {}))
    if not formulas:
        made.weights([list(part) for part in parts.values()])
    return made


def _own_names(part: Any) -> list[str]:
    """Return the names that weights of a part are given, none of a formula."""
    return [] if isinstance(part, str) else list(part)


class LinearReward:
    """A reward program that is a sum of weights times features.

    Parameters
    ----------
    parts : dict of str to dict or str
        Features by the names of their weights, or a formula, of the reward and other parts.
    priors : mapping of str to Distribution, or Distribution
        Prior of each weight, or one for all.
    names : dict of str to str
        What weights of formulas are called, by the names that they would have.
    """

    def __init__(self, parts: Mapping[str, Any], priors: Priors, names: Mapping[str, str]) -> None:
        self.parts, self.priors, self.names = parts, priors, names

    def __call__(self, x: RewardInputs) -> Any:
        """Sample the weights and return the reward, with the other parts if there are any."""
        found = {part: self._values(features, x) for part, features in self.parts.items()}
        priors = self.weights([list(values) for values in found.values()])
        sums = {}
        for part, values in found.items():
            total = torch.zeros((), dtype=torch.float64)
            for name, value in values.items():
                total = total + pyro.sample(name, priors[name]) * value
            sums[part] = total
        reward = sums.pop("features")
        return Preferences(reward, **sums) if sums else reward

    def weights(self, found: Sequence[Sequence[str]]) -> dict[str, dist.Distribution]:
        """Return the prior of each weight, by part.

        Raises
        ------
        ValueError
            If two weights have one name, or priors or `names` do not fit.
        """
        every = [name for part in found for name in part]
        _check_distinct(every)
        if not isinstance(self.priors, Mapping):
            return dict.fromkeys(every, self.priors)
        if set(self.priors) != set(every):
            raise ValueError(
                f"`priors` must name the features {sorted(every)}; got {sorted(self.priors)}."
            )
        return {name: self.priors[name] for name in every}

    def written(self, game: MeanFieldGame) -> str:
        """Return the Pyro program that a formula stands for in a game, as text to paste.

        Raises
        ------
        ValueError
            If features are no formula.
        """
        is_a("game", game, MeanFieldGame)
        if not all(isinstance(part, str) for part in self.parts.values()):
            raise ValueError("only formulas are written out; features are what they were given as.")
        columns = {part: coded_columns(text, game) for part, text in self.parts.items()}
        called = {k: [self._called(c.name) for c in found] for k, found in columns.items()}
        self._check_names([c.name for found in columns.values() for c in found])
        priors = self.weights(list(called.values()))
        sites = [f"    w[{name!r}] = pyro.sample({name!r}, {_prior_text(prior)})"
                 for name, prior in priors.items()]  # fmt: skip
        sums = {
            part: "\n        + ".join(
                f"w[{name!r}] * {column.text}"
                for name, column in zip(called[part], columns[part], strict=True)
            )
            for part in columns
        }
        lines = [f"    {part} = (\n        {text}\n    )" for part, text in sums.items()]
        others = "".join(f", {part}={part}" for part in sums if part != "features")
        last = f"    return mfg.Preferences(features{others})" if others else "    return features"
        return "\n".join(["def reward(x):", "    w = {}", *sites, *lines, last]) + "\n"

    @property
    def source(self) -> str:
        """The features as they were given, as text."""
        lines = []
        for part, given in self.parts.items():
            where = "" if part == "features" else f"  ({part})"
            if isinstance(given, str):
                lines.append(f"  {given}{where}")
            else:
                lines += [f"  {k} * {_feature_source(v)}{where}" for k, v in given.items()]
        return "linear_reward:\n" + "\n".join(lines)

    def __repr__(self) -> str:
        return self.source

    def _called(self, name: str) -> str:
        return self.names.get(name, name)

    def _check_names(self, columns: Sequence[str]) -> None:
        for name in self.names:
            if name not in columns:
                raise ValueError(
                    f"`names` has {name!r}, which is no weight of the formula;"
                    f"{suggestion(name, columns)} weights: {', '.join(columns)}."
                )

    def _values(self, features: Any, x: RewardInputs) -> dict[str, Tensor]:
        """Return the features of a part along a flow, by the names of their weights."""
        if not isinstance(features, str):
            return {name: feature_values(feature, x) for name, feature in features.items()}
        texts = [part for part in self.parts.values() if isinstance(part, str)]
        self._check_names([c.name for text in texts for c in coded_columns(text, x.game)])
        found = columns_of(features, x)
        _check_distinct([self._called(name) for name in found])
        return {self._called(name): value for name, value in found.items()}


def _check_distinct(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two weights are called {twice!r}; give each part names of its own.")


def _prior_text(prior: Any) -> str:
    """Return a distribution as code."""
    names = list(getattr(prior, "arg_constraints", {}))
    values = [torch.as_tensor(getattr(prior, name)).tolist() for name in names]
    lists = [repr(v) if isinstance(v, float) else f"torch.tensor({v!r})" for v in values]
    return (
        f"dist.{type(prior).__name__}({', '.join(map('='.join, zip(names, lists, strict=True)))})"
    )


def _named(argument: str, features: Any) -> Any:
    """Return a formula as it is, other features by the names of their weights."""
    if isinstance(features, str):
        check_formula(features)
        return features
    if isinstance(features, Mapping):
        named = dict(features)
    elif isinstance(features, Iterable) and getattr(features, "ndim", 1) > 0:
        named = {name: name for name in names_of(argument, list(features))}
    else:
        raise TypeError(
            f"`{argument}` must be a formula, a mapping or a list of names; got {features!r}."
        )
    if not named and argument == "features":
        raise ValueError("`features` must name at least one feature; got none.")
    return named


def feature_values(feature: Any, x: RewardInputs) -> Tensor:
    """Return a feature given as a function of the inputs, the name of one, or an array."""
    if isinstance(feature, str):
        feature = getattr(x, feature)
    elif callable(feature):
        feature = feature(x)
    if is_labelled(feature):
        return x.game.named_feature("of the reward", feature)
    return torch.as_tensor(feature, dtype=torch.float64)


def _feature_source(feature: Any) -> str:
    """Return a feature as text: its name, its source and what that reads, or what it is."""
    if isinstance(feature, str):
        return f"x.{feature}"
    if not callable(feature):
        return f"an array of shape {tuple(getattr(feature, 'shape', ()))}"
    values = ", ".join(f"{name} = {value}" for name, value in sorted(values_read(feature).items()))
    said = f"  # {values}" if values else ""
    try:
        return inspect.getsource(feature).strip().rstrip(",") + said
    except (OSError, TypeError):
        return getattr(feature, "__name__", "a function") + said
