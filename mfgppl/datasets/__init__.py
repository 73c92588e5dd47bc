"""Two real panels that ship with the package; `NOTICE.md` beside them says where they come from."""

from importlib import resources
from pathlib import Path

import pandas as pd

__all__ = ["PANELS", "nyc_flights", "path", "supermarket_pricing"]

PANELS = ("supermarket_pricing", "nyc_flights")


def path(name: str) -> Path:
    """Return the path of a bundled panel's CSV file.

    Parameters
    ----------
    name : {"supermarket_pricing", "nyc_flights"}
        The panel.

    Raises
    ------
    ValueError
        If there is no panel of that name.
    """
    if not isinstance(name, str) or name not in PANELS:
        raise ValueError(f"`name` must be one of {', '.join(PANELS)}; got {name!r}.")
    return Path(str(resources.files("mfgppl.datasets"))) / f"{name}.csv.gz"


def supermarket_pricing() -> pd.DataFrame:
    """Return prices of 534 products of one supermarket chain over 26 months, 13,350 decisions.

    Returns
    -------
    DataFrame
        `product`, `month` (0-25), `margin` (0-5: the margin against the product's own median, cut
        at -0.08, -0.04, -0.015, 0.015, 0.04), `inventory` (low or normal), `action` (lower, hold
        or raise the price; empty in the last month).

    References
    ----------
    .. [1] Aguirregabiria (1999), *The dynamics of markups and inventories in retailing firms*,
       Review of Economic Studies 66(2), 275-308.
    """
    return pd.read_csv(path("supermarket_pricing"))


def nyc_flights() -> pd.DataFrame:
    """Return weekly capacity of 247 services from New York's airports in 2013, 12,597 decisions.

    Returns
    -------
    DataFrame
        `service`, `week` (0-51), `capacity` (0-5: log flights against the service's own median,
        cut at -0.25, -0.08, -0.02, 0.02, 0.1), `action` (cut, keep or add; empty in the last
        week), `carrier`, `airport`, `dest`.

    References
    ----------
    .. [1] US Bureau of Transportation Statistics, on-time performance records of 2013.
    """
    return pd.read_csv(path("nyc_flights"))
