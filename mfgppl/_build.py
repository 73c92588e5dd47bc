"""How the source distribution is made; no part of the running package imports this."""

from setuptools.command.sdist import sdist


class Sdist(sdist):
    """A source distribution of the package alone: setuptools would add a part of its tests."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files, without those of the folder `tests`."""
        kept = [name for name in files if not name.replace("\\", "/").startswith("tests/")]
        super().make_release_tree(base_dir, kept)
