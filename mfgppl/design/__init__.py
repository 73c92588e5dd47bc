"""What can be known, before any data: identification, information, widths, priors.

May import the posterior and what is below it.
"""

from mfgppl.design.cuts import bins_matter
from mfgppl.design.information import expected_errors, expected_information
from mfgppl.design.scales import default_scales, weakly_informative
from mfgppl.design.widths import agents_for, expected_widths

__all__ = [
    "agents_for",
    "bins_matter",
    "default_scales",
    "expected_errors",
    "expected_information",
    "expected_widths",
    "weakly_informative",
]
