"""The uncertainty report: one self-contained HTML page from a finished result."""

import json
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import xarray as xr

from mfgppl._arguments import real_between, strict_keywords


@strict_keywords
def report(
    draws: xr.DataTree, path: str | Path, *, ci_prob: float = 0.9, title: str | None = None
) -> Path:
    """Write the uncertainty report of posterior draws.

    Parameters
    ----------
    draws : DataTree
        A result of `nuts`, or one read with `load`.
    path : str or Path
        The HTML file to write.
    ci_prob : float in (0, 1)
        Level of the equal-tailed intervals.
    title : str, optional
        Heading of the page.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the tree is not a result of this package.
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    real_between("ci_prob", ci_prob, above=0.0, upto=1.0, strict=True)
    if not isinstance(draws, xr.DataTree):
        raise TypeError(f"`draws` must be a DataTree of nuts(...); got {type(draws).__name__}.")
    if draws.attrs.get("inference_library") != "mfgppl" or "posterior" not in draws.children:
        raise ValueError("`draws` must be a result of mfgppl with the group posterior.")
    path = Path(path)
    if not path.parent.exists():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    source = resources.files("mfgppl.report").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(**_content(draws, ci_prob, title))
    path.write_text(page, encoding="utf-8")
    return path


def _content(draws: xr.DataTree, ci_prob: float, title: str | None) -> dict[str, Any]:
    # matplotlib and ArviZ's plots take seconds to import, and only a report needs them
    from mfgppl.report.figures import (
        as_image,
        posterior_figures,
        predictive_by_state,
        predictive_by_time,
    )

    attrs = {str(k): v for k, v in draws.attrs.items()}
    names = [str(n) for n in draws["posterior"].data_vars]
    posterior = draws["posterior"].dataset
    messages = list(attrs.get("warnings", []))
    return {
        "title": title or "Uncertainty report of a mean field game",
        "verdict": _verdict(messages),
        "trusted": not messages,
        "messages": messages,
        "n_chains": posterior.sizes["chain"],
        "n_draws": posterior.sizes["draw"],
        "audit": _flatten(json.loads(attrs["audit"])),
        "model": _model_rows(attrs),
        "priors": json.loads(attrs["priors"]),
        "source": attrs["reward_source"],
        "interval": f"equal-tailed {100 * ci_prob:g}%",
        "estimates": _estimates(draws, ci_prob),
        "loo": _loo(draws),
        "figures": posterior_figures(draws, names),
        "checks": [
            (
                "Shares of actions over time: observed (dots) and the 90% predictive band",
                as_image(predictive_by_time(draws)),
            ),
            (
                "Shares of actions by state: observed (dots) and the 90% predictive interval",
                as_image(predictive_by_state(draws)),
            ),
        ],
        "coverage": _coverage(draws),
        "record": {
            k: f"{attrs[k]:.1f} s" if k.endswith("_time") else attrs[k]
            for k in (
                "created_at", "random_seed", "sampling_time", "compile_time", "density_path",
                "versions", "game_hash", "data_hash", "inference_library_version",
            )
        },
    }  # fmt: skip


def _verdict(messages: list[str]) -> str:
    if not messages:
        return "The sampler converged: no check of the sampler speaks against these draws."
    some = "one check speaks" if len(messages) == 1 else f"{len(messages)} checks speak"
    return f"Do not rely on these draws yet: {some} against them."


def _flatten(audit: dict[str, Any]) -> dict[str, str]:
    """Return an audit as rows of text."""
    rows = {}
    for key, value in audit.items():
        if isinstance(value, dict):
            value = "; ".join(
                f"{k}: {', '.join(map(str, v)) if isinstance(v, list) else v}"
                for k, v in value.items()
            )
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        rows[key] = str(value)
    return rows


def _sampler(attrs: dict[str, Any]) -> str:
    """Name what drew, with what it says of itself."""
    if "tuning_steps" in attrs:
        return f"NUTS by {attrs['sampler']}, {attrs['tuning_steps']} tuning steps"
    return f"{attrs['sampler']}; Pareto shape of its weights {attrs['pareto_k']:.2f}"


def _model_rows(attrs: dict[str, Any]) -> dict[str, str]:
    start = f", {attrs['start']} start" if attrs["start"] else ""
    return {
        "likelihood": f"{attrs['likelihood']}{start}",
        "mean field": "the panel's own flow, held fixed (plug-in)",
        "discount": f"{attrs['discount']:g}",
        "temperature": f"{attrs['temperature']:g} reward units",
        "sampler": _sampler(attrs),
    }


def _estimates(draws: xr.DataTree, ci_prob: float) -> pd.DataFrame:
    import arviz_stats

    table = arviz_stats.summary(draws, ci_prob=ci_prob, ci_kind="eti", round_to="none")
    return table.map(lambda v: f"{v:.4g}" if isinstance(v, (float, np.floating)) else str(v))


def _loo(draws: xr.DataTree) -> dict[str, str] | None:
    import arviz_stats

    if "log_likelihood" not in draws.children:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loo = arviz_stats.loo(draws, pointwise=True)
    bad = int((loo.pareto_k > loo.good_k).sum())
    return {
        "elpd": f"{loo.elpd:.1f} (standard error {loo.se:.1f})",
        "effective parameters": f"{loo.p:.1f}",
        "trajectories with an unreliable estimate": f"{bad} of {loo.n_data_points} "
        f"(Pareto k above {loo.good_k:.2f})",
    }


def _coverage(draws: xr.DataTree) -> str:
    """Say how many observed shares lie inside their predictive bands."""
    from mfgppl.report.figures import predictive_band

    observed = draws["observed_data"].dataset["share_by_time"]
    low, high = predictive_band(draws, "share_by_time")
    known = observed.notnull()  # noqa: PD004 - xarray's name
    inside = int(((observed >= low) & (observed <= high) & known).sum())
    total = int(known.sum())
    share = inside / max(total, 1)
    if share >= 0.8:
        judged = "about what a model that is right would give"
    else:
        judged = "fewer than a model that is right would give: something moves that it leaves out"
    counted = f"{inside} of {total} observed shares over time ({100 * share:.0f}%)"
    return f"{counted} lie in the 90% band, {judged}."
