"""Count unclear errors over foreign values of each argument of each public function.

`python docs/wrong_calls.py` makes all calls and writes `docs/results/wrong_calls.md`. With the name
of a file it notes each outcome there, and goes on from those that it holds: the calls come in a
random order, so that those made are a sample of all.
"""

import json
import os
import random
import signal
import sys
import tempfile
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from every_call import FOREIGN, arguments, outcome, public  # noqa: E402

PATIENCE = 0.5  # seconds of computing, after which a call has passed its checks
Call = tuple[str, str, str]  # function, argument, kind of value


class Accepted(BaseException):
    """A call that works where others were refused."""


def late(*_: object) -> None:
    """End a call that computes."""
    raise Accepted


def in_time(call: Call) -> str:
    """Return the outcome of a call; one that takes long is accepted."""
    name, argument, kind = call
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        return outcome(name, argument, FOREIGN[kind])
    except Accepted:
        return "accepted"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def all_calls() -> list[Call]:
    """Return all calls in a random order, the same each time."""
    calls = [
        (name, argument, kind)
        for name, call in public().items()
        for argument in arguments(name, call)
        for kind in FOREIGN
    ]
    random.Random(1).shuffle(calls)
    return calls


def known(notes: Path | None) -> dict[Call, str]:
    """Return the outcomes that a file holds."""
    if notes is None or not notes.exists():
        return {}
    rows = (json.loads(line) for line in notes.read_text().splitlines())
    return {(name, argument, kind): words for name, argument, kind, words in rows}


def outcomes(calls: list[Call], notes: Path | None) -> dict[Call, str]:
    """Return the outcome of each call, noted as they come."""
    found = known(notes)
    for call in calls:
        if call in found:
            continue
        found[call] = in_time(call)
        if notes is not None:
            with notes.open("a") as file:
                file.write(json.dumps([*call, found[call]]) + "\n")
    return found


def table_of(found: dict[Call, str], n_calls: int) -> list[str]:
    """Return how many errors are unclear, and which, as lines of Markdown."""
    refused = {call: words for call, words in found.items() if words != "accepted"}
    bad = {call: words for call, words in sorted(refused.items()) if words != "clear"}
    made = "" if len(found) == n_calls else f" (a random sample of {n_calls:,})"
    return [
        f"{len(found):,} calls{made} of {len({name for name, *_ in found})} functions; "
        f"{len(refused):,} are refused, {len(bad)} of them ({100 * len(bad) / len(refused):.1f} %) "
        "with an error that comes from elsewhere or does not name the argument"
        + (":" if bad else "."),
        "",
        *[f"- `{name}({argument}=...)`, {kind}: {words.splitlines()[0]}"
          for (name, argument, kind), words in bad.items()],
    ]  # fmt: skip


def main() -> None:
    """Make all calls that are not noted, and write the table."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, late)
    notes = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else None
    os.chdir(tempfile.mkdtemp())
    calls = all_calls()
    lines = table_of(outcomes(calls, notes), len(calls))
    (DOCS / "results" / "wrong_calls.md").write_text("\n".join(lines).rstrip() + "\n")
    print(lines[0])


if __name__ == "__main__":
    main()
