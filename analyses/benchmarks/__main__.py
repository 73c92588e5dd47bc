"""All benchmarks: `python analyses/benchmarks --out FOLDER` writes a Markdown file and figures."""

import argparse
import subprocess
import sys
from pathlib import Path

import cells
import counting
import coupled
import density
import devices
import efficient
import networks
import samplers
import stationary
import waits
from tables import machine


def main(quick: bool, out: Path) -> str:
    """Run all benchmarks; return and write the report."""
    out.mkdir(parents=True, exist_ok=True)
    where = machine()
    (out / "machine.md").write_text(where + "\n")
    sections = [f"# Benchmarks of mfgppl\n\n{where}\n"]
    sections.append(f"## What a user waits for\n\n{waits.main(quick, out)}\n")
    sections.append(f"## One evaluation\n\n{density.main(quick, out)}\n![](density.png)\n")
    sections.append(f"## A graphics card\n\n{devices.main(quick, out)}\n")
    sections.append(f"## With the equilibrium inside\n\n{coupled.main(quick, out)}\n")
    sections.append(f"## Without a horizon\n\n{stationary.main(quick, out)}\n")
    sections.append(f"## The coupled estimate\n\n{efficient.main(quick, out)}\n")
    sections.append(f"## Sampling\n\n{samplers.main(quick, out)}\n![](samplers.png)\n")
    # chains fork, which a process with JAX's threads should not, and MFGLib computes in the default
    # type, which the others set
    options = ["--quick"] if quick else []
    for name, title in (
        ("worlds", "Large worlds and many cores"),
        ("hierarchy", "A hierarchy of types"),
        ("mixtures", "Kinds that nobody sees"),
        ("equilibria", "Equilibria"),
    ):
        script = Path(__file__).with_name(f"{name}.py")
        subprocess.run([sys.executable, str(script), "--out", str(out), *options], check=True)
        sections.append(f"## {title}\n\n{(out / f'{name}.md').read_text()}\n")
    sections.append(f"## Agents of many kinds\n\n{cells.main(quick, out)}\n")
    sections.append(f"## Networks\n\n{networks.main(quick, out)}\n")
    sections.append(f"## Tables\n\n{counting.main(quick, out)}\n")
    text = "\n".join(sections)
    (out / "benchmarks.md").write_text(text)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small problems and few draws")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of results")
    arguments = parser.parse_args()
    print(main(arguments.quick, arguments.out))
