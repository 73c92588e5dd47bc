"""The command line: demo, new, check, fit, compare, report."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mfgppl._commands import interrupts
from mfgppl._commands.boundary import Boundary, Interrupted, OneLine, debuggable
from mfgppl._commands.fits import check_memory, drawn, estimated, write_report
from mfgppl._commands.model_files import (
    build_model,
    load_model,
    model_path,
    panel_path,
    read_panel,
)
from mfgppl._commands.output import Output, fit_record, indented, noted_warnings, show_draws
from mfgppl._commands.targets import PAGES, TABLES, Target, check_targets
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

overwriting = click.option(
    "--overwrite", is_flag=True, help="Write over files that mfgppl did not write."
)
as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Write the result as JSON, the lines to standard error."
)
cluster_option = click.option(
    "--cluster",
    metavar="COLUMN",
    help="Cluster the standard errors of a point by agent, or by a column of COLUMNS['groups'].",
)
ROLE_OPTIONS = (
    click.option("--type", "types", multiple=True,
                 help="Column of a type, which never changes in an agent; repeat it for several."),
    click.option("--gaps", type=click.Choice(["error", "split"]), default="error",
                 show_default=True,
                 help="Whether a missing time is a fault or starts a new trajectory."),
)  # fmt: skip


def with_roles(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what else a table's columns are."""
    for option in reversed(ROLE_OPTIONS):
        command = option(command)
    return command


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

    Start with `mfgppl demo`. Then have `mfgppl new` write a model file for your table of agent,
    time, state and action, look over its reward, fit it, and read the report. Exit code 1 means an
    error, 2 a wrong option, 3 a failed convergence check, 130 an interrupt.
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

    534 products set prices over 26 months. The reward says what a product may care about: the
    cost of a price change, its own margin, and its distance from the crowd's mean margin. It is the
    reward that one writes first: the report says what it does not predict, and the documentation's
    page on pricing goes on from there to one that does.
    """
    page = Target("--out", Path(out), PAGES)
    check_targets([page], [], overwrite=overwrite)
    import mfgppl as mfg

    pricing = load_model("pricing")
    click.echo("Reading the supermarket panel ...")
    panel = pricing.panel()
    click.echo(f"  {panel}")
    model = pricing.model(panel)
    check_memory(model, draws, draws, 4)
    click.echo("Maximum likelihood ...")
    with noted_warnings():
        estimate = mfg.mle(model)
    click.echo(indented(str(estimate)))
    click.echo("Posterior by NUTS, 4 chains ...")
    with noted_warnings(), interrupts.awaited():
        tree = mfg.nuts(model, draws=draws, tune=draws, random_seed=seed)
    if tree.attrs.get("interrupted"):
        raise Interrupted
    show_draws(tree, Output(as_json=False))
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
    help="The report to write, .html or .md, its numbers as JSON beside it.",
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
@cluster_option
@as_json_option
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
    cluster: str | None,
    as_json: bool,
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
    output = Output(as_json)
    inputs = [path for path in (model_path(model_file), panel_path(panel)) if path is not None]
    suffix = ".csv" if method in POINTS else ".nc"
    result = None if out is None else Target("--out", Path(out), (suffix,))
    report_page = None if page is None else Target("--report", Path(page), PAGES)
    check_targets([t for t in (result, report_page) if t], inputs, overwrite=overwrite)
    module = load_model(model_file)
    data = read_panel(module, panel_path(panel))
    _check_cluster(cluster, data)
    output.say(f"{data}")
    model = build_model(module, data, model_file)
    seeded = {} if seed is None else {"random_seed": seed}
    if method in POINTS:
        found = estimated(model, method, seeded, result, cluster, output)
        passed = found.converged
    else:
        options: dict[str, Any] = {"draws": draws, **seeded}
        if method == "nuts":
            options |= {"tune": tune, "chains": chains, "cores": cores, "sampler": sampler}
        check_memory(model, draws, *((tune, chains) if method == "nuts" else (0, 1)))
        found = drawn(model, method, options, result, output, overwrite=overwrite)
        passed = not found.attrs["warnings"]
    if report_page is not None:
        write_report(found, report_page, output, model=model, groups=cluster, overwrite=overwrite)
    output.give(fit_record(found, method, cluster, {"out": out, "report": page}))
    ctx.exit(0 if passed else FAILED_CHECKS)


@debuggable
@main.command()
@click.argument("fitted", metavar="FIT.nc", callback=_at_home)
@click.option(
    "--out",
    callback=_at_home,
    help="The page to write, .html or .md [default: beside the file, .html].",
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
@cluster_option
@overwriting
def report(
    fitted: str,
    out: str | None,
    ci_prob: float,
    model_file: str | None,
    panel: str | None,
    cluster: str | None,
    overwrite: bool,
) -> None:
    """Write the report of draws saved by `mfgppl fit --out FIT.nc`.

    With --model and --panel the page also says what the data can identify, whether the model draws
    panels like the one seen, whether the crowd is near an equilibrium, and what the prior does;
    --cluster then gives the maximum likelihood estimates beside the draws clustered errors.
    """
    if (model_file is None) != (panel is None):
        raise OneLine("--model and --panel go together: the model is made of the panel")
    if cluster is not None and model_file is None:
        raise OneLine("--cluster needs --model and --panel, by which agents are known")
    check_fitted(fitted)
    inputs = [Path(fitted)]
    if model_file is not None and panel is not None:
        inputs += [p for p in (model_path(model_file), panel_path(panel)) if p is not None]
    page = Target("--out", Path(out or Path(fitted).with_suffix(".html")), PAGES)
    check_targets([page], inputs, overwrite=overwrite)
    import mfgppl as mfg

    tree = mfg.load(fitted)
    model = None
    if model_file is not None and panel is not None:
        module = load_model(model_file)
        data = read_panel(module, panel_path(panel))
        _check_cluster(cluster, data)
        model = build_model(module, data, model_file)
    write_report(
        tree, page, Output(False), ci_prob=ci_prob, model=model, groups=cluster, overwrite=overwrite
    )


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
@with_roles
@as_json_option
def check(panel: str, as_json: bool, **columns: Any) -> None:
    """Audit the table PANEL: all its faults at once, or what it holds.

    Exit code 1 where it has faults; nothing is changed.
    """
    table = panel_path(panel)
    import mfgppl as mfg

    audit = mfg.Trajectories.from_frame(table, **as_lists(columns)).audit()
    Output(as_json).give(audit)
    for key, value in () if as_json else audit.items():
        if isinstance(value, dict):
            value = "; ".join(f"{k}: {_listed(v)}" for k, v in value.items())
        value = _listed(value) or "none" if isinstance(value, list) else value
        click.echo(f"{key + ':':36}{value}")


def _listed(value: Any) -> Any:
    """Return a list as the words of a line, anything else as it is."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@debuggable
@main.command()
@click.argument("study", metavar="STUDY")
@click.argument("panel", metavar="PANEL")
@click.option("--agent", help="Column of the agent.")
@click.option("--time", help="Column of the (integer) time.")
@click.option("--state", multiple=True, help="Column of the state; repeat it for several.")
@click.option("--action", help="Column of the action.")
@with_roles
@click.option(
    "--cluster",
    "groups",
    multiple=True,
    help="Column to cluster standard errors by; repeat it for several.",
)
@click.option("--overwrite", is_flag=True, help="Write over a model file that is there.")
def new(study: str, panel: str, overwrite: bool, **columns: Any) -> None:
    """Write a model file for the table PANEL into the folder STUDY, ready to fit.

    It asks for columns that no option names. The file, STUDY/model.py, has a term for each action
    and state beside the most frequent, and one for the crowd; what no data can identify is a
    comment. Look it over, then `mfgppl fit` it.
    """
    table, file = panel_path(panel), Path(study) / "model.py"
    if file.exists() and not overwrite:
        raise OneLine(f"{file} is there; name another folder, or pass --overwrite")
    from mfgppl._commands.studies import asked, columns_of, page_of

    given = columns | asked(columns, columns_of(table))
    import mfgppl as mfg
    from mfgppl._files import write_files

    data = mfg.Trajectories.from_frame(table, **as_lists(given))
    click.echo(f"{data}")
    page = page_of(data, as_lists(given), panel, file)
    file.parent.mkdir(exist_ok=True)
    write_files({file: page.text.encode("utf-8")})
    for name in page.left_out:
        click.echo(f"  {name}: no data can identify it; a comment in the file")
    click.echo(f"Model file: {file}; fit it with: mfgppl fit {file} {panel} --method mle")


@debuggable
@main.command()
@click.argument("fitted", metavar="FIT.nc ...", nargs=-1, required=True)
@click.option("--out", callback=_at_home, help="A table to write: .md, .html, .tex or .txt.")
@as_json_option
@overwriting
def compare(fitted: tuple[str, ...], out: str | None, as_json: bool, overwrite: bool) -> None:
    """Compare draws of several models of one panel, saved by `mfgppl fit --out FIT.nc`.

    Their estimates side by side, and their rank by what they predict of trajectories left out.
    """
    for each in fitted:
        check_fitted(each)
    table = None if out is None else Target("--out", Path(out), TABLES)
    check_targets([table] if table else [], list(map(Path, fitted)), overwrite=overwrite)
    from mfgppl._commands.comparisons import compared, table_text

    output, found = Output(as_json), compared(fitted)
    output.say(found.fits.to_text())
    output.say(str(found.ranks) if found.ranks is not None else found.why)
    if table is not None:
        from mfgppl._files import write_files

        write_files({table.path: table_text(found, table.path.suffix).encode("utf-8")})
        output.say(f"Table: {table.path}")
    output.give(found.record())


def as_lists(columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns as `Trajectories.from_frame` takes them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in columns.items()}


def check_fitted(fitted: str) -> None:
    """Refuse what is no file of a fit."""
    if not Path(fitted).exists() or not Path(fitted).name:
        raise OneLine(f"no file {fitted}: give the .nc file or the .zarr store of a fit")


def _check_cluster(cluster: str | None, data: Any) -> None:
    """Refuse clusters that a panel does not have."""
    known = ["agent", *getattr(data, "groups", {})]
    if cluster is not None and cluster not in known:
        raise OneLine(
            f"--cluster must be one of {', '.join(known)}; got {cluster!r}: name the column in "
            "COLUMNS['groups'] of the model file"
        )


def _refuse_unused(ctx: click.Context, method: str) -> None:
    """Refuse an option that the method does not use."""
    for name, methods in USED.items():
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and method not in methods:
            raise click.UsageError(
                f"--{name} is an option of {' and '.join(methods)}; --method {method} has none."
            )
