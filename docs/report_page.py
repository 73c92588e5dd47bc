"""Write the picture of `docs/report.md`: the page of its example, as a browser prints it.

`python docs/report_page.py` runs the blocks of the page and needs Chromium on the path.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
PICTURE = DOCS / "results" / "report" / "report.png"


def main() -> None:
    """Run the page's first block and take a picture of the report that it writes."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium on the path")
    block = re.findall(r"```python\n(.*?)```", (DOCS / "report.md").read_text(), re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        exec(block.replace('"report.html"', repr(str(page))), {})
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--window-size=900,1240", f"--user-data-dir={folder}/browser",
                f"--screenshot={PICTURE}", page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
