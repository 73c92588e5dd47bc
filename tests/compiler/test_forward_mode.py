"""What derivatives in forward mode load."""

import subprocess
import sys

FIT = """
import sys
import mfgppl as mfg
from mfgppl.models import market

panel = mfg.Trajectories.from_frame(market.frame(30), **market.COLUMNS)
model = market.model(panel)
point = mfg.mle(model, flow_bias=False)
assert mfg.identify(model.game, model.reward, parameters=point).identified
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_a_fit_does_not_load_the_compiler_of_torch(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", FIT], capture_output=True, text=True, check=True, timeout=600,
        cwd=tmp_path,  # the package as it is installed, not the folder of its sources
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"
