"""Types of arrays that all of ``training`` shares."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

BoolArray: TypeAlias = npt.NDArray[np.bool_]

Scores: TypeAlias = npt.NDArray[np.float64]
