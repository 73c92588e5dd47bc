"""Graphons, as networks between positions, and finite networks drawn from them.

A graphon W gives the weight W(x, y) of agents at position y of [0, 1] for those at x. With C
positions in the middle of C intervals of equal length, agents at x meet `sum_y W(x, y) mu_y / C`,
whose sum over the states is the degree of x.

References
----------
.. [1] Cui and Koeppl (2022), *Learning graphon mean field games and approximate Nash equilibria*,
   arXiv 2112.01280.
.. [2] Fabian, Cui and Koeppl (2022), *Learning sparse graphon mean field games*, arXiv 2209.03880.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mfgppl._arguments import Seed, positive_int, real_between, seed_of, suggestion
from mfgppl.network import Network

Array = np.ndarray


def _uniform_attachment(x: Array, y: Array) -> Array:
    return 1 - np.maximum(x, y)


def _ranked_attachment(x: Array, y: Array) -> Array:
    return 1 - x * y


def _erdos_renyi(x: Array, y: Array, p: float = 0.5) -> Array:
    return np.full(np.broadcast(x, y).shape, p)


def _power_law(x: Array, y: Array, a: float = 0.5) -> Array:
    return np.asarray((1 - a) ** 2 * (x * y) ** -a)


GRAPHONS: dict[str, Callable[..., Array]] = {
    "uniform_attachment": _uniform_attachment,
    "ranked_attachment": _ranked_attachment,
    "erdos_renyi": _erdos_renyi,
    "power_law": _power_law,
}
NUMBERS = {"erdos_renyi": "p", "power_law": "a"}


def graphon(
    law: Any,
    *,
    positions: int = 100,
    of: str | None = None,
    normalise: str | None = None,
    p: float | None = None,
    a: float | None = None,
) -> Network:
    """Return a graphon at the middles of equal intervals, `(k + 1/2) / positions`.

    Parameters
    ----------
    law : str, callable or block matrix
        "uniform_attachment" `1 - max(x, y)`; "ranked_attachment" `1 - x y`; "erdos_renyi" `p`;
        "power_law" `(1 - a)^2 (x y)^-a`; a function of positions x and y, arrays that broadcast,
        that returns weights; or a matrix of blocks of equal length, (B, B).
    positions : int
        Number of positions C.
    of : str, optional
        The game's type whose labels the positions are, `types={"position": network.labels}`; by
        default its only one.
    normalise : None or "rows"
        By default exposures are integrals, whose sum is the degree.
    p, a : float between 0 and 1, optional
        The number of "erdos_renyi", and that of "power_law"; by default 0.5.

    Returns
    -------
    Network
        Its labels are the positions. A game with it has types of equal mass, `1 / C` each.

    Raises
    ------
    ValueError, TypeError
        If there is no such graphon, or weights are negative or no finite numbers.
    """
    n = positive_int("positions", positions)
    middles = (np.arange(n) + 0.5) / n
    if not isinstance(law, str) and not callable(law) and n % len(np.atleast_1d(_blocks(law))):
        raise ValueError(
            f"`positions` must be a multiple of the {len(_blocks(law))} blocks, which are equally "
            f"long; got {n}."
        )
    weights = _weights(law, middles, {"p": p, "a": a})
    labels = [float(x) for x in middles]
    table = pd.DataFrame(weights, labels, labels)
    return Network(table, of=of, normalise=normalise, self_loops=True, isolates=True, labels=labels)


def sampled(
    law: Any, *, nodes: int = 100, random_seed: Seed = None, of: str | None = None,
    p: float | None = None, a: float | None = None,
) -> Network:  # fmt: skip
    """Return a finite network drawn from a graphon: edges with probability `W(x, y)`.

    Each node has a position drawn uniformly, in ascending order, and each pair an edge, both ways,
    with the graphon's weight as its probability. With nodes of equal mass as types, what agents
    meet tends to that of the graphon as nodes become many.

    Parameters
    ----------
    law : str, callable or block matrix
        As in `graphon`; weights between 0 and 1.
    nodes : int
        Number of nodes, labelled 0, 1, ...
    random_seed : int or SeedSequence
        Seed of positions and edges.
    of : str, optional
        The game's type whose labels the nodes are; by default its only one.
    p, a : float, optional
        As in `graphon`.

    Returns
    -------
    Network
        Not normalised; each edge has its ends' positions as attributes `from_position` and
        `to_position`. Nodes may be isolated.

    Raises
    ------
    ValueError
        If a weight is no probability.
    """
    n = positive_int("nodes", nodes)
    rng = np.random.default_rng(seed_of(random_seed))
    place = np.sort(rng.random(n))
    chances = _weights(law, place, {"p": p, "a": a})
    if chances.max() > 1:
        raise ValueError(
            f"edges are drawn with the graphon's weights as probabilities; {chances.max():g} is "
            "above 1. Divide the graphon by its largest weight."
        )
    row, column = np.triu_indices(n, 1)
    there = rng.random(len(row)) < chances[row, column]
    ends = np.stack([row[there], column[there]])
    ends = np.concatenate([ends, ends[::-1]], axis=1)
    table = pd.DataFrame(
        {"from": ends[0], "to": ends[1],
         "from_position": place[ends[0]], "to_position": place[ends[1]]}
    )  # fmt: skip
    return Network(table, of=of, normalise=None, isolates=True, labels=range(n))


def _weights(law: Any, places: Array, numbers: dict[str, float | None]) -> Array:
    """Return the weights of a graphon between places, (C, C), else raise."""
    x, y = places[:, None], places[None, :]
    given = {k: v for k, v in numbers.items() if v is not None}
    if isinstance(law, str):
        if law not in GRAPHONS:
            listed = ", ".join(map(repr, GRAPHONS))
            hint = suggestion(law, GRAPHONS)
            raise ValueError(
                f"`law` must be one of {listed}, a function, or a matrix of blocks; got "
                f"{law!r}.{hint}"
            )
        values = GRAPHONS[law](x, y, **_numbers(law, given))
    elif given:
        raise TypeError(f"only a graphon by name takes {', '.join(given)}=.")
    elif callable(law):
        values = _called(law, x, y)
    else:
        blocks = _blocks(law)
        if blocks.ndim != 2 or blocks.shape[0] != blocks.shape[1]:
            raise ValueError(
                f"`law` must be a name, a function, or a matrix of blocks, which must be square; "
                f"got shape {blocks.shape}."
            )
        block = (places * len(blocks)).astype(int)
        values = blocks[block[:, None], block[None, :]]
    values = np.broadcast_to(np.asarray(values, dtype=float), (len(places), len(places)))
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("a graphon's weights must be finite numbers that are not negative.")
    return values


def _called(law: Any, x: Array, y: Array) -> Any:
    try:
        return law(x, y)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`law` must take arrays of positions that broadcast, with np.where in place of "
            f"branches, and return weights; it raised {error!r}."
        ) from error


def _blocks(law: Any) -> Array:
    try:
        return np.asarray(law, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(
            f"`law` must be the name of a graphon, a function, or a matrix of blocks; got {law!r}."
        ) from None


def _numbers(law: str, numbers: dict[str, float]) -> dict[str, float]:
    """Return the numbers of a graphon by name, else raise."""
    name = NUMBERS.get(law)
    for given in numbers:
        if given != name:
            known = f"takes {name}=" if name else "takes no number"
            raise TypeError(f"the graphon {law!r} {known}; got {given}=.")
    bounds = {"above": 0.0, "upto": 1.0, "strict": law == "power_law"}
    return {k: real_between(k, v, **bounds) for k, v in numbers.items()}  # type: ignore[arg-type]
