"""What a command says: lines for people, or one JSON document."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import click


class Output(NamedTuple):
    """Where lines and results go.

    Attributes
    ----------
    as_json : bool
        Whether standard output holds one JSON document; the lines go to standard error then.
    """

    as_json: bool

    def say(self, text: str) -> None:
        """Write a line for people."""
        click.echo(text, err=self.as_json)

    def give(self, record: Mapping[str, Any]) -> None:
        """Write the result, where JSON is asked for."""
        if self.as_json:
            from mfgppl.reporting.json_text import json_text  # imports numpy

            click.echo(json_text(record), nl=False)


def show_draws(tree: Any, output: Output) -> None:
    """Write what draws say, their warnings, how long they took and their seed."""
    import arviz_stats

    table = arviz_stats.summary(tree, ci_prob=0.9, ci_kind="eti", round_to="none")
    output.say(indented(table.to_string(float_format=lambda v: f"{v:.4g}")))
    output.say("  equal-tailed 90% intervals")
    for message in tree.attrs["warnings"]:
        output.say(f"  warning: {message}")
    seconds = tree.attrs["compile_time"] + tree.attrs["sampling_time"]
    output.say(f"  {seconds:.1f} s, seed {tree.attrs['random_seed']}")


def indented(text: str) -> str:
    """Return text two spaces to the right."""
    return "\n".join("  " + line for line in text.splitlines())


@contextmanager
def noted_warnings() -> Iterator[None]:
    """Print warnings about compilation, a line each; a result carries the others itself."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        yield
    from mfgppl.exceptions import CompilationWarning

    for message in dict.fromkeys(
        str(w.message) for w in raised if issubclass(w.category, CompilationWarning)
    ):
        click.echo(f"mfgppl: warning: {message}", err=True)


def fit_record(
    found: Any, method: str, cluster: str | None, files: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return a fit as a record: its estimates by parameter, what it warned of, files written."""
    import mfgppl as mfg

    point = isinstance(found, mfg.results.PointEstimate)
    kind = "cluster" if point and cluster is not None else "observed"
    table = mfg.results.summary(found, kind=kind, groups=cluster if point else None)
    numbers = {"log likelihood": found.llf, "AIC": found.aic, "BIC": found.bic} if point else {}
    messages = found.messages if point else found.attrs["warnings"]
    return {
        "mfgppl": mfg.__version__,
        "method": method,
        "passed": found.converged if point else not messages,
        "warnings": list(messages),
        "random_seed": None if point else found.attrs.get("random_seed"),
        "cluster": cluster,
        "statistics": numbers,
        "parameters": table.to_dict(orient="index"),
        "files": {k: v for k, v in files.items() if v is not None},
    }
