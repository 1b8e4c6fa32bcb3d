"""A bound on the output error that holds with a chosen probability: by held-out inputs alone, whatever the models are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network.inputs import CalibrationInputs, chunks
from lqo_mor.network.model import DeepSSM, check_models


@dataclass(frozen=True)
class ConformalBound:
    """What the error of one more input is below, with a probability; ``float`` gives the bound.

    Attributes
    ----------
    bound : float
        The 2-norm of the difference of the two outputs is at most this; without pooling, that of every step.
    risk : float
        The probability that it is not is at most this.
    count : int
        Number of inputs that it rests on.
    """

    bound: float
    risk: float
    count: int

    def __float__(self) -> float:
        return self.bound

    def __str__(self) -> str:
        return f"output error at most {self.bound:.3e} with probability {1 - self.risk:.4g}, by {self.count} held-out inputs"


def conformal_error_bound(model: DeepSSM, reduced: DeepSSM, inputs: CalibrationInputs, *, risk: float = 0.05) -> ConformalBound:
    """Bound the error of the outputs of a reduced model on inputs like given ones, but for a small risk.

    Of `n` errors the k-th largest is a bound for the error of one more input with probability ``1 - k / (n + 1)``, if all
    ``n + 1`` inputs are exchangeable: drawn from one source, in an order that tells nothing. Nothing is assumed of the models,
    so that this bound, unlike that of `output_error_bound`, is about as large as the errors are. It is for inputs that come
    from the same source, and cannot be checked for a single one.

    Parameters
    ----------
    model, reduced : DeepSSM
        The reduced model must not know the inputs: take others than those that it was calibrated, chosen or tuned with.
    inputs : ndarray, or iterable of ndarray
        Held-out inputs as the model takes them, all of one length.
    risk : float, default 0.05
        Between 0 and 1; ``1 / risk - 1`` inputs are needed at least.

    Returns
    -------
    ConformalBound

    Raises
    ------
    InvalidInputError
        If there are too few inputs for the risk, outputs are not finite, or an argument is out of range.
    DimensionError
        If the inputs do not fit, or the outputs of the models have different shapes.

    Notes
    -----
    Split conformal prediction: V. Vovk, A. Gammerman, G. Shafer, *Algorithmic Learning in a Random World*, Springer 2005. The
    probability is that over the draw of the held-out inputs and of the new one. For held-out inputs that are given, that of the
    new one alone varies by about ``sqrt(risk / n)``. Theory, eq. (10.10).

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from importlib.resources import files
    >>> data = files("lqo_mor") / "data"
    >>> model = lqo.load_checkpoint(str(data / "demo_digits.safetensors"))
    >>> with np.load(str(data / "demo_digits.npz")) as file:
    ...     inputs = file["inputs"]
    >>> small = lqo.compress(model, state_size=16, calibration=inputs[:100]).model
    >>> found = lqo.conformal_error_bound(model, small, inputs[100:200], risk=0.1)
    >>> errors = np.linalg.norm(small(inputs[200:]) - model(inputs[200:]), axis=-1)
    >>> bool(np.mean(errors > found.bound) < 0.15)
    True
    """
    check_models(model, reduced)
    if isinstance(risk, bool) or not isinstance(risk, Real) or not 0 < risk < 1:
        raise InvalidInputError(f"risk must be a probability between 0 and 1, got {risk!r}")
    errors = np.concatenate([_errors(model, reduced, u) for u in chunks(model, inputs)])
    if not np.all(np.isfinite(errors)):
        raise InvalidInputError("a model has outputs that are not finite, so that their errors have no bound")
    rank = math.floor(float(risk) * (len(errors) + 1))  # from the largest
    if rank < 1:
        needed = math.ceil(1 / float(risk) - 1)
        raise InvalidInputError(
            f"a risk of {risk:g} needs {needed} inputs at least, got {len(errors)}; give more or a larger risk"
        )
    return ConformalBound(float(np.sort(errors)[-rank]), float(risk), len(errors))


def _errors(model: DeepSSM, reduced: DeepSSM, u: np.ndarray) -> np.ndarray:
    """The error of every sequence: of its output, or the largest of its steps."""
    wanted, found = model(u), reduced(u)
    if wanted.shape != found.shape:
        raise DimensionError(f"the outputs of the models have shapes {wanted.shape} and {found.shape}")
    errors = np.linalg.norm(found - wanted, axis=-1)
    return errors if errors.ndim == 1 else np.max(errors, axis=1)
