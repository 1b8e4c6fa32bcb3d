"""Linear-quadratic-output systems with a diagonal state matrix, in half storage, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.systems.checks import as_array, check_dt, check_shape
from lqo_mor.systems.quadratic import HalfStorageOutput, QuadraticOutput
from lqo_mor.systems.state_space import StateSpace


@dataclass(frozen=True, eq=False)
class DiagonalLQOSystem(StateSpace):
    """Real linear-quadratic-output system with a diagonal state matrix, or a batch of them.

    Half storage, one row per *slot*: a slot with a non-real pole stands for the conjugate pair and
    gives ``2 Re(c λ^k b)``; a slot with a real pole gives ``c λ^k b`` and needs a real `b` and `c`.
    Leading axes are a batch of channels, each a system of its own.

    Parameters
    ----------
    poles : (..., s) array_like
        Poles, one per slot.
    B : (..., s, m) array_like
        Input rows.
    C : (..., p, s) array_like
        Linear output columns.
    D : (..., p, m) array_like, optional
        Real feedthrough; zero by default.
    M : QuadraticOutput, optional
        Quadratic output with `U`, `V` of shape (..., c, s) in the same half storage and real `W`.
    dt : float or True
        As in python-control: 0 continuous, a positive number (seconds) or True discrete.

    Raises
    ------
    DimensionError
        If the shapes do not fit together.
    InvalidInputError
        If an entry is not finite, a real pole has a complex row of `B`, `C`, `U` or `V`, or `M` is
        no QuadraticOutput.

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> sys = lqo.DiagonalLQOSystem(poles=[0.9 * np.exp(0.3j), 0.5], B=[[1.0], [1.0]], C=[[1j, 2.0]], dt=1.0)
    >>> sys
    DiagonalLQOSystem(order=3, slots=2, inputs=1, outputs=1, quadratic=none, dt=1.0)
    """

    poles: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    M: QuadraticOutput | None
    dt: float | bool

    def __init__(
        self,
        poles: ArrayLike,
        B: ArrayLike,
        C: ArrayLike,
        D: ArrayLike | None = None,
        M: QuadraticOutput | None = None,
        *,
        dt: float | bool,
    ) -> None:
        poles, B, C = (as_array(name, value, np.complex128) for name, value in (("poles", poles), ("B", B), ("C", C)))
        if poles.ndim == 0 or poles.shape[-1] == 0:
            raise DimensionError(f"poles has shape {poles.shape}, expected (..., s) with at least one slot")
        *batch, s = poles.shape
        m = B.shape[-1] if B.ndim == len(batch) + 2 else 1
        check_shape("B", B, (*batch, s, m), "(..., s, m)")
        p = C.shape[-2] if C.ndim == len(batch) + 2 else 1
        check_shape("C", C, (*batch, p, s), "(..., p, s)")
        if m == 0 or p == 0 or 0 in batch:
            raise DimensionError(f"the system has {m} inputs, {p} outputs and batch {tuple(batch)}; all must be at least 1")
        D = as_array("D", np.zeros((*batch, p, m)) if D is None else D, np.float64)
        check_shape("D", D, (*batch, p, m), "(..., p, m)")
        real = poles.imag == 0
        _check_real_slots("B", B, real[..., :, None])
        _check_real_slots("C", C, real[..., None, :])
        if M is not None:
            if not isinstance(M, QuadraticOutput):
                raise InvalidInputError(
                    f"M is of type {type(M).__name__}, expected a QuadraticOutput(U, V, W) in half storage, or None"
                )
            M = HalfStorageOutput(
                as_array("U", M.U, np.complex128), as_array("V", M.V, np.complex128), as_array("W", M.W, np.float64)
            )
            check_shape("M.U", M.U, (*batch, M.rank, s), "(..., c, s)")
            check_shape("M.W", M.W, (*batch, p, M.rank), "(..., p, c)")
            _check_real_slots("M.U", M.U, real[..., None, :])
            _check_real_slots("M.V", M.V, real[..., None, :])
        vars(self).update(poles=poles, B=B, C=C, D=D, M=M, dt=check_dt(dt))

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch, ``()`` for a single system."""
        return self.poles.shape[:-1]

    @property
    def n_slots(self) -> int:
        """Number of slots of each system."""
        return self.poles.shape[-1]

    @property
    def is_real_pole(self) -> np.ndarray:
        """Boolean mask (..., s) of the slots that hold a real pole."""
        return self.poles.imag == 0

    @property
    def order(self) -> int | np.ndarray:
        """Number of real states: two per conjugate pair, one per real pole; an array for a batch."""
        orders = np.sum(2 - self.is_real_pole, axis=-1)
        return orders if self.batch else int(orders)

    def __getitem__(self, index: Any) -> DiagonalLQOSystem:
        """The systems of the batch at `index`, as for the leading axes of an array; ``sys[()]`` is `sys`."""
        count = int(np.prod(self.batch))
        chosen = np.arange(count).reshape(self.batch)[index]  # refuses an index that reaches beyond the batch

        def pick(array: np.ndarray) -> np.ndarray:
            return array.reshape(count, *array.shape[len(self.batch) :])[chosen]

        q = self.M
        return DiagonalLQOSystem(
            pick(self.poles),
            pick(self.B),
            pick(self.C),
            pick(self.D),
            None if q is None else QuadraticOutput(pick(q.U), pick(q.V), pick(q.W)),
            dt=self.dt,
        )

    def __repr__(self) -> str:
        low, high = int(np.min(self.order)), int(np.max(self.order))
        order = str(low) if low == high else f"{low}..{high}"
        batch = f"batch={self.batch}, " if self.batch else ""
        kind = "none" if self.M is None else f"rank {self.M.rank}"
        return (
            f"DiagonalLQOSystem({batch}order={order}, slots={self.n_slots}, inputs={self.n_inputs}, "
            f"outputs={self.n_outputs}, quadratic={kind}, dt={self.dt})"
        )


def _check_real_slots(name: str, array: np.ndarray, real: np.ndarray) -> None:
    bad = real & (array.imag != 0)
    if np.any(bad):
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InvalidInputError(
            f"{name} is complex at {where}, where the pole is real; a real pole has one real state and needs real rows "
            "(for one input and one output only the product c·b matters: put it into C and set b = 1)"
        )
