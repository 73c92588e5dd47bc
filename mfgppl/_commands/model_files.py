"""Model files and panels, by path or by the names of what is bundled."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

from mfgppl._commands.boundary import OneLine, named


def panel_path(panel: str) -> Path:
    """Return the path of a table, or of a bundled panel."""
    from mfgppl import datasets  # imports pandas

    if panel in datasets.PANELS:
        return datasets.path(panel)
    if not Path(panel).exists():
        bundled = ", ".join(datasets.PANELS)
        raise OneLine(f"no panel {panel!r}: give a CSV or Parquet file, or one of {bundled}")
    return Path(panel)


def model_path(name: str) -> Path | None:
    """Return the path of a model file, None for a gallery model's name."""
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise OneLine(f"{name} is a folder; give a model file")
    if name.isidentifier() and importlib.util.find_spec(f"mfgppl.models.{name}"):
        return None
    raise OneLine(f"no model file {name!r}")


def load_model(name: str) -> types.ModuleType:
    """Import a model file, which may import what lies beside it, or a gallery model by name."""
    path = model_path(name)
    if path is None:
        return importlib.import_module(f"mfgppl.models.{name}")
    spec = importlib.util.spec_from_file_location(f"mfgppl_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OneLine(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.insert(0, beside)  # as Python does for a script
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
        where = f" (line {line})" if line else ""
        raise OneLine(f"{name} failed{where}: {named(error)}") from error
    if not callable(getattr(module, "model", None)):
        raise OneLine(f"{name} must define `model(panel)`, which returns a TrajectoryModel")
    return module


def read_panel(module: types.ModuleType, panel: Path) -> Any:
    """Read a panel by the columns that a model file names."""
    from mfgppl import Trajectories

    columns = getattr(module, "COLUMNS", {})
    if not isinstance(columns, dict):
        raise OneLine(f"COLUMNS must be a dict of column names; got {type(columns).__name__}")
    return Trajectories.from_frame(panel, **columns)


def build_model(module: types.ModuleType, data: Any, name: str) -> Any:
    """Return the model of a model file, or say in one line why it fails."""
    from mfgppl import TrajectoryModel

    try:
        model = module.model(data)
    except (Exception, SystemExit) as error:
        raise OneLine(f"{name}: model(panel) failed: {named(error)}") from error
    if not isinstance(model, TrajectoryModel):
        kind = type(model).__name__
        raise OneLine(f"{name}: model(panel) must return a TrajectoryModel; got {kind}")
    return model
