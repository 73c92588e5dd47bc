"""Latent sites and their values: what entries are called, and values as users give them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyro.distributions as dist
import xarray as xr

from mfgppl._arguments import suggestion
from mfgppl._arrays import is_labelled
from mfgppl.data.space import text_labels

ENTRY = re.compile(r"(?P<site>.+?)\[(?P<labels>.+)\]")


class Site(NamedTuple):
    """Where a latent site stands in the flat unconstrained vector.

    Attributes
    ----------
    name : str
        The site.
    shape : tuple of int
        Shape of its value.
    free_shape : tuple of int
        Shape of its unconstrained value.
    start, stop : int
        Its place in the flat vector.
    entries : tuple of (str, tuple), or None
        Of what its entries are, and their labels, axis by axis, where its prior says
        (`x.size.each(prior)`).
    """

    name: str
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    start: int
    stop: int
    entries: tuple[tuple[str, tuple[Any, ...]], ...] | None = None

    @property
    def size(self) -> int:
        """Number of unconstrained values."""
        return self.stop - self.start

    @property
    def entry_names(self) -> list[str]:
        """One name a constrained parameter: the site, or the site and its entry."""
        if not self.shape:
            return [self.name]
        if self.entries is not None:
            return [f"{self.name}[{label}]" for label in entry_labels(self.entries)]
        return [f"{self.name}[{', '.join(map(str, index))}]" for index in np.ndindex(*self.shape)]


def one_each(name: str, labels: Sequence[Any], prior: dist.Distribution) -> dist.Distribution:
    """Return a prior for a vector with one independent entry per label.

    Parameters
    ----------
    name : str
        What the labels are of.
    labels : sequence
        The labels.
    prior : Distribution
        Of an entry, a number.

    Raises
    ------
    TypeError
        If the prior is no distribution of a number.
    """
    shape = getattr(prior, "batch_shape", None), getattr(prior, "event_shape", None)
    if not hasattr(prior, "log_prob") or shape != ((), ()):
        raise TypeError(
            f"x.{name}.each takes the prior of one entry, as dist.Normal(0.0, 1.0); got {prior!r}."
        )
    made = prior.expand([len(labels)]).to_event(1)
    made.entries = ((name, tuple(labels)),)
    return made


def entry_labels(entries: Sequence[tuple[str, Sequence[Any]]]) -> list[str]:
    """Return the label of each entry of an array whose axes have labels: "small, 0"."""
    axes = [text_labels(labels) for _, labels in entries]
    return [", ".join(parts) for parts in itertools.product(*axes)]


class ByLabel(dict[str, float]):
    """Entries of an array by their labels; whoever knows the site puts them in its order."""


def in_shape(argument: str, name: str, value: Any, shape: tuple[int, ...], entries: Any) -> Any:
    """Return a value for a site in its shape, where its entries came by label.

    Parameters
    ----------
    argument, name : str
        What the caller calls the values, and the site.
    value : object
        Entries by label; other values are returned as they are.
    shape : tuple of int
        Shape of the site's value.
    entries : tuple or None
        Of what its entries are, and their labels, axis by axis.

    Raises
    ------
    ValueError
        If the site has other labels, or none.
    """
    if not isinstance(value, ByLabel):
        return value
    given = {re.sub(r", ?", ", ", label): entry for label, entry in value.items()}
    places = [", ".join(map(str, place)) for place in np.ndindex(*shape)]
    labels = places if entries is None else entry_labels(entries)
    missing = [label for label in labels if label not in given]
    if missing or len(labels) < len(given):
        raise ValueError(
            f"`{argument}` must give the entries {labels[:10]} of {name!r}; it has "
            f"{list(value)[:10]}."
        )
    return np.array([given[label] for label in labels]).reshape(shape)


def site_values(argument: str, given: Any) -> dict[str, Any]:
    """Return a value for each site, else raise a `TypeError`.

    Parameters
    ----------
    argument : str
        What the caller calls them.
    given : mapping, Series, point fit or None
        Values by site; a Series may also have entries of arrays, `w[0]` and `w[1]`, as a fit's
        `params` does.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If entries of an array are missing or repeated.
    """
    if given is None:
        return {}
    params = getattr(given, "params", None)
    if isinstance(params, pd.Series):  # a fit
        given = params
    if isinstance(given, pd.Series):
        return _by_site(argument, given)
    if isinstance(given, Mapping) and not isinstance(given, (xr.Dataset, xr.DataTree)):
        for name, value in given.items():
            if value is None or isinstance(value, (str, bytes)):
                message = f"`{argument}` must give {name!r} a number or an array of them"
                raise TypeError(f"{message}; got {value!r}.")
        return {k: _plain(v) for k, v in given.items()}
    draws = isinstance(given, (xr.Dataset, xr.DataTree))
    remedy = " Draws are many values: give one, as of their mean." if draws else ""
    came = repr(given) if isinstance(given, (int, float, str)) else type(given).__name__
    raise TypeError(
        f"`{argument}` must be a mapping of parameters to values, a Series or a point fit; got "
        f"{came}.{remedy}"
    )


def checked_values(
    argument: str, values: Any, sites: Sequence[Site], *, complete: bool
) -> dict[str, Any]:
    """Return values by site, else raise what is wrong with them in the user's terms.

    Parameters
    ----------
    argument : str
        What the caller calls them.
    values : mapping of str to value
        Constrained values.
    sites : list of Site
        The sites that there are.
    complete : bool
        Whether each site must have one.
    """
    values = site_values(argument, values)
    known = {site.name: site for site in sites}
    for name in values:
        if name not in known:
            raise ValueError(
                f"`{argument}` names {name!r}; the parameters are {', '.join(known)}."
                f"{suggestion(name, known)}"
            )
    missing = [name for name in known if name not in values]
    if complete and missing:
        raise ValueError(f"`{argument}` lacks the parameter {missing[0]!r}.")
    return {
        k: np.asarray(in_shape(argument, k, v, known[k].shape, known[k].entries), dtype=float)
        for k, v in values.items()
    }


def _plain(value: Any) -> Any:
    """Return a labelled array as numbers, and arrays as torch takes them: it wants to write."""
    array = value.to_numpy() if is_labelled(value) else value
    return array.copy() if isinstance(array, np.ndarray) and not array.flags.writeable else array


def _by_site(argument: str, series: pd.Series) -> dict[str, Any]:
    """Return the entries of a Series by site, those of arrays by label."""
    repeated = series.index[series.index.duplicated()]
    if len(repeated):
        raise ValueError(f"`{argument}` gives {repeated[0]!r} twice; give each once.")
    sites: dict[str, Any] = {}
    for name, value in zip(map(str, series.index), series, strict=True):
        entry = ENTRY.fullmatch(name)
        if entry is None:
            sites[name] = _plain(value)
        else:
            sites.setdefault(entry["site"], ByLabel())[entry["labels"]] = float(value)
    return sites
