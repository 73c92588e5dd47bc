"""Count unclear errors over foreign values of each argument of each public function.

`python docs/wrong_calls.py` writes `docs/results/wrong_calls.md`.
"""

import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from every_call import FOREIGN, arguments, outcome, public  # noqa: E402

PATIENCE = 2.0  # seconds, after which a call has passed its checks


class Accepted(BaseException):
    """A call that works where others were refused."""


def late(*_: object) -> None:
    """End a call that computes."""
    raise Accepted


def in_time(name: str, argument: str, value: object) -> str:
    """Return the outcome of a call; one that takes long is accepted."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return outcome(name, argument, value)
    except Accepted:
        return "accepted"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Make all calls, and write how many errors are unclear, and which."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    os.chdir(tempfile.mkdtemp())
    found = {
        (name, argument, kind): in_time(name, argument, value)
        for name, call in public().items()
        for argument in arguments(name, call)
        for kind, value in FOREIGN.items()
    }
    refused = {where: words for where, words in found.items() if words != "accepted"}
    bad = {where: words for where, words in refused.items() if words != "clear"}
    lines = [
        f"{len(found):,} calls of {len({name for name, *_ in found})} functions; {len(refused):,} "
        f"are refused, {len(bad)} of them ({100 * len(bad) / len(refused):.1f} %) with an error "
        "that comes from elsewhere or does not name the argument:",
        "",
        *[f"- `{name}({argument}=...)`, {kind}: {words.splitlines()[0]}"
          for (name, argument, kind), words in bad.items()],
    ]  # fmt: skip
    (DOCS / "results" / "wrong_calls.md").write_text("\n".join(lines) + "\n")
    print(lines[0])


if __name__ == "__main__":
    main()
