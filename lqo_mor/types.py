"""Type aliases that the signatures of the package share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

FloatOrBatch: TypeAlias = float | np.ndarray
"""A number; of a batch of systems, an array of its shape."""

Progress: TypeAlias = Callable[[int, int], object]
"""A callback ``progress(done, total)``; what it returns does not count."""
