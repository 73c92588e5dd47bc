"""The command line: demo, fit, report, check."""

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mfgppl import datasets
from mfgppl._version import __version__

FAILED_CHECKS = 3  # exit code of a fit whose draws should not be trusted


class _OneLine(click.ClickException):
    """An error as one clear line."""

    def show(self, file: Any = None) -> None:
        click.echo(f"mfgppl: {self.message}", err=True)


def _plainly(function: Callable[[], Any]) -> Any:
    """Run a step and turn a caller's mistake into one line without a traceback."""
    try:
        return function()
    except (ValueError, TypeError, OSError) as error:
        raise _OneLine(str(error) or type(error).__name__) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mfgppl")
def main() -> None:
    """Learn what a crowd of agents is after, with honest uncertainty.

    Start with `mfgppl demo`. Then write a model file (a reward in a few lines of Python), fit it
    to a table of agent, time, state and action, and read the report.
    """


@main.command()
@click.option("--out", default="report.html", show_default=True, help="The report to write.")
@click.option("--seed", default=1, show_default=True, help="Seed of the draws.")
@click.option("--draws", default=1000, show_default=True, help="Draws a chain, after tuning.")
def demo(out: str, seed: int, draws: int) -> None:
    """Read the bundled supermarket panel, fit a reward by MLE and NUTS, write a report.

    534 products set prices over 25 months. The reward says what a product may care about: the
    cost of a price change, its own margin, and its distance from the crowd's mean margin.
    """
    import mfgppl as mfg

    _check_target(out, ".html")
    pricing = _gallery_module("pricing")
    click.echo("Reading the supermarket panel ...")
    panel = pricing.panel()
    click.echo(f"  {panel}")
    model = pricing.model(panel)
    click.echo("Maximum likelihood ...")
    click.echo(_indented(str(mfg.mle(model))))
    click.echo("Posterior by NUTS, 4 chains ...")
    tree = _sampled(lambda: mfg.nuts(model, draws=draws, tune=draws, random_seed=seed))
    _show(tree)
    written = _plainly(lambda: mfg.report(tree, out, model=model, title="Supermarket pricing"))
    click.echo(f"Report: {written}")


@main.command()
@click.argument("model_file", metavar="MODEL.py")
@click.argument("panel", metavar="PANEL")
@click.option(
    "--method",
    type=click.Choice(["nuts", "laplace", "vi", "mle", "map"]),
    default="nuts",
    show_default=True,
    help="Posterior draws, exact or approximate, or a point estimate.",
)
@click.option("--out", help="Where to write: a .nc file of draws, or a .csv of estimates.")
@click.option("--report", "page", help="The HTML report to write, its numbers as JSON beside it.")
@click.option("--draws", default=1000, show_default=True, help="Draws a chain, after tuning.")
@click.option("--tune", default=1000, show_default=True, help="Tuning steps a chain.")
@click.option("--chains", default=4, show_default=True, help="Chains.")
@click.option("--cores", type=int, help="Chains at a time [default: all processors].")
@click.option(
    "--sampler",
    type=click.Choice(["nutpie", "pyro"]),
    default="nutpie",
    show_default=True,
    help="NUTS implementation.",
)
@click.option("--seed", type=int, help="Seed of the draws [default: a fresh one, recorded].")
def fit(
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
) -> None:
    """Fit the model of MODEL.py to the table PANEL.

    MODEL.py is a Python file, or the name of a gallery model. It defines `model(panel)`, which
    returns a TrajectoryModel, and may define COLUMNS, a dict that says which columns are agent,
    time, state (one or a list) and action. PANEL is a CSV or Parquet file, or the name of a
    bundled panel. Exit code 3 means that the fit
    failed a convergence check.
    """
    import mfgppl as mfg

    if out is not None:
        _check_target(out, ".csv" if method in ("mle", "map") else ".nc")
    if page is not None:
        _check_target(page, ".html", "--report")
    module = _load_model(model_file)
    data = _read(module, panel)
    click.echo(f"{data}")
    model = _built(module, data, model_file)

    def write_report(found: Any) -> None:
        if page is not None:
            click.echo(f"Report: {_plainly(lambda: mfg.report(found, page, model=model))}")

    if method in ("mle", "map"):
        estimator = mfg.mle if method == "mle" else mfg.map_estimate
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # printed with the estimate
            estimate = _plainly(lambda: estimator(model))
        click.echo(str(estimate))
        if out is not None:
            estimate.summary().to_csv(out)
            click.echo(f"Estimates: {out}")
        write_report(estimate)
        sys.exit(0 if estimate.converged else FAILED_CHECKS)
    options: dict[str, Any] = {"draws": draws, "random_seed": seed}
    if method == "nuts":
        options |= {"tune": tune, "chains": chains, "cores": cores, "sampler": sampler}
    methods: dict[str, Any] = {"nuts": mfg.nuts, "laplace": mfg.laplace, "vi": mfg.vi}
    tree = _sampled(lambda: methods[method](model, **options))
    _show(tree)
    if out is not None:
        _plainly(lambda: mfg.save(tree, out))
        click.echo(f"Draws: {out}; read them with: mfgppl report {out}")
    write_report(tree)
    sys.exit(FAILED_CHECKS if tree.attrs["warnings"] else 0)


@main.command()
@click.argument("fitted", metavar="FIT.nc")
@click.option("--out", help="The page to write [default: beside the file, .html].")
@click.option("--level", default=0.9, show_default=True, help="Level of the intervals.")
@click.option("--model", "model_file", help="The fitted MODEL.py: adds the checks that need it.")
@click.option("--panel", help="The fitted PANEL, with --model.")
def report(
    fitted: str, out: str | None, level: float, model_file: str | None, panel: str | None
) -> None:
    """Write the HTML report of draws saved by `mfgppl fit --out FIT.nc`.

    With --model and --panel the page also says what the data can tell, whether the model draws
    panels like the one seen, whether the crowd is near an equilibrium, and what the prior does.
    """
    import mfgppl as mfg

    if (model_file is None) != (panel is None):
        raise _OneLine("--model and --panel go together: the model is made of the panel")
    tree = _plainly(lambda: mfg.load(fitted))
    model = None
    if model_file is not None and panel is not None:
        module = _load_model(model_file)
        model = _built(module, _read(module, panel), model_file)
    target = out or str(Path(fitted).with_suffix(".html"))
    written = _plainly(lambda: mfg.report(tree, target, ci_prob=level, model=model))
    click.echo(f"Report: {written}")


@main.command()
@click.argument("panel", metavar="PANEL")
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
    "--gaps",
    type=click.Choice(["error", "split"]),
    default="error",
    show_default=True,
    help="Whether a missing time is a fault or starts a new trajectory.",
)
def check(
    panel: str, agent: str, time: str, state: tuple[str, ...], action: str, gaps: str
) -> None:
    """Audit the table PANEL: all its faults at once, or what it holds.

    Exit code 1 where it has faults; nothing is changed.
    """
    import mfgppl as mfg

    table = _panel_path(panel)
    data = _plainly(
        lambda: mfg.Trajectories.from_frame(
            table, agent=agent, time=time, state=list(state), action=action, gaps=gaps
        )
    )
    for key, value in data.audit().items():
        value = ", ".join(value) or "none" if isinstance(value, list) else value
        click.echo(f"{key + ':':36}{value}")


def _check_target(out: str, suffix: str, option: str = "--out") -> None:
    """Refuse a file to write that has no folder or another kind's name, before any work."""
    path = Path(out)
    if not path.parent.exists():
        raise _OneLine(f"no folder {path.parent} to write {path.name} in")
    if path.suffix != suffix:
        raise _OneLine(f"{option} must end in {suffix} here; got {out}")


def _built(module: types.ModuleType, data: Any, name: str) -> Any:
    """Return the model of a model file, or say in one line why it fails."""
    from mfgppl import TrajectoryModel

    try:
        model = module.model(data)
    except Exception as error:
        raise _OneLine(f"{name}: model(panel) failed: {type(error).__name__}: {error}") from None
    if not isinstance(model, TrajectoryModel):
        kind = type(model).__name__
        raise _OneLine(f"{name}: model(panel) must return a TrajectoryModel; got {kind}")
    return model


def _read(module: types.ModuleType, panel: str) -> Any:
    """Read a panel by the columns that a model file names."""
    from mfgppl import Trajectories

    table, columns = _panel_path(panel), getattr(module, "COLUMNS", {})
    return _plainly(lambda: Trajectories.from_frame(table, **columns))


def _panel_path(panel: str) -> Path:
    if panel in datasets.PANELS:
        return datasets.path(panel)
    if not Path(panel).exists():
        bundled = ", ".join(datasets.PANELS)
        raise _OneLine(f"no panel {panel!r}: give a CSV or Parquet file, or one of {bundled}")
    return Path(panel)


def _gallery_module(name: str) -> types.ModuleType:
    return importlib.import_module(f"mfgppl.models.{name}")


def _load_model(name: str) -> types.ModuleType:
    """Import a model file, or a gallery model by name."""
    path = Path(name)
    if not path.exists():
        if importlib.util.find_spec(f"mfgppl.models.{name}") if name.isidentifier() else None:
            return _gallery_module(name)
        raise _OneLine(f"no model file {name!r}")
    spec = importlib.util.spec_from_file_location(f"mfgppl_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise _OneLine(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        where = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise _OneLine(f"{name} failed{where}: {type(error).__name__}: {error}") from None
    if not callable(getattr(module, "model", None)):
        raise _OneLine(f"{name} must define `model(panel)`, which returns a TrajectoryModel")
    return module


def _sampled(draw: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the result carries them, and they are printed with it
        return _plainly(draw)


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
