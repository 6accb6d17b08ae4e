"""Names for the array types of the core. Amounts are int64: CPU in thousandths, memory in MiB, cards in thousandths of a card."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CARD = 1000
"""A whole card, in thousandths."""
