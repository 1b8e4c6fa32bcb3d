"""Steps that bring a reduced block closer to the original one on calibration inputs, all of its parameters together.

The error is that of the block's output, the stream of features that goes on to the next block: what the layers in front have
done to it counts as well. In the directions in which the model's output moves, step by step, it counts as the squared error of
the model's output, in all others a little: they would drift away to where the sensitivities do not hold any more. That the
errors of the steps add up in the model's output is left out on purpose: a sum over a sequence is one number, and as many numbers
as there are sequences are soon fitted without meaning anything for other inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lqo_mor.network import _kernels
from lqo_mor.network.forward import block_input, block_output, combine, output_rows, system_map
from lqo_mor.network.layers import Linear
from lqo_mor.network.sensitivity import outer_backward, row_gradients
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput

_STEPS = 150
_SEQUENCES = 32  # in each step; more steps and more sequences gained nothing
_RATE = 0.005  # of the first steps, relative to the root mean square of the parameters of one kind; it falls to 0
_MEMORY = (0.9, 0.98)  # of the means of gradients and of their squares (Adam)
_OTHER = 0.3  # weight of the directions that do not move the model's output, relative to their mean
_HELD_OUT = 8  # every so manieth sequence takes no part in the steps and judges the result
_TOKENS = 8192  # taken at once, what a processor's cache holds
_SCALES = {"decay": 0.3, "angle": 0.05}  # the other parameters have a scale of their own
_ANGLE = 0.1  # largest angle, relative to the distance from the unit circle, at which a real pole becomes a pair

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]  # the block's inputs, the wanted outputs, gradients by them


def descended(
    block, inputs: Sequence, targets: Sequence, gradients: Sequence | None, *, feedthrough: bool, mixing: bool, margin: float
):
    """The block after steps of descent, or as it was if they did not bring it closer on the sequences held out.

    Parameters
    ----------
    block : Block
        With a single, reduced system.
    inputs, targets : sequence of (width, batch, steps) ndarray
        What the block reads and what it should give, in pieces, for instance two `Spool`.
    gradients : sequence of (directions, width, batch, steps) ndarray, optional
        See `block_gradients`; without them all errors count alike.
    feedthrough, mixing : bool
        Whether the diagonal of the feedthrough and the mixing map may change.
    margin : float
        Distance that the poles keep from the unit circle.

    Returns
    -------
    Block
    """
    data = _Data(inputs, targets, gradients)
    start = replace(block, ssm=_as_pairs(block.ssm))
    values = _parameters(start, feedthrough, mixing)
    scales = {name: _SCALES.get(name) or np.sqrt(np.mean(np.abs(value) ** 2)) for name, value in values.items()}
    first, second = ({name: np.zeros_like(value) for name, value in values.items()} for _ in range(2))
    batches, slowest = data.batches(), np.log(-np.log1p(-margin))
    for k in range(_STEPS):
        moved = _gradient(_assembled(start, values), next(batches), data.other)
        rate = _RATE * min(1.0, (k + 1) / 10) * 0.5 * (1 + np.cos(np.pi * k / _STEPS))
        for name, value in values.items():
            slope = moved[name] * scales[name]
            first[name] += (1 - _MEMORY[0]) * (slope - first[name])
            second[name] += (1 - _MEMORY[1]) * (slope * slope - second[name])
            root = np.sqrt(second[name] / (1 - _MEMORY[1] ** (k + 1))) + np.finfo(float).tiny
            values[name] = value - rate * scales[name] * first[name] / (1 - _MEMORY[0] ** (k + 1)) / root
        values["decay"] = np.maximum(values["decay"], slowest)
    found = _assembled(start, values)
    return found if data.error(found) < data.error(block) else block


class _Data:
    """Pieces of sequences, some of them held out."""

    def __init__(self, inputs: Sequence, targets: Sequence, gradients: Sequence | None):
        self._all, numbers = (inputs, targets, gradients), []
        for k, y in enumerate(inputs):
            numbers += [(k, row) for row in range(y.shape[1])]
        self._steps = y.shape[-1]
        self._held = numbers[_HELD_OUT - 1 :: _HELD_OUT] if len(numbers) >= 2 * _HELD_OUT else numbers
        self._used = numbers if self._held is numbers else sorted(set(numbers) - set(self._held))
        power = 1.0 if gradients is None else np.mean([np.mean(np.sum(g * g, axis=0)) for g in gradients])
        self.other = power if gradients is None else _OTHER * power

    def batches(self) -> Iterator[list[Piece]]:
        """Without end the sequences of one step after the other, drawn by chance, always the same."""
        rng, waiting = np.random.default_rng(0), []
        size = min(_SEQUENCES, len(self._used))
        while True:
            while len(waiting) < size:
                waiting += [self._used[k] for k in rng.permutation(len(self._used))]
            yield list(self._cut(waiting[:size]))
            waiting = waiting[size:]

    def error(self, block) -> float:
        """The squared error on the sequences held out."""
        total, apply = 0.0, system_map(block.ssm, self._steps)
        for y, target, gradient in self._cut(self._held):
            error = target - block_output(block, y, apply(block_input(block, y)))
            total += np.sum(np.einsum("rfbt,fbt->rbt", gradient, error) ** 2) + self.other * np.sum(error**2)
        return float(total)

    def _cut(self, numbers: list[tuple[int, int]]) -> Iterator[Piece]:
        size = max(1, _TOKENS // self._steps)
        for k in sorted({k for k, _ in numbers}):
            rows = sorted(row for piece, row in numbers if piece == k)
            y, target = (part[k][:, rows] for part in self._all[:2])
            gradient = np.zeros((0, *target.shape)) if self._all[2] is None else self._all[2][k][:, :, rows]
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                yield y[:, part], target[:, part], gradient[:, :, part]


def _as_pairs(sys: DiagonalLQOSystem) -> DiagonalLQOSystem:
    """Real poles as pairs near the axis, with half the rows: a slot has room for two states."""
    real, q = sys.is_real_pole, sys.quadratic
    angle = np.where(real, np.minimum(1e-3, _ANGLE * (1 - np.abs(sys.poles))), 0.0)
    half = np.where(real, 0.5, 1.0)
    quadratic = None if q is None else QuadraticOutput(q.U * half, q.V * half, q.W)
    poles = np.where(sys.poles == 0, 1e-30, sys.poles) * np.exp(1j * angle)
    return DiagonalLQOSystem(poles, sys.B, sys.C * half, sys.D, quadratic, sys.dt)


def _parameters(block, feedthrough: bool, mixing: bool) -> dict[str, np.ndarray]:
    """What may move, by name; complex parameters stand for two real ones each."""
    ssm, q = block.ssm, block.ssm.quadratic
    values = {"decay": np.log(-np.log(np.abs(ssm.poles))), "angle": np.angle(ssm.poles), "B": ssm.B, "C": ssm.C}
    if q is not None:
        values |= {"U": q.U, "V": q.V, "W": q.W}
    if feedthrough and ssm.n_inputs == ssm.n_outputs:
        values["D"] = np.diag(ssm.D).copy()
    if mixing and block.mixing is not None:
        values["weight"] = block.mixing.weight
        if block.mixing.bias is not None:
            values["bias"] = block.mixing.bias
    return values


def _assembled(block, values: dict[str, np.ndarray]):
    """The block with these parameters."""
    ssm, mixing = block.ssm, block.mixing
    poles = np.exp(-np.exp(values["decay"]) + 1j * values["angle"])
    D = ssm.D if "D" not in values else ssm.D - np.diag(np.diag(ssm.D)) + np.diag(values["D"])
    quadratic = None if ssm.quadratic is None else QuadraticOutput(values["U"], values["V"], values["W"])
    if "weight" in values:
        mixing = Linear(values["weight"], values.get("bias"))
    return replace(block, ssm=DiagonalLQOSystem(poles, values["B"], values["C"], D, quadratic, ssm.dt), mixing=mixing)


def _gradient(block, pieces: list[Piece], other: float) -> dict[str, np.ndarray]:
    """The gradient of the squared error, summed over pieces, by all parameters; of complex ones ``∂/∂Re + i ∂/∂Im``."""
    ssm, total = block.ssm, {}
    n, p = ssm.n_slots, ssm.n_outputs
    c = 0 if ssm.quadratic is None else ssm.quadratic.rank
    B = np.concatenate([ssm.B.real, ssm.B.imag])
    rows = output_rows(ssm)
    rows = np.concatenate([rows.real, -rows.imag], axis=1)
    for x, target, gradient in pieces:
        v, shape = block_input(block, x), x.shape[1:]
        signal = np.ascontiguousarray(v).reshape(v.shape[0], -1)
        states = B @ signal
        _kernels.scan(ssm.poles, states.reshape(-1, *shape))
        outputs = rows @ states
        outputs[:p] += ssm.D @ signal
        outputs = outputs.reshape(-1, *shape)
        y = combine(ssm, outputs)
        error = block_output(block, x, y.copy()) - target
        along = np.einsum("rfbt,fbt->rbt", gradient, error)
        active, through, own, _ = outer_backward(
            block, x, y, 2 * (np.einsum("rbt,rfbt->fbt", along, gradient) + other * error)
        )
        of_rows = own if c == 0 else row_gradients(ssm, outputs, own)
        of_rows = of_rows.reshape(p + 2 * c, -1)
        backwards = np.ascontiguousarray((rows.T @ of_rows).reshape(-1, *shape)[..., ::-1])
        _kernels.scan(ssm.poles.conj(), backwards)
        of_states = backwards[..., ::-1].reshape(2 * n, -1)
        of_B, of_outputs = of_states @ signal.T, of_rows @ states.T
        by_row = 2 * (of_outputs[:, :n] - 1j * of_outputs[:, n:])  # rows count twice, and their imaginary part negatively
        found = {"B": of_B[:n] + 1j * of_B[n:], "C": by_row[:p], "D": np.sum(of_rows[:p] * signal, axis=1)}
        if c:
            products = (outputs[p : p + c] * outputs[p + c :]).reshape(c, -1)
            found |= {"U": by_row[p : p + c], "V": by_row[p + c :], "W": of_rows[:p] @ products.T}
        flat = through.reshape(through.shape[0], -1)
        found |= {"weight": flat @ active.reshape(active.shape[0], -1).T, "bias": np.sum(flat, axis=1)}
        earlier, later = states.reshape(2, n, *shape)[..., :-1], of_states.reshape(2, n, *shape)[..., 1:]
        by_pole = sum(np.einsum("nbt,nbt->n", a, b) for a, b in zip(later, earlier, strict=True)) + 1j * (
            np.einsum("nbt,nbt->n", later[1], earlier[0]) - np.einsum("nbt,nbt->n", later[0], earlier[1])
        )
        found["decay"] = (by_pole.conj() * ssm.poles * np.log(np.abs(ssm.poles))).real
        found["angle"] = (by_pole.conj() * 1j * ssm.poles).real
        total = found if not total else {name: total[name] + value for name, value in found.items()}
    return total
