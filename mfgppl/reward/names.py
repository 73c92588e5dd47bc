"""What the sites of a reward program may be called, so that results can hold them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mfgppl.reward.program import is_subsample, parameters_among

OBSERVED = ("actions", "moves")  # sites
# these, what results call their dimensions, and what ArviZ's forest calls its columns
TAKEN = (
    *OBSERVED, "action", "chain", "column", "draw", "feature", "state", "time",
    "trajectory", "type",
)  # fmt: skip
LONGEST = 200  # bytes of a file's name, with room for what a dimension's has besides
OF_STORES = ("", ".", "..", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")


def check_site_names(sites: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where results could not hold what a program samples or records.

    Parameters
    ----------
    sites : mapping of str to dict
        The nodes of a trace of the program.
    """
    sampled = {name: site for name, site in sites.items() if site["type"] == "sample"}
    for name, site in sampled.items():
        if name in TAKEN:
            raise ValueError(
                f"a site cannot be called {name!r}: results use the names {', '.join(TAKEN)}."
            )
        fault = None if is_subsample(site) else _fault(name)
        if fault:
            raise ValueError(f"a site cannot be called {name!r}: {fault}; rename it.")
    labelled = {k: s["fn"].entries for k, s in sampled.items() if hasattr(s["fn"], "entries")}
    dims = {dim: k for k, entries in labelled.items() for dim, _ in entries}
    for name in sampled:
        if name in dims:
            raise ValueError(
                f"a site cannot be called {name!r}: the entries of {dims[name]!r} are labelled by "
                f"x.{name}, and results call their dimension so; rename the site."
            )
    _check_entries({k: tuple(s["value"].shape) for k, s in parameters_among(sampled).items()})


def _fault(name: str) -> str | None:
    """Return why no file could hold an array of a name, None where files can."""
    if "/" in name or "\0" in name:
        return f"files hold no name with {'/' if '/' in name else chr(0)!r}"
    if name in OF_STORES:
        return "it means something else in files"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is no text that files can hold"
    return f"it has {size} bytes, of at most {LONGEST}" if size > LONGEST else None


def _check_entries(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise where a parameter is called as an entry of another."""
    for name in shapes:
        owner = name.rpartition("[")[0]
        entries = np.ndindex(*shapes.get(owner, ()))
        if owner in shapes and name in (f"{owner}[{', '.join(map(str, k))}]" for k in entries):
            raise ValueError(
                f"a site cannot be called {name!r}: so is an entry of the site {owner!r}; "
                "rename one of them."
            )
