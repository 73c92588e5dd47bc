"""What counting a panel of many rows costs, by engine: seconds, and memory at the peak.

Run `python analyses/benchmarks/counting.py --out FOLDER`: it writes a folder of Parquet files,
ordered by time, so that an agent has rows in all of them, and counts it in a fresh process by each
engine.
"""

# %% Constants

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tables import markdown

N_AGENTS, QUICK_AGENTS = 5_000_000, 5_000
N_TIMES = 20
STATES, ACTIONS = 10, ("lower", "hold", "raise")
SIZES = ("small", "medium", "large")  # types of agents
ENGINES = ("DuckDB, by path", "polars, lazily")
WITH_TYPES = ", with types"
MEGABYTES = 2**20 / 2**10  # of the system's count of kilobytes


# %% Data: one file a time


def write(folder: Path, n_agents: int) -> None:
    """Write the panel as one Parquet file a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    agent = np.arange(n_agents)
    size = pa.DictionaryArray.from_arrays((agent % len(SIZES)).astype(np.int8), list(SIZES))
    for t in range(N_TIMES):
        action = pa.DictionaryArray.from_arrays(
            rng.integers(len(ACTIONS), size=n_agents).astype(np.int8), list(ACTIONS)
        )
        columns = {
            "agent": agent,
            "time": np.full(n_agents, t, np.int32),
            "state": rng.integers(STATES, size=n_agents).astype(np.int32),
            "action": action,
            "size": size,
        }
        pq.write_table(pa.table(columns), folder / f"time-{t:02}.parquet")


# %% Inference: an engine in this process


def count(engine: str, folder: Path) -> dict[str, float]:
    """Count the folder; return seconds, gigabytes at the peak and what was counted."""
    import polars as pl

    import mfgppl as mfg

    before = _peak()
    began = time.perf_counter()
    by_path = engine.startswith(ENGINES[0])
    source = folder if by_path else pl.scan_parquet(folder / "*.parquet")
    types = ["size"] if engine.endswith(WITH_TYPES) else ()
    panel = mfg.CountedPanel.from_frame(source, types=types)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "before": before,
        "peak": _peak(),
        "decisions": panel.n_decisions,
        "steps": float(panel.step_counts.sum()),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTES / 2**10


# %% Answer


def main(quick: bool, out: Path) -> str:
    """Count by each engine in a fresh process; return the table as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    n_agents = QUICK_AGENTS if quick else N_AGENTS
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, n_agents)
        for engine in (e + types for types in ("", WITH_TYPES) for e in ENGINES):
            command = [sys.executable, __file__, "--work", engine, str(folder)]
            ran = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(ran.stdout)
            if found["decisions"] != n_agents * N_TIMES:
                raise RuntimeError(f"{engine} counted {found['decisions']} decisions")
            if found["steps"] != n_agents * (N_TIMES - 1):
                raise RuntimeError(f"{engine} counted {found['steps']} steps")
            numbers = [f"{found[k]:.2f}" for k in ("before", "peak")]
            rows.append([engine, f"{n_agents * N_TIMES:,}", f"{found['seconds']:.1f}", *numbers])
    header = ["engine", "rows", "s", "GB before", "GB at the peak"]
    text = markdown("A folder of 20 Parquet files, counted and checked", header, rows)
    (out / "counting.md").write_text(text)
    return text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        sys.stdout.write(json.dumps(count(sys.argv[2], Path(sys.argv[3]))))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
