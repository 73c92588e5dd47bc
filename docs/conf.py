"""Settings of the documentation site: `sphinx-build -W -b html docs docs/_build`."""

import sys
from pathlib import Path

import matplotlib

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
