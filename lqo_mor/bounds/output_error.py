"""Proven bounds on the output error of a deep state-space model whose layers were reduced.

Between the blocks the error ``e = x̂ - x`` of the reduced model is followed as two numbers, its ℓ2 norm over all features and
steps and the largest 2-norm of a token. In a block with input ``v`` of the system,

    Σ_r(v̂) - Σ(v) = [Σ_r(v) - Σ(v)] + [Σ_r(v̂) - Σ_r(v)]

so that the first part is seen on the signals of the full model alone, and the second is a gain of the reduced system. The map
of tokens behind it is split in the same way, at the tokens of the full model. Every step takes the least of several proven
estimates, and all of them grow with their `limits`: what is known of the signals of the full model. These come from the weights
(all inputs) or are measured (all inputs that keep within them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lqo_mor.analysis.differences import h2_error
from lqo_mor.bounds.analysis import Analysis
from lqo_mor.bounds.chain import Record, follow
from lqo_mor.bounds.gains import times_each
from lqo_mor.bounds.measured import measure
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network.inputs import CalibrationInputs
from lqo_mor.network.model import DeepSSM, check_inputs, check_models, check_supported, ends
from lqo_mor.text_table import text_table

_SLACK = 1 + 1e-9  # of the run-time check, for rounding


@dataclass(frozen=True, eq=False)
class OutputErrorBound:
    """Bounds on the error of the outputs of a reduced model; printing them gives a table, ``float`` the bound for all inputs.

    They bound the 2-norm of the difference of two output vectors, after the pooling and the decoder; without pooling, that of
    every step.

    Attributes
    ----------
    bound : float
        For all inputs of that many steps. Infinite where the signals of the model are not bounded: without normalisation.
    calibrated : float or None
        For the inputs that `membership` accepts, which the calibration inputs are among. None without calibration.
    layer_errors : (layers,) ndarray
        h2 errors of the layers over the steps, all channels taken together (delay 0).
    layer_weights : (layers,) ndarray
        ``Σ_l layer_weights_l layer_errors_l + mixing_terms_l`` is a bound for all inputs, too. They belong to this pair of
        models; those of a model and itself hold in the limit of small changes.
    calibrated_weights : (layers,) ndarray or None
        The same for the inputs that `membership` accepts.
    used : dict of str to str
        For "bound" and "calibrated", which estimate is the least: "sum", that with the weights; "chain", with ℓ2 gains in place
        of h2 norms; or "range", since normalised tokens are never further apart than that, whatever the layers do.
    names : tuple of str
        Names of the blocks.
    horizon : int
        Length of the sequences.
    mixing_terms : (layers,) ndarray
        What a change of the linear map behind the systems (`mixing`) adds to the sum, and to the last of them one of the decoder;
        zero where they are the same.
    calibrated_mixing_terms : (layers,) ndarray or None
        The same for the inputs that `membership` accepts.
    """

    bound: float
    calibrated: float | None
    layer_errors: np.ndarray
    layer_weights: np.ndarray
    calibrated_weights: np.ndarray | None
    used: dict[str, str]
    names: tuple[str, ...]
    horizon: int
    mixing_terms: np.ndarray | float = 0.0
    calibrated_mixing_terms: np.ndarray | float | None = None
    _analysis: Analysis = field(init=False, repr=False)
    _records: list[Record] = field(init=False, repr=False)

    def __float__(self) -> float:
        return self.bound

    def membership(self, inputs: ArrayLike) -> np.ndarray:
        """Whether each input lies in the set on which `calibrated` is proven.

        The set: on the signals of the full model, every reduced layer errs no more than on the calibration inputs, its system
        and its map of tokens each by itself; no token has a smaller variance before a normalisation, and nowhere are signals
        larger or the Jacobian of the reduced map of a token, in the neighbourhood that the bound allows, steeper (each up to
        the margin).

        Parameters
        ----------
        inputs : (batch, steps, features) array_like, or (batch, steps) of integers for an embedding
            As for the model.

        Returns
        -------
        (batch,) ndarray of bool

        Raises
        ------
        InvalidInputError
            If there was no calibration.
        DimensionError
            If the inputs have the wrong shape.
        """
        if not self._records:
            raise InvalidInputError("the bound was computed without calibration inputs, so there is no set to belong to")
        inputs = _checked(self._analysis, inputs)
        measured, inside = measure(self._analysis, inputs), np.ones(len(inputs), dtype=bool)
        for limits, neighbourhood in self._records:
            for name, values in measured.send(neighbourhood).items():
                inside &= np.all(values <= limits[name] * _SLACK, axis=tuple(range(1, values.ndim)))
        return inside

    def holds_for(self, inputs: ArrayLike) -> bool:
        """Whether `calibrated` is proven for all these inputs; see `membership`."""
        return bool(np.all(self.membership(inputs)))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "h2 error", "weight", "product", "calibrated", "product")]
        for i, name in enumerate(self.names):
            row = [name, f"{self.layer_errors[i]:.2e}"]
            for weights in (self.layer_weights, self.calibrated_weights):
                if weights is None:
                    row += ["", ""]
                else:
                    row += [f"{weights[i]:.2e}", f"{float(times_each(weights[i], self.layer_errors[i])):.2e}"]
            rows.append(tuple(row))
        lines = text_table(rows)
        if np.any(self.mixing_terms):
            terms = [self.mixing_terms] + ([] if self.calibrated_mixing_terms is None else [self.calibrated_mixing_terms])
            lines.append("the changes of the mixing add " + " and ".join(f"{np.sum(term):.2e}" for term in terms))
        lines.append(f"output error at most {self.bound:.3e} for all inputs of {self.horizon} steps ({self.used['bound']})")
        if self.calibrated is not None:
            lines.append(f"and at most {self.calibrated:.3e} for inputs like the calibration ({self.used['calibrated']})")
        return "\n".join(lines)


def output_error_bound(
    model: DeepSSM,
    reduced: DeepSSM,
    horizon: int,
    *,
    calibration: CalibrationInputs | None = None,
    margin: float = 1.0,
) -> OutputErrorBound:
    """Bound the error of the outputs of a model whose layers were reduced.

    ``max ‖model(u) - reduced(u)‖₂ ≤ Σ_l w_l ‖Σ_l - Σ_{r,l}‖_h2``, and sharper estimates with ℓ2 gains; every constant comes
    from the weights, or from the signals of the full model on calibration inputs. Where the maps `mixing` differ as well, as
    after `compress` with calibration, every layer adds a term of its own.

    Parameters
    ----------
    model, reduced : DeepSSM
        They differ in the systems of their blocks, and in weights and biases of `mixing` and decoder of the same shapes, only.
    horizon : int
        Length of the sequences.
    calibration : array_like or iterator of array_like, optional
        Inputs as for the model, at once or in batches; all are held in memory.
    margin : float, default 1.0
        Factor, at least 1, by which other inputs may exceed what was measured on them.

    Returns
    -------
    OutputErrorBound

    Raises
    ------
    InvalidInputError
        If the models differ in more than their systems, mixing and decoder, or a number is out of range.
    DimensionError
        If the calibration inputs have the wrong shape.

    Notes
    -----
    Proven up to rounding, for every kind of `Block`. What each step takes:

    - the system's own error ``(Σ_r - Σ)(v)``: ℓ2 gain of the difference of the kernels times ``‖v‖`` and, for quadratic outputs,
      ``√horizon ‖·‖_h2 ‖v‖²``; measured with calibration. In the sum ``√horizon ‖Σ - Σ_r‖_h2 sqrt(‖v‖² + ‖v‖⁴)``, the second term
      for quadratic outputs only;
    - propagation by ``Σ_r``: ℓ2 gain over the steps, the least of the sum of absolute values and the H∞ norm of the kernel (the
      norm of the Toeplitz matrix for short sequences), by channel; the factors of products are those of the full model plus
      their largest change;
    - the map of tokens: slope of the GELU on the real line 1.129, ``âσ(b̂) - aσ(b) = σ(b̂)(â - a) + a(σ(b̂) - σ(b))`` with
      slopes of at most 1/4; with calibration the norms of the Jacobians at the tokens of the full model, and an interval
      bound on how much they change within the bound on the error of a token;
    - a change of the map of tokens, ``φ_r(ŷ) - φ(y) = [φ_r(ŷ) - φ_r(y)] + [φ_r(y) - φ(y)]``: slopes and Jacobians are those of
      φ_r at the tokens of the full model, where the second part is measured with calibration; for all inputs it follows from
      the largest values and the ℓ2 norms that the outputs of the system can have;
    - a normalisation: ``c / sqrt(var + eps)`` with the variance of the full model alone and c between 1 and 2 by the size of
      the error, ``1 / sqrt(eps)`` for all inputs, and at most ``2 √width`` in any case;
    - the mean over time: an ℓ2 norm divided by ``√horizon``;
    - a change of the decoder, ``D_r(x̂) - D(x) = [D_r(x̂) - D_r(x)] + [D_r(x) - D(x)]``, as for a map of tokens.

    By induction over the layers an input that keeps within the limits of one stage has no larger error at the next, so that
    the reduced model need not be run to check them (only its layers, on the signals of the full model).

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Embedding, LayerNorm, Linear
    >>> ssm = lqo.DiagonalLQOSystem([[0.9, 0.1], [0.8, 0.2]], np.ones((2, 2, 1)), [[[1.0, 0.01]], [[1.0, 0.01]]], dt=1.0)
    >>> block = Block("layer", ssm, norm=LayerNorm([1.0, 1.0], [0.0, 0.0]))
    >>> model = lqo.DeepSSM(Embedding([[1.0, 0.0], [0.0, 2.0]]), (block,), Linear([[1.0, 2.0]]))
    >>> bound = lqo.output_error_bound(model, lqo.compress(model, state_size=2).model, horizon=8)
    >>> bool(float(bound) > 0)
    True
    """
    _check_pair(model, reduced, horizon)
    analysis = Analysis.of(model, reduced, horizon)
    if not np.isfinite(margin) or margin < 1:
        raise InvalidInputError(f"margin must be a finite number of at least 1, got {margin!r}")
    pairs = [(block.ssm, other.ssm) for block, other in zip(model.blocks, reduced.blocks, strict=True)]
    errors = np.array([np.linalg.norm(h2_error(*pair, horizon=horizon, delay=0)) for pair in pairs])
    chain, weights, _, capped = follow(analysis)
    used: dict[str, str] = {}
    calibrated, calibrated_weights, calibrated_terms = None, None, None
    records: list[Record] = []
    layer_weights, terms = weights
    bound, used["bound"] = _least(chain, capped, layer_weights, terms, errors)
    if calibration is not None:
        batches: Iterable[Any] = calibration if isinstance(calibration, Iterator) else [calibration]
        inputs = [_checked(analysis, batch) for batch in batches]
        if not inputs:
            raise InvalidInputError("calibration gives no inputs")
        seen = measure(analysis, np.concatenate(inputs))
        chain, measured_weights, records, capped = follow(analysis, seen, float(margin))
        calibrated_weights, calibrated_terms = np.minimum(measured_weights, weights)
        calibrated, used["calibrated"] = _least(chain, capped, calibrated_weights, calibrated_terms, errors)
        if bound < calibrated:
            calibrated, used["calibrated"] = bound, used["bound"]
    names = tuple(block.name for block in model.blocks)
    result = OutputErrorBound(
        bound, calibrated, errors, layer_weights, calibrated_weights, used, names, int(horizon), terms, calibrated_terms
    )
    object.__setattr__(result, "_analysis", analysis)
    object.__setattr__(result, "_records", records)
    return result


def _least(chain: float, capped: bool, weights: np.ndarray, terms: np.ndarray, errors: np.ndarray) -> tuple[float, str]:
    """The least bound and its name."""
    total = float(np.sum(times_each(weights, errors)) + np.sum(terms))
    return (total, "sum") if total < chain else (chain, "range" if capped else "chain")


def _checked(analysis: Analysis, inputs: ArrayLike) -> np.ndarray:
    inputs = check_inputs(analysis.model.encoder, inputs)
    if inputs.shape[1] != analysis.steps:
        raise DimensionError(f"the inputs have {inputs.shape[1]} steps, but the bound is for {analysis.steps}")
    return inputs


def _check_pair(model: DeepSSM, reduced: DeepSSM, horizon: int) -> None:
    check_models(model, reduced)
    check_supported(model, "the bound")
    check_supported(reduced, "the bound")
    if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise InvalidInputError(f"horizon must be a positive integer, got {horizon!r}")
    if len(model.blocks) != len(reduced.blocks):
        raise InvalidInputError(f"the models have {len(model.blocks)} and {len(reduced.blocks)} blocks")
    parts = ("encoder", "norm", "pooling")
    pairs: list[tuple[str, Any, Any]] = [(part, getattr(model, part), getattr(reduced, part)) for part in parts]
    for a, b in zip(model.blocks, reduced.blocks, strict=True):
        names = ("norm", "prenorm", "activation", "gate", "residual")
        pairs += [(f"{a.name}: {name}", getattr(a, name), getattr(b, name)) for name in names]
        shape, other = ((s.batch, s.n_inputs, s.n_outputs) for s in (a.ssm, b.ssm))
        pairs.append((f"{a.name}: the shape of the system", shape, other))
        mixing, remixing = (None if m is None else m.weight.shape for m in (a.mixing, b.mixing))
        pairs.append((f"{a.name}: the shape of mixing", mixing, remixing))
    decoder, other_decoder = ((m.weight.shape, m.bias is None) for m in (ends(model)[1], ends(reduced)[1]))
    pairs.append(("the shape of the decoder", decoder, other_decoder))
    for what, one, two in pairs:
        if not (one == two if not hasattr(one, "__dict__") else _equal(one, two)):
            raise InvalidInputError(f"{what} differs between the models; they may differ in systems, mixing and decoder only")


def _equal(a: object, b: object) -> bool:
    return type(a) is type(b) and all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())
