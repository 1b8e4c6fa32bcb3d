"""Proven bounds on the output error of a deep state-space model whose layers were reduced.

Between the blocks the error ``e = x̂ - x`` of the reduced model is followed as two numbers, its ℓ2 norm over all features and
steps and the largest 2-norm of a token. In a block with input ``v`` of the system,

    Σ_r(v̂) - Σ(v) = [Σ_r(v) - Σ(v)] + [Σ_r(v̂) - Σ_r(v)]

so that the first part is seen on the signals of the full model alone, and the second is a gain of the reduced system. Every
step takes the least of several proven estimates, and all of them grow with their `limits`: what is known of the signals of the
full model. These come from the weights (all inputs) or are measured (all inputs that keep within them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from lqo_mor.analysis.differences import h2_error
from lqo_mor.errors import DimensionError, InvalidInputError
from lqo_mor.network import forward
from lqo_mor.network._lipschitz import (
    SystemGains,
    TokenMap,
    channel_gains,
    chord,
    kernels,
    matrix_gain,
    spectral,
    times,
    times_each,
)
from lqo_mor.network.layers import Embedding, Linear
from lqo_mor.network.model import Block, DeepSSM
from lqo_mor.systems.diagonal import DiagonalLQOSystem

_SLACK = 1 + 1e-9  # of the run-time check, for rounding


@dataclass(frozen=True, eq=False)
class OutputErrorBound:
    """Bounds on the error of the outputs of a reduced model; printing them gives a table.

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
        ``Σ_l layer_weights_l layer_errors_l`` is a bound for all inputs, too. They belong to this pair of models; those of a
        model and itself hold in the limit of small changes.
    calibrated_weights : (layers,) ndarray or None
        The same for the inputs that `membership` accepts.
    used : dict of str to str
        For "bound" and "calibrated", which estimate is the least: "sum", that with the weights; "chain", with ℓ2 gains in place
        of h2 norms; or "range", since normalised tokens are never further apart than that, whatever the layers do.
    names : tuple of str
        Names of the blocks.
    steps : int
        Length of the sequences.
    """

    bound: float
    calibrated: float | None
    layer_errors: np.ndarray
    layer_weights: np.ndarray
    calibrated_weights: np.ndarray | None
    used: dict[str, str]
    names: tuple[str, ...]
    steps: int
    _analysis: _Analysis = field(init=False, repr=False)
    _records: list = field(init=False, repr=False)

    def membership(self, inputs) -> np.ndarray:
        """Whether each input lies in the set on which `calibrated` is proven.

        The set: on the signals of the full model, every reduced layer errs no more than on the calibration inputs; no token has
        a smaller variance before a normalisation, and nowhere are signals larger or the Jacobian of the map of a token,
        in the neighbourhood that the bound allows, steeper (each up to the margin).

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
        measured, inside = _measured(self._analysis, inputs), np.ones(len(inputs), dtype=bool)
        for limits, neighbourhood in self._records:
            for name, values in measured.send(neighbourhood).items():
                inside &= np.all(values <= limits[name] * _SLACK, axis=tuple(range(1, values.ndim)))
        return inside

    def holds_for(self, inputs) -> bool:
        """Whether `calibrated` is proven for all these inputs; see `membership`."""
        return bool(np.all(self.membership(inputs)))

    def __str__(self) -> str:
        rows = [("layer", "h2 error", "weight", "product", "calibrated", "product")]
        for i, name in enumerate(self.names):
            row = [name, f"{self.layer_errors[i]:.2e}"]
            for weights in (self.layer_weights, self.calibrated_weights):
                row += ["", ""] if weights is None else [f"{weights[i]:.2e}", f"{weights[i] * self.layer_errors[i]:.2e}"]
            rows.append(tuple(row))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append(f"output error at most {self.bound:.3e} for all inputs of {self.steps} steps ({self.used['bound']})")
        if self.calibrated is not None:
            lines.append(f"and at most {self.calibrated:.3e} for inputs like the calibration ({self.used['calibrated']})")
        return "\n".join(lines)


def output_error_bound(model, reduced, steps: int, *, calibration=None, margin: float = 1.0) -> OutputErrorBound:
    """Bound the error of the outputs of a model whose layers were reduced.

    ``max ‖model(u) - reduced(u)‖₂ ≤ Σ_l w_l ‖Σ_l - Σ_{r,l}‖_h2``, and sharper estimates with ℓ2 gains; every constant comes
    from the weights, or from the signals of the full model on calibration inputs.

    Parameters
    ----------
    model, reduced : DeepSSM
        They differ in the systems of their blocks only.
    steps : int
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
        If the models differ in more than their systems, or a number is out of range.
    DimensionError
        If the calibration inputs have the wrong shape.

    Notes
    -----
    Proven up to rounding, for every kind of `Block`. What each step takes:

    - the system's own error ``(Σ_r - Σ)(v)``: ℓ2 gain of the difference of the kernels times ``‖v‖`` and, for quadratic outputs,
      ``√steps ‖·‖_h2 ‖v‖²``; measured with calibration. In the sum ``√steps ‖Σ - Σ_r‖_h2 sqrt(‖v‖² + ‖v‖⁴)``, the second term
      for quadratic outputs only;
    - propagation by ``Σ_r``: ℓ2 gain over the steps, the least of the sum of absolute values and the H∞ norm of the kernel (the
      norm of the Toeplitz matrix for short sequences), by channel; the factors of products are those of the full model plus
      their largest change;
    - the map of tokens: slope of the GELU on the real line 1.129, ``âσ(b̂) - aσ(b) = σ(b̂)(â - a) + a(σ(b̂) - σ(b))`` with
      slopes of at most 1/4; with calibration the norms of the Jacobians at the tokens of the full model, and an interval
      bound on how much they change within the bound on the error of a token;
    - a normalisation: ``c / sqrt(var + eps)`` with the variance of the full model alone and c between 1 and 2 by the size of
      the error, ``1 / sqrt(eps)`` for all inputs, and at most ``2 √width`` in any case;
    - the mean over time: an ℓ2 norm divided by ``√steps``.

    By induction over the layers an input that keeps within the limits of one stage has no larger error at the next, so that
    the reduced model need not be run to check them (only its layers, on the signals of the full model).

    Examples
    --------
    >>> import numpy as np, lqo_mor as lqo
    >>> from lqo_mor.network import Block, Embedding, LayerNorm, Linear
    >>> from lqo_mor.network.bound import output_error_bound
    >>> ssm = lqo.DiagonalLQOSystem([[0.9, 0.1], [0.8, 0.2]], np.ones((2, 2, 1)), [[[1.0, 0.01]], [[1.0, 0.01]]])
    >>> block = Block("layer", ssm, norm=LayerNorm([1.0, 1.0], [0.0, 0.0]))
    >>> model = lqo.DeepSSM(Embedding([[1.0, 0.0], [0.0, 2.0]]), (block,), Linear([[1.0, 2.0]]))
    >>> bound = output_error_bound(model, lqo.compress(model, state_size=2).model, steps=8)
    >>> bool(bound.bound > 0)
    True
    """
    analysis = _Analysis.of(model, reduced, steps)
    if not np.isfinite(margin) or margin < 1:
        raise InvalidInputError(f"margin must be a finite number of at least 1, got {margin!r}")
    pairs = [(block.ssm, other.ssm) for block, other in zip(model.blocks, reduced.blocks, strict=True)]
    errors = np.array([np.linalg.norm(h2_error(*pair, horizon=steps, delay=0)) for pair in pairs])
    chain, weights, _, capped = _follow(analysis)
    used, calibrated, calibrated_weights, records = {}, None, None, []
    bound, used["bound"] = _least(chain, capped, weights, errors)
    if calibration is not None:
        batches = calibration if isinstance(calibration, Iterator) else [calibration]
        inputs = [_checked(analysis, batch) for batch in batches]
        if not inputs:
            raise InvalidInputError("calibration gives no inputs")
        seen = _measured(analysis, np.concatenate(inputs))
        chain, calibrated_weights, records, capped = _follow(analysis, seen, float(margin))
        calibrated_weights = np.minimum(calibrated_weights, weights)
        calibrated, used["calibrated"] = _least(chain, capped, calibrated_weights, errors)
        if bound < calibrated:
            calibrated, used["calibrated"] = bound, used["bound"]
    names = tuple(block.name for block in model.blocks)
    result = OutputErrorBound(bound, calibrated, errors, weights, calibrated_weights, used, names, int(steps))
    object.__setattr__(result, "_analysis", analysis)
    object.__setattr__(result, "_records", records)
    return result


@dataclass(frozen=True, eq=False)
class _Layer:
    """One block, its reduced system, and what follows from the weights: gains, and limits of the signals of all inputs."""

    block: Block
    small: DiagonalLQOSystem
    gains: SystemGains
    tokens: TokenMap
    limits: dict
    reach: tuple[np.ndarray, np.ndarray]
    centred: bool  # whether all that follows takes no notice of the mean of a token

    def h2_factor(self, size: float) -> float:
        """What the h2 error times `√steps` is multiplied with, for inputs of that ℓ2 norm, to bound the ℓ2 norm of the error."""
        return float(size) if self.block.ssm.quadratic is None else float(np.sqrt(size**2 + size**4))

    @property
    def before(self) -> bool:
        """Whether there is a normalisation before the system."""
        return self.block.norm is not None and self.block.prenorm

    @property
    def after(self) -> bool:
        """Whether there is a normalisation after the sum."""
        return self.block.norm is not None and not self.block.prenorm


@dataclass(frozen=True, eq=False)
class _Analysis:
    """Everything that does not depend on calibration."""

    model: DeepSSM
    steps: int
    layers: tuple[_Layer, ...]
    final: dict

    @property
    def last_norm(self):
        """The normalisation that nothing but the decoder follows, or None."""
        if self.model.norm is not None or not self.layers:
            return self.model.norm
        return self.layers[-1].block.norm if self.layers[-1].after else None

    @classmethod
    def of(cls, model, reduced, steps) -> _Analysis:
        _check_pair(model, reduced, steps)
        encoder, layers = model.encoder, []
        scale, peaks, token = np.ones(encoder.n_outputs), np.full(encoder.n_outputs, np.inf), np.inf
        if isinstance(encoder, Embedding):
            peaks, token = np.max(np.abs(encoder.weight), axis=0), np.max(np.linalg.norm(encoder.weight, axis=1))
        for block, other in zip(model.blocks, reduced.blocks, strict=True):
            if block.norm is not None and block.prenorm:
                scale, peaks, token = _normalised(block.norm)
            centred = not block.prenorm or (
                model.norm is not None and all(b.prenorm and b.norm is not None for b in model.blocks)
            )
            centred = centred and block.norm is not None
            layers.append(_layer(block, other.ssm, scale, np.sqrt(steps) * peaks, np.sqrt(steps) * token, steps, centred))
            if block.norm is not None and not block.prenorm:
                scale, peaks, token = _normalised(block.norm)
            else:
                scale, peaks, token = np.ones(block.n_outputs), np.full(block.n_outputs, np.inf), np.inf
        return cls(model, int(steps), tuple(layers), {"final": _steepest(model.norm)})


def _normalised(norm):
    """Scale of the features of normalised tokens, their largest values, and the largest 2-norm of a token."""
    weight, width = np.abs(norm.weight), norm.weight.size
    token = np.sqrt(width) * np.max(weight) + np.linalg.norm(norm.bias)
    return weight, weight * np.sqrt(width - 1) + np.abs(norm.bias), token


def _steepest(norm) -> float:
    """Lipschitz constant of ``(x - mean) / ρ`` for all tokens."""
    return np.inf if norm is None or norm.eps == 0 else norm.eps**-0.5


def _layer(block, small, scale, sizes, total, steps, centred) -> _Layer:
    """`sizes` (width,) and `total` bound the ℓ2 norms of the inputs of the system, over time, each and in all."""
    ssm, batch = block.ssm, bool(block.ssm.batch)
    parts, parts_r = kernels(ssm, steps), kernels(small, steps)
    full = np.abs(np.zeros((ssm.n_outputs, 0)) if ssm.quadratic is None else ssm.quadratic.W)
    dK, curved = parts[0] - parts_r[0], _h2_of_products(ssm, small, steps)

    def peaks(rows):  # of the rows for inputs of that size, by Cauchy and Schwarz
        axes, size = (-1, sizes[:, np.newaxis]) if batch else ((1, 2), total)
        return times_each(np.sqrt(np.sum(rows**2, axis=axes)), size)

    if batch:
        gains, size = channel_gains(dK)[:, 0], sizes
        local = min(np.linalg.norm(times_each(gains, sizes)), times_each(np.max(gains), total))
    else:
        size, local = total, times_each(matrix_gain(dK), total)
    squared = times_each(curved, size * size)
    gains = SystemGains(small, parts_r, scale)
    tokens = TokenMap.of(block, ssm.batch[0] if batch else ssm.n_outputs)
    outputs = peaks(parts[0]).ravel() + times(full, (peaks(parts[1]) * peaks(parts[2]))[..., np.newaxis]).ravel()
    limits = {
        "local": local + np.sqrt(steps) * np.linalg.norm(squared),
        "local_peak": peaks(dK).ravel() + squared,
        "local_token": np.inf,
        "left": peaks(parts_r[1]),
        "right": peaks(parts_r[2]),
        "values": tokens.peaks(outputs),
        "size": np.max(size),
        "pre": _steepest(block.norm) if block.prenorm else np.inf,
        "post": np.inf if block.prenorm else _steepest(block.norm),
    }
    return _Layer(block, small, gains, tokens, limits, (limits["left"], limits["right"]), centred)


def _h2_of_products(ssm, small, steps):
    """h2 norm of the difference of the quadratic parts, (width,) or a number."""
    if ssm.quadratic is None and small.quadratic is None:
        return np.zeros(ssm.batch)
    bare = [replace(s, C=np.zeros_like(s.C), D=np.zeros_like(s.D)) for s in (ssm, small)]
    return np.asarray(h2_error(*bare, horizon=steps, delay=0))


def _follow(analysis, seen=None, margin: float = 1.0):
    """Follow the error through the model, by the limits of all inputs or, with `seen`, by what is measured.

    Returns
    -------
    bound : float
        By the chain of gains.
    weights : (layers,) ndarray
        The gains from the h2 error of each layer to the output.
    records : list
        The limits of every stage, and the neighbourhood of tokens that they are for.
    capped : bool
        Whether it is the last normalisation that keeps the error down.
    """
    model, records, steps = analysis.model, [], analysis.steps

    def known(before, neighbourhood=None):
        if seen is None:
            return before
        measured = seen.send(neighbourhood)
        found = {name: np.minimum(margin * np.max(value, axis=0), before.get(name, np.inf)) for name, value in measured.items()}
        records.append((found, neighbourhood))
        return {**before, **found}

    # of the error: ℓ2 norm, largest token, mean over the steps; of what scales it, from one block to the next
    error, scale, weights, capped = (0.0, 0.0, 0.0), np.ones(model.encoder.n_outputs), np.zeros(0), False
    for layer in analysis.layers:
        most, limits = float(np.max(scale)), known(layer.limits)
        inside, inside_weights = error, weights
        error, weights = tuple(most * part for part in error), most * weights
        if layer.before:
            gain = _slope_of_norm(layer.block.norm, limits["pre"], times_each(limits["pre"], error[1]))
            inside, capped = _capped(layer.block.norm, steps, times_each(gain, error))
            inside_weights = times_each(gain, weights)
        spread, *near = layer.gains.respond(*inside[:2], limits["left"], limits["right"], layer.reach)
        neighbourhood = _neighbourhood(float(np.max(times_each(spread, inside[0]))), *near, limits)
        limits = known(limits, (*neighbourhood, spread))
        steep, slope = layer.tokens.gain(limits["values"]), float(limits["post"]) if layer.after else 1.0

        def gains(slope, kind, steep=steep, spread=spread, limits=limits, keep=float(layer.block.residual)):
            """From the errors of the block's input, of the system's input and of the system itself to `slope` times the sum."""
            system = min(limits.get(f"spread_{kind}", np.inf), times_each(steep * slope, np.max(spread)))
            return np.array([times_each(keep, slope), system, min(limits.get(f"local_{kind}", np.inf), steep * slope)])

        stage, rms = gains(slope, "most"), gains(slope, "rms")
        token = times_each(stage[0], error[1]) + times_each(stage[2], neighbourhood[1])
        scale = np.ones(layer.block.n_outputs)
        if layer.after:
            norm = layer.block.norm
            rms[0] = times_each(float(layer.block.residual), limits.get("post_rms", slope))
            # every token has one slope, which is at most both: so the least may be taken for each part of the error
            factor, steepest = float(chord(token / np.sqrt(len(scale)))), _steepest(norm)
            stage, rms = np.minimum(factor * stage, times_each(steepest, gains(1.0, "free"))), factor * rms
            token, scale = factor * token, np.abs(norm.weight)
        parts = np.array([error[0], inside[0], float(limits["local"])])
        total = float(np.sum(times_each(stage, parts)))
        error = (total, min(token, total), min(total, float(np.sum(times_each(rms, parts)))) / np.sqrt(steps))
        weights = times_each(stage[0], weights) + times_each(stage[1], inside_weights)
        weights = np.append(weights, times_each(stage[2] * np.sqrt(steps), layer.h2_factor(limits["size"])))
        if layer.after:
            error, capped = _capped(norm, steps, error)
    if model.norm is not None:
        most, limits = float(np.max(scale)), known(analysis.final)
        error, slope, scale = tuple(most * part for part in error), limits["final"], np.abs(model.norm.weight)
        gain = _slope_of_norm(model.norm, slope, times_each(slope, error[1]))
        factor = float(chord(times_each(slope, error[1]) / np.sqrt(len(scale))))
        rms = times_each(factor * limits.get("final_rms", slope), error[0]) / np.sqrt(steps)
        weights = times_each(gain * most, weights)
        total, token, average = times_each(gain, error)
        error, capped = _capped(model.norm, steps, (total, token, min(average, rms)))
    weight, norm = model.decoder.weight * scale, analysis.last_norm
    if norm is not None:
        weight = weight - weight.mean(axis=1, keepdims=True)  # of normalised tokens the mean is zero
    decoder, mean = spectral(weight), model.pooling == "mean"
    bound = times_each(decoder, min(error[1:]) if mean else error[1])
    if norm is not None:  # no output is further from that of a zero token than this
        reach = decoder * np.sqrt(norm.weight.size)
        reach += float(known({"output": reach})["output"])
        bound, capped = min(bound, reach), bool(capped or bound > reach)
    return float(bound), (decoder / np.sqrt(steps) if mean else decoder) * weights, records, capped


def _neighbourhood(grown: float, peak, near: float, limits: dict):
    """How far tokens behind the system move at most, by feature and in the 2-norm: from the input, and by the system itself."""
    total = grown + float(limits["local"])
    peak = np.minimum(peak + limits["local_peak"], total)
    near = min(near + float(limits["local_token"]), float(np.linalg.norm(peak)), total)
    return np.minimum(peak, near), near


def _slope_of_norm(norm, slope, sharp) -> float:
    """Lipschitz constant of ``(x - mean) / ρ``, by the largest ``1 / ρ`` there is, and that times the error of a token."""
    return float(min(times_each(chord(sharp / np.sqrt(norm.weight.size)), slope), _steepest(norm)))


def _capped(norm, steps: int, error):
    """The error behind a normalisation, whose tokens lie in a ball of radius √width, and whether that is the least."""
    cap = 2 * np.sqrt(norm.weight.size)
    limits = np.array([cap * np.sqrt(steps), cap, cap])
    return tuple(float(part) for part in np.minimum(error, limits)), bool(min(error[1:]) >= cap)


def _measured(analysis, inputs):
    """Yield what is measured at one stage after the other, in arrays (batch, ...): before and after each system, and at the end.

    After a system the neighbourhood of tokens is sent, as the largest error of each feature and that of a token.
    """
    model, steps = analysis.model, analysis.steps
    x = forward.encode(model.encoder, inputs)
    for layer in analysis.layers:
        block, small = layer.block, layer.small
        v = forward.block_input(block, x)
        y = forward.system_map(block.ssm, steps)(v)
        local = forward.system_map(small, steps)(v) - y
        rows = [] if small.quadratic is None else [small.quadratic.U, small.quadratic.V]
        left, right = (_row_peaks(small, row, v, steps) for row in rows) if rows else (layer.reach[0][np.newaxis],) * 2
        sizes = np.sqrt(np.sum(v**2, axis=2))
        neighbourhood = yield {
            "local": np.sqrt(np.sum(local**2, axis=(0, 2))),
            "local_peak": np.max(np.abs(local), axis=2).T,
            "local_token": np.sqrt(np.max(np.sum(local**2, axis=0), axis=1)),
            "left": left,
            "right": right,
            "values": layer.tokens.largest(y),
            "size": np.max(sizes, axis=0) if block.ssm.batch else np.linalg.norm(sizes, axis=0),
            "pre": np.max(_slopes(block.norm, x), axis=1) if layer.before else np.zeros(1),
        }
        out = forward.block_output(replace(block, norm=None), x, y.copy())  # in front of a post-normalisation
        slopes = _slopes(block.norm, out) if layer.after else np.ones(out.shape[1:])
        peak, near, spread = neighbourhood
        scales = {"local": np.ones(len(y)), "spread": spread}
        found = [layer.tokens.steepest(y[:, i].T, slopes[i], peak, near, scales, layer.centred) for i in range(len(slopes))]
        found = {name: np.array([one[name] for one in found]) for name in found[0]}
        yield {**found, "post": np.max(slopes, axis=1), "post_rms": _rms(slopes)}
        x = forward.normalise(block.norm, out) if layer.after else out
    if model.norm is not None:
        slopes = _slopes(model.norm, x)
        yield {"final": np.max(slopes, axis=1), "final_rms": _rms(slopes)}
        x = forward.normalise(model.norm, x)
    if analysis.last_norm is not None:
        x = x - analysis.last_norm.bias[:, np.newaxis, np.newaxis]
        y = forward.decode(replace(model, norm=None, decoder=Linear(model.decoder.weight)), x)
        sizes = np.linalg.norm(y, axis=-1)
        yield {"output": sizes if y.ndim == 2 else np.max(sizes, axis=1)}


def _rms(slopes) -> np.ndarray:
    return np.sqrt(np.mean(slopes**2, axis=1))


def _slopes(norm, x) -> np.ndarray:
    """``1 / ρ`` of every token, (batch, steps)."""
    return 1 / np.sqrt(np.var(x, axis=0) + norm.eps)


def _row_peaks(ssm, rows, v, steps) -> np.ndarray:
    """Largest values over time of the signals of `rows`, (batch, c) or (batch, width, c)."""
    if not ssm.batch:
        signals = forward.system_map(replace(ssm, C=rows, D=np.zeros((len(rows), ssm.n_inputs)), quadratic=None), steps)(v)
        return np.max(np.abs(signals), axis=2).T
    peaks = []
    for j in range(rows.shape[1]):
        channel = replace(ssm, C=rows[:, j : j + 1], D=np.zeros_like(ssm.D), quadratic=None)
        peaks.append(np.max(np.abs(forward.system_map(channel, steps)(v)), axis=2).T)
    return np.stack(peaks, axis=-1)


def _least(chain, capped, weights, errors):
    """The least bound and its name."""
    total = float(np.sum(times_each(weights, errors)))
    return (total, "sum") if total < chain else (chain, "range" if capped else "chain")


def _checked(analysis, inputs) -> np.ndarray:
    inputs = forward.check_inputs(analysis.model.encoder, inputs)
    if inputs.shape[1] != analysis.steps:
        raise DimensionError(f"the inputs have {inputs.shape[1]} steps, but the bound is for {analysis.steps}")
    return inputs


def _check_pair(model, reduced, steps) -> None:
    for name, value in (("model", model), ("reduced", reduced)):
        if not isinstance(value, DeepSSM):
            raise InvalidInputError(f"{name} must be a DeepSSM, got {type(value).__name__}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise InvalidInputError(f"steps must be a positive integer, got {steps!r}")
    if len(model.blocks) != len(reduced.blocks):
        raise InvalidInputError(f"the models have {len(model.blocks)} and {len(reduced.blocks)} blocks")
    pairs = [(part, getattr(model, part), getattr(reduced, part)) for part in ("encoder", "decoder", "norm", "pooling")]
    for a, b in zip(model.blocks, reduced.blocks, strict=True):
        names = ("mixing", "norm", "prenorm", "activation", "gate", "residual")
        pairs += [(f"{a.name}: {name}", getattr(a, name), getattr(b, name)) for name in names]
        shapes = [(s.batch, s.n_inputs, s.n_outputs) for s in (a.ssm, b.ssm)]
        pairs.append((f"{a.name}: the shape of the system", *shapes))
    for what, a, b in pairs:
        if not (a == b if not hasattr(a, "__dict__") else _equal(a, b)):
            raise InvalidInputError(f"{what} differs between the models; they may differ in their systems only")


def _equal(a, b) -> bool:
    return type(a) is type(b) and all(np.array_equal(value, getattr(b, name)) for name, value in vars(a).items())
