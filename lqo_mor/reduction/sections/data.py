"""What the search for sections is given: the data of the kernels for every channel of a batch, and poles to start from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lqo_mor.analysis.gramians import gramian_factors
from lqo_mor.analysis.norm import Norm
from lqo_mor.analysis.norms import norm_value
from lqo_mor.analysis.rows import pair_weights
from lqo_mor.analysis.weighted import spectrum_of
from lqo_mor.matrix_equations import pairing_jets
from lqo_mor.matrix_equations.pairing_jets import WEIGHTED, WEIGHTED_FREE
from lqo_mor.reduction.modal import mode_scores
from lqo_mor.reduction.objective.error import without_feedthrough
from lqo_mor.reduction.sections import candidates, starting_poles
from lqo_mor.reduction.sections.kernel_data import CODE, FEATURES, LAM, OUTPUTS, PARAMETERS, REAL_POLES, B, Data, kernel_data
from lqo_mor.reduction.sections.layout import Layout
from lqo_mor.reduction.sections.sections import PAIR
from lqo_mor.systems.convert import real_rows
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.poles import closed, reflect
from lqo_mor.systems.quadratic import QuadraticOutput

BOUNDLESS = 1e-10  # ridge below which it changes nothing but the outputs
_LEAST_RIDGE = 1e-12  # where poles meet, no residues could be found without any
_DRAWN = 16  # further starts of one system, from modes drawn by chance


def channel_data(sys: DiagonalLQOSystem, norm: Norm, ridge: float) -> Callable[[int], Data]:
    """What the kernels need of channel `h` of a batch with linear outputs, as a function of `h`."""
    pairing, count = norm.pairing, int(np.prod(sys.batch))
    code = pairing.compiled_code
    lam = np.array(sys.poles.reshape(count, -1))
    parameters = np.array(pairing.parameters)
    outputs = np.array((sys.C * (pair_weights(sys) * sys.B[..., 0])[..., np.newaxis, :]).reshape(count, sys.n_outputs, -1))
    squared_norm = np.reshape(norm_value(without_feedthrough(sys), norm), count) ** 2

    def data_of(h: int) -> Data:
        features = np.empty((pairing_jets.N_FEATURES, lam.shape[1]), complex)
        pairing_jets._own_features(code, parameters, lam[h], features)
        return kernel_data((code, parameters), lam[h], features, outputs[h], squared_norm[h], ridge)

    return data_of


def balanced_start(data: Data, size: Layout) -> np.ndarray:
    """The poles of the balanced truncation of one channel, nearly."""
    lam, inputs, real, outputs = data[LAM], data[B], data[REAL_POLES], data[OUTPUTS]
    return starting_poles._balanced_poles(
        data[CODE], data[PARAMETERS], lam, data[FEATURES], inputs, outputs, real, size.n_parameters
    )


def further_starts(full: DiagonalLQOSystem, size: Layout, norm: Norm) -> list[np.ndarray]:
    """The dominant modes, as many as fit, and modes drawn by chance with other decays; always the same."""
    scores = mode_scores(full, norm)
    slots = size.kinds[0] == PAIR
    costs = np.ones(full.n_slots) if slots else np.where(full.is_real_pole, 1, 2)
    room = size.kinds.size if slots else size.n_parameters
    rng = np.random.default_rng(0)
    starts = []
    for number in range(_DRAWN + 1):
        # the largest of logarithms of scores plus Gumbel noise are a sample without replacement
        noise = rng.gumbel(size=scores.size) if number else 0.0
        ranking = np.argsort(-(0.5 * np.log(np.maximum(scores, 1e-300)) + noise), kind="stable")
        kept = ranking[np.cumsum(costs[ranking]) <= room]
        poles = reflect(full.poles[kept], full.is_continuous)
        factor = np.exp(0.5 * rng.normal(size=kept.size)) if number else 1.0
        if full.is_continuous:
            poles = factor * poles.real + 1j * poles.imag
        else:
            poles = poles * np.maximum(np.abs(poles), 1e-300) ** (factor - 1)
        starts.append(closed(poles))
    return starts


def _weighted_data(poles: np.ndarray, outputs: np.ndarray, R: np.ndarray, ridge: float, free: bool) -> Data:
    code, R = WEIGHTED_FREE if free else WEIGHTED, np.ascontiguousarray(R, float)
    features = np.empty((pairing_jets.N_FEATURES, poles.size), complex)
    pairing_jets._own_features(code, R, poles, features)
    squared = candidates._squared_norm(code, R, poles, features, outputs)
    return kernel_data((code, R), poles, features, outputs, squared, max(ridge, _LEAST_RIDGE))


def search_data(sys: DiagonalLQOSystem, norm: Norm, ridge: float) -> Data:
    """What the kernels need of one system: the inner form in the usual norm, else the projection."""
    lam, b = np.array(sys.poles), np.array(sys.B[:, 0])
    outputs = np.ascontiguousarray(sys.C * (pair_weights(sys) * b))
    if not norm.white:
        return _weighted_data(lam, outputs, spectrum_of(norm).covariances[:, 0, 0], ridge, False)
    code, parameters = norm.pairing.compiled_code, np.array(norm.pairing.parameters)
    allpass = _allpass_form(sys, norm) if norm.plain and ridge <= BOUNDLESS else None
    squared = float(norm_value(without_feedthrough(sys), norm)) ** 2
    features = np.empty((pairing_jets.N_FEATURES, lam.size), complex)
    pairing_jets._own_features(code, parameters, lam, features)
    return kernel_data((code, parameters), lam, features, outputs, squared, ridge, b, allpass)


def _allpass_form(sys: DiagonalLQOSystem, norm: Norm) -> tuple[np.ndarray, ...]:
    """``ROOT, ROWS, T, PLAIN, HERMITIAN`` of one system, see `kernel_data`."""
    q, none = sys.M, np.zeros((0, 0))
    twice = None if q is None else QuadraticOutput(q.U, q.V, np.sqrt(2.0) * q.W)
    _, S = gramian_factors(DiagonalLQOSystem(sys.poles, sys.B, sys.C, None, twice, dt=sys.dt), norm)
    root = np.ascontiguousarray(S.T)
    if q is None:
        return root, none, none, none + 0j, none + 0j
    real, lam = np.array(sys.is_real_pole), np.array(sys.poles)
    rows, T = np.concatenate([real_rows(q.U, real), real_rows(q.V, real)]), q.W.T @ q.W
    return root, rows, T, norm.pairing.outer(lam, lam), norm.pairing.outer(lam, lam.conj())
