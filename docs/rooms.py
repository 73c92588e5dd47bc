"""Draw the rooms of the package and which imports which, from the imports themselves.

`python docs/rooms.py rooms.svg`; the site draws it anew each time it is built.
"""

import sys
import tomllib
from pathlib import Path

import grimp
import matplotlib
import matplotlib.pyplot as plt
import networkx as nx

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
HIGH = 0.62  # of a box, where rows are one apart
INSIDE = ("_kernels", "_compiler")  # that are drawn; what has other private names serves all rooms
SERVE = ("datasets", "exceptions", "results")


def layers() -> list[list[str]]:
    """Return the rooms by storey, the highest first, as the import rule lists them."""
    settings = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]
    rows = settings["contracts"][0]["layers"]
    named = [[name.strip().removeprefix("mfgppl.") for name in row.split("|")] for row in rows]
    drawn = [[n for n in row if n in INSIDE or (n[0] != "_" and n not in SERVE)] for row in named]
    return [row for row in drawn if row]


def imports(rooms: list[str]) -> nx.DiGraph:
    """Return which room imports which, without the arrows that follow from others."""
    graph = grimp.build_graph("mfgppl", cache_dir=None)
    found = nx.DiGraph()
    found.add_nodes_from(rooms)
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            pair = [name.split(".")[1] for name in (module, other) if "." in name]
            if len(pair) == 2 and pair[0] != pair[1] and set(pair) <= set(rooms):
                found.add_edge(*pair)
    return nx.transitive_reduction(found)


def draw(target: Path) -> None:
    """Write the picture."""
    rows = layers()
    arrows = imports([room for row in rows for room in row])
    widest = max(len(row) for row in rows)
    figure, axes = plt.subplots(figsize=(8, 0.62 * len(rows)), layout="constrained")
    places = {
        room: (widest * (k + 0.5) / len(row), len(rows) - level)
        for level, row in enumerate(rows)
        for k, room in enumerate(row)
    }
    for room, other in arrows.edges:
        (x, y), (to_x, to_y) = places[room], places[other]
        axes.annotate(
            "",
            xy=(to_x, to_y + HIGH / 2),
            xytext=(x, y - HIGH / 2),
            arrowprops={"arrowstyle": "-|>", "color": "0.7", "linewidth": 0.8, "shrinkB": 0},
            zorder=1,
        )
    for room, (x, y) in places.items():
        axes.text(
            x,
            y,
            room,
            ha="center",
            va="center",
            fontsize=9,
            family="monospace",
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.3"},
            zorder=2,
        )
    axes.set(xlim=(0, widest), ylim=(0.4, len(rows) + 0.6))
    axes.set_axis_off()
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    plt.close(figure)


if __name__ == "__main__":
    matplotlib.use("agg")
    draw(Path(sys.argv[1]))
