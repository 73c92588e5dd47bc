"""The README's example runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """All Python blocks run in order, recover the known reward and write the report."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 3
    space: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), space)
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert "elpd_loo" in capsys.readouterr().out
    point = space["point"]
    for name, true in {"margin": 0.3, "menu_cost": 0.8}.items():
        assert point.params[name] == pytest.approx(true, abs=4 * point.bse[name])
