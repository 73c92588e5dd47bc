"""All benchmarks: `python analyses/benchmarks --out FOLDER` writes a Markdown file and figures."""

import argparse
import subprocess
import sys
from pathlib import Path

import counting
import density
import equilibria
import samplers
from tables import machine


def main(quick: bool, out: Path) -> str:
    """Run all benchmarks; return and write the report."""
    out.mkdir(parents=True, exist_ok=True)
    where = machine()
    (out / "machine.md").write_text(where + "\n")
    sections = [f"# Benchmarks of mfgppl\n\n{where}\n"]
    sections.append(f"## One evaluation\n\n{density.main(quick, out)}\n![](density.png)\n")
    sections.append(f"## Sampling\n\n{samplers.main(quick, out)}\n![](samplers.png)\n")
    # chains fork, which a process with JAX's threads should not
    options = ["--quick"] if quick else []
    script = Path(__file__).with_name("worlds.py")
    subprocess.run([sys.executable, str(script), "--out", str(out), *options], check=True)
    worlds = (out / "worlds.md").read_text()
    sections.append(f"## Large worlds and many cores\n\n{worlds}\n")
    sections.append(f"## Equilibria\n\n{equilibria.main(quick, out)}\n![](equilibria.png)\n")
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
