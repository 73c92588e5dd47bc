"""Fits of the command line: run, printed and written."""

import os
from collections.abc import Callable
from typing import Any

from mfgppl._commands import interrupts
from mfgppl._commands.boundary import Interrupted, OneLine
from mfgppl._commands.output import Output, noted_warnings, show_draws
from mfgppl._commands.targets import Target
from mfgppl._files import write_files

NUMBERS_A_DRAW = 12  # of a draw beside its parameters: statistics, and copies on the way


def check_memory(model: Any, draws: int, tune: int, chains: int) -> None:
    """Refuse more draws than the machine can hold."""
    from mfgppl.density.of_model import density_of

    with noted_warnings():
        density = density_of(model, progressbar=True)  # kernels load where an interrupt ends it
    needed = 8 * chains * (draws + tune) * (density.n_dim + NUMBERS_A_DRAW)
    held = _memory()
    if held is not None and needed > held:
        raise OneLine(
            f"{chains} chains of {draws + tune} draws take {needed / 1e9:.3g} GB, and this machine "
            f"has {held / 1e9:.3g}; lower --draws, --tune or --chains"
        )


def _memory() -> int | None:
    """Return the machine's memory in bytes, None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def estimated(
    model: Any,
    method: str,
    seeded: dict[str, int],
    result: Target | None,
    cluster: str | None,
    output: Output,
) -> Any:
    """Return a point estimate, printed and written."""
    import mfgppl as mfg

    estimator: Callable[..., Any] = mfg.mle if method == "mle" else mfg.map_estimate
    with noted_warnings():
        estimate = estimator(model, **seeded)
    output.say(str(estimate))
    errors = {} if cluster is None else {"kind": "cluster", "groups": cluster}
    table = estimate.summary(**errors)
    if cluster is not None:
        from mfgppl.reporting.tables import few_clusters

        output.say(f"std_err clustered by {cluster}, {estimate.n_clusters(cluster)} clusters")
        output.say(table.to_string(float_format=lambda v: f"{v:.4g}"))
        for note in few_clusters({"": estimate}, cluster):
            output.say(f"note: {note}")
    if result is not None:
        write_files({result.path: table.to_csv().encode("utf-8")})
        output.say(f"Estimates: {result.path}")
    return estimate


def drawn(
    model: Any,
    method: str,
    options: dict[str, Any],
    result: Target | None,
    output: Output,
    *,
    overwrite: bool,
) -> Any:
    """Return draws, printed and written; after an interrupt, end with those so far."""
    import mfgppl as mfg

    samplers: dict[str, Any] = {"nuts": mfg.nuts, "laplace": mfg.laplace, "vi": mfg.vi}
    if method == "nuts":
        with noted_warnings(), interrupts.awaited():
            tree = samplers[method](model, **options)
    else:
        with noted_warnings():
            tree = samplers[method](model, **options)
    ended = bool(tree.attrs.get("interrupted"))
    if not ended:
        show_draws(tree, output)
    if result is not None:
        mfg.save(tree, result.path, overwrite=overwrite)
        if ended:
            raise Interrupted(f"; the draws so far are in {result.path}")
        output.say(f"Draws: {result.path}; read them with: mfgppl report {result.path}")
    if ended:
        raise Interrupted
    return tree


def write_report(found: Any, page: Target, output: Output, **options: Any) -> None:
    """Write the report of a fit, and say where."""
    import mfgppl as mfg

    output.say(f"Report: {mfg.report(found, page.path, **options)}")
