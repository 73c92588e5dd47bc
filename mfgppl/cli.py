"""The command line: demo, fit, report, check."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mfgppl._commands import interrupts
from mfgppl._commands.boundary import Boundary, Interrupted, OneLine, debuggable
from mfgppl._commands.model_files import (
    build_model,
    load_model,
    model_path,
    panel_path,
    read_panel,
)
from mfgppl._commands.targets import Target, check_targets
from mfgppl._files import write_files
from mfgppl._version import __version__

FAILED_CHECKS = 3  # exit code of a fit whose draws should not be trusted
POINTS = ("mle", "map")
USED = {  # options of `fit` by the methods that use them
    "draws": ("nuts", "laplace", "vi"),
    "tune": ("nuts",),
    "chains": ("nuts",),
    "cores": ("nuts",),
    "sampler": ("nuts",),
}
POSITIVE = click.IntRange(min=1)

NUMBERS_A_DRAW = 12  # of a draw beside its parameters: statistics, and copies on the way

overwriting = click.option(
    "--overwrite", is_flag=True, help="Write over files that mfgppl did not write."
)


def _at_home(_: click.Context, __: click.Parameter, path: str | None) -> str | None:
    """Put in the home folder for ~, as no shell does in --out=~/fit.nc."""
    return path and os.path.expanduser(path)


def _ci_prob(_: click.Context, __: click.Parameter, ci_prob: float) -> float:
    if not 0.0 < ci_prob < 1.0:
        raise click.BadParameter(f"must lie in (0, 1); got {ci_prob:g}.")
    return ci_prob


@debuggable
@click.group(
    cls=Boundary,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mfgppl")
def main() -> None:
    """Learn what a crowd of agents is after, with honest uncertainty.

    Start with `mfgppl demo`. Then write a model file (a reward in a few lines of Python), fit it
    to a table of agent, time, state and action, and read the report. Exit code 1 means an error,
    2 a wrong option, 3 a failed convergence check, 130 an interrupt.
    """


@debuggable
@main.command()
@click.option(
    "--out",
    default="report.html",
    callback=_at_home,
    show_default=True,
    help="The report to write.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the draws."
)
@click.option(
    "--draws", type=POSITIVE, default=1000, show_default=True, help="Draws a chain, after tuning."
)
@overwriting
def demo(out: str, seed: int, draws: int, overwrite: bool) -> None:
    """Read the bundled supermarket panel, fit a reward by MLE and NUTS, write a report.

    534 products set prices over 25 months. The reward says what a product may care about: the
    cost of a price change, its own margin, and its distance from the crowd's mean margin.
    """
    page = Target("--out", Path(out), ".html")
    check_targets([page], [], overwrite=overwrite)
    import mfgppl as mfg

    pricing = load_model("pricing")
    click.echo("Reading the supermarket panel ...")
    panel = pricing.panel()
    click.echo(f"  {panel}")
    model = pricing.model(panel)
    _check_memory(model, draws, draws, 4)
    click.echo("Maximum likelihood ...")
    with _noted_warnings():
        estimate = mfg.mle(model)
    click.echo(_indented(str(estimate)))
    click.echo("Posterior by NUTS, 4 chains ...")
    with _noted_warnings(), interrupts.awaited():
        tree = mfg.nuts(model, draws=draws, tune=draws, random_seed=seed)
    if tree.attrs.get("interrupted"):
        raise Interrupted
    _show(tree)
    written = mfg.report(
        tree, page.path, model=model, title="Supermarket pricing", overwrite=overwrite
    )
    click.echo(f"Report: {written}")


@debuggable
@main.command()
@click.argument("model_file", metavar="MODEL.py", callback=_at_home)
@click.argument("panel", metavar="PANEL", callback=_at_home)
@click.option(
    "--method",
    type=click.Choice(["nuts", "laplace", "vi", "mle", "map"]),
    default="nuts",
    show_default=True,
    help="Posterior draws, exact or approximate, or a point estimate.",
)
@click.option(
    "--out", callback=_at_home, help="Where to write: a .nc file of draws, or a .csv of estimates."
)
@click.option(
    "--report",
    "page",
    callback=_at_home,
    help="The HTML report to write, its numbers as JSON beside it.",
)
@click.option(
    "--draws", type=POSITIVE, default=1000, show_default=True, help="Draws a chain, after tuning."
)
@click.option(
    "--tune", type=POSITIVE, default=1000, show_default=True, help="Tuning steps a chain."
)
@click.option("--chains", type=POSITIVE, default=4, show_default=True, help="Chains.")
@click.option("--cores", type=POSITIVE, help="Chains at a time [default: all processors].")
@click.option(
    "--sampler",
    type=click.Choice(["nutpie", "pyro"]),
    default="nutpie",
    show_default=True,
    help="NUTS implementation.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Seed of the draws [default: a fresh one, recorded].",
)
@overwriting
@click.pass_context
def fit(
    ctx: click.Context,
    model_file: str,
    panel: str,
    method: str,
    out: str | None,
    page: str | None,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    sampler: str,
    seed: int | None,
    overwrite: bool,
) -> None:
    """Fit the model of MODEL.py to the table PANEL.

    MODEL.py is a Python file, or the name of a gallery model. It defines `model(panel)`, which
    returns a TrajectoryModel, and may define COLUMNS, a dict that says which columns are agent,
    time, state (one or a list) and action. It may import files beside it. PANEL is a CSV or Parquet
    file, or the name of a bundled panel. Exit code 3 means that the fit failed a convergence check.
    An interrupt of NUTS writes the draws so far to --out.
    """
    _refuse_unused(ctx, method)
    inputs = [path for path in (model_path(model_file), panel_path(panel)) if path is not None]
    suffix = ".csv" if method in POINTS else ".nc"
    result = None if out is None else Target("--out", Path(out), suffix)
    report_page = None if page is None else Target("--report", Path(page), ".html")
    check_targets([t for t in (result, report_page) if t], inputs, overwrite=overwrite)
    module = load_model(model_file)
    data = read_panel(module, panel_path(panel))
    click.echo(f"{data}")
    model = build_model(module, data, model_file)
    seeded = {} if seed is None else {"random_seed": seed}
    if method in POINTS:
        found = _estimated(model, method, seeded, result)
        passed = found.converged
    else:
        options: dict[str, Any] = {"draws": draws, **seeded}
        if method == "nuts":
            options |= {"tune": tune, "chains": chains, "cores": cores, "sampler": sampler}
        _check_memory(model, draws, *((tune, chains) if method == "nuts" else (0, 1)))
        found = _drawn(model, method, options, result, overwrite=overwrite)
        passed = not found.attrs["warnings"]
    if report_page is not None:
        _write_report(found, report_page, model=model, overwrite=overwrite)
    ctx.exit(0 if passed else FAILED_CHECKS)


@debuggable
@main.command()
@click.argument("fitted", metavar="FIT.nc", callback=_at_home)
@click.option(
    "--out", callback=_at_home, help="The page to write [default: beside the file, .html]."
)
@click.option(
    "--ci-prob",
    type=float,
    callback=_ci_prob,
    default=0.9,
    show_default=True,
    help="Mass of an interval.",
)
@click.option(
    "--model",
    "model_file",
    callback=_at_home,
    help="The fitted MODEL.py: adds the checks that need it.",
)
@click.option("--panel", callback=_at_home, help="The fitted PANEL, with --model.")
@overwriting
def report(
    fitted: str,
    out: str | None,
    ci_prob: float,
    model_file: str | None,
    panel: str | None,
    overwrite: bool,
) -> None:
    """Write the HTML report of draws saved by `mfgppl fit --out FIT.nc`.

    With --model and --panel the page also says what the data can identify, whether the model draws
    panels like the one seen, whether the crowd is near an equilibrium, and what the prior does.
    """
    if (model_file is None) != (panel is None):
        raise OneLine("--model and --panel go together: the model is made of the panel")
    if not Path(fitted).exists() or not Path(fitted).name:
        raise OneLine(f"no file {fitted}: give the .nc file or the .zarr store of a fit")
    inputs = [Path(fitted)]
    if model_file is not None and panel is not None:
        inputs += [p for p in (model_path(model_file), panel_path(panel)) if p is not None]
    page = Target("--out", Path(out or Path(fitted).with_suffix(".html")), ".html")
    check_targets([page], inputs, overwrite=overwrite)
    import mfgppl as mfg

    tree = mfg.load(fitted)
    model = None
    if model_file is not None and panel is not None:
        module = load_model(model_file)
        model = build_model(module, read_panel(module, panel_path(panel)), model_file)
    _write_report(tree, page, ci_prob=ci_prob, model=model, overwrite=overwrite)


@debuggable
@main.command()
@click.argument("panel", metavar="PANEL", callback=_at_home)
@click.option("--agent", default="agent", show_default=True, help="Column of the agent.")
@click.option("--time", default="time", show_default=True, help="Column of the (integer) time.")
@click.option(
    "--state",
    multiple=True,
    default=["state"],
    show_default=True,
    help="Column of the state; repeat it for several.",
)
@click.option("--action", default="action", show_default=True, help="Column of the action.")
@click.option(
    "--type",
    "types",
    multiple=True,
    help="Column of a type, which never changes in an agent; repeat it for several.",
)
@click.option(
    "--gaps",
    type=click.Choice(["error", "split"]),
    default="error",
    show_default=True,
    help="Whether a missing time is a fault or starts a new trajectory.",
)
def check(
    panel: str,
    agent: str,
    time: str,
    state: tuple[str, ...],
    action: str,
    types: tuple[str, ...],
    gaps: str,
) -> None:
    """Audit the table PANEL: all its faults at once, or what it holds.

    Exit code 1 where it has faults; nothing is changed.
    """
    table = panel_path(panel)
    import mfgppl as mfg

    data = mfg.Trajectories.from_frame(
        table, agent=agent, time=time, state=list(state), action=action, types=list(types),
        gaps=gaps,
    )  # fmt: skip
    for key, value in data.audit().items():
        value = ", ".join(value) or "none" if isinstance(value, list) else value
        click.echo(f"{key + ':':36}{value}")


def _refuse_unused(ctx: click.Context, method: str) -> None:
    """Refuse an option that the method does not use."""
    for name, methods in USED.items():
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and method not in methods:
            raise click.UsageError(
                f"--{name} is an option of {' and '.join(methods)}; --method {method} has none."
            )


def _check_memory(model: Any, draws: int, tune: int, chains: int) -> None:
    """Refuse more draws than the machine can hold."""
    from mfgppl.density.of_model import density_of

    with _noted_warnings():
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


def _estimated(model: Any, method: str, seeded: dict[str, int], result: Target | None) -> Any:
    """Return a point estimate, printed and written."""
    import mfgppl as mfg

    estimator: Callable[..., Any] = mfg.mle if method == "mle" else mfg.map_estimate
    with _noted_warnings():
        estimate = estimator(model, **seeded)
    click.echo(str(estimate))
    if result is not None:
        table = estimate.summary().to_csv().encode("utf-8")
        write_files({result.path: table})
        click.echo(f"Estimates: {result.path}")
    return estimate


def _drawn(
    model: Any, method: str, options: dict[str, Any], result: Target | None, *, overwrite: bool
) -> Any:
    """Return draws, printed and written; after an interrupt, end with those so far."""
    import mfgppl as mfg

    samplers: dict[str, Any] = {"nuts": mfg.nuts, "laplace": mfg.laplace, "vi": mfg.vi}
    if method == "nuts":
        with _noted_warnings(), interrupts.awaited():
            tree = samplers[method](model, **options)
    else:
        with _noted_warnings():
            tree = samplers[method](model, **options)
    ended = bool(tree.attrs.get("interrupted"))
    if not ended:
        _show(tree)
    if result is not None:
        mfg.save(tree, result.path, overwrite=overwrite)
        if ended:
            raise Interrupted(f"; the draws so far are in {result.path}")
        click.echo(f"Draws: {result.path}; read them with: mfgppl report {result.path}")
    if ended:
        raise Interrupted
    return tree


def _write_report(found: Any, page: Target, **options: Any) -> None:
    import mfgppl as mfg

    click.echo(f"Report: {mfg.report(found, page.path, **options)}")


@contextmanager
def _noted_warnings() -> Iterator[None]:
    """Print warnings about compilation, a line each; a result carries the others itself."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    from mfgppl.exceptions import CompilationWarning

    for message in dict.fromkeys(
        str(w.message) for w in raised if issubclass(w.category, CompilationWarning)
    ):
        click.echo(f"mfgppl: warning: {message}", err=True)


def _show(tree: Any) -> None:
    import arviz_stats

    table = arviz_stats.summary(tree, ci_prob=0.9, ci_kind="eti", round_to="none")
    click.echo(_indented(table.to_string(float_format=lambda v: f"{v:.4g}")))
    click.echo("  equal-tailed 90% intervals")
    for message in tree.attrs["warnings"]:
        click.echo(f"  warning: {message}")
    seconds = tree.attrs["compile_time"] + tree.attrs["sampling_time"]
    click.echo(f"  {seconds:.1f} s, seed {tree.attrs['random_seed']}")


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
