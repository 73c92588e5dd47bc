"""Settings of the documentation site: `sphinx-build -W -b html docs docs/_build`."""

import sys
from pathlib import Path
from typing import Any

import matplotlib
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

from mfgppl import __version__

sys.path.insert(0, str(Path(__file__).parent))
import rooms

matplotlib.use("agg")
rooms.draw(Path(__file__).parent / "_static" / "rooms.svg")

project = "mfgppl"
author = "The mfgppl developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build", "results/**"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # types stand in the numpydoc sections
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"mfgppl {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"


def setup(app: Any) -> None:
    """Write equations as MathML, which browsers set by themselves, and print the paper as one."""
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
    app.connect("html-page-context", _styled)


def _inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _displayed(writer: Any, node: nodes.Node) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def _styled(app: Any, page: str, *_: Any) -> None:
    if page == "paper/paper":
        app.add_css_file("paper.css")
