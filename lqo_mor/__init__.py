"""lqo-mor: model order reduction of linear-quadratic-output systems and of the deep networks made of them."""

from types import ModuleType

from lqo_mor import starting  # noqa: F401 (for what it does)

# isort: split
from lqo_mor import io
from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.gramians import controllability_gramian, hankel_singular_values, observability_gramian
from lqo_mor.analysis.low_rank_gramians import LowRankGramian
from lqo_mor.analysis.norms import h2_inner, h2_norm
from lqo_mor.analysis.simulate import simulate
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.bounds.conformal import ConformalBound, conformal_error_bound
from lqo_mor.bounds.output_error import OutputErrorBound, output_error_bound
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.streaming import compress_file
from lqo_mor.compression.allocation import Allocation, allocate
from lqo_mor.compression.calibration.calibration import CalibrationOptions
from lqo_mor.compression.compress import CompressionResult, compress
from lqo_mor.compression.report.records import CompressionReport, LayerReport
from lqo_mor.errors import LQOError, LQOWarning
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.balanced import balanced_truncation
from lqo_mor.reduction.descent.projected_gradient import projected_gradient
from lqo_mor.reduction.large import LowRankBalancing, balance
from lqo_mor.reduction.modal import hippo, modal_truncation
from lqo_mor.reduction.plot import plot_reduction
from lqo_mor.reduction.reduce import reduce
from lqo_mor.reduction.result import Reduction, Status
from lqo_mor.reduction.sweep import ErrorCurve
from lqo_mor.reduction.two_sided.irka import irka
from lqo_mor.reduction.two_sided.tsia import tsia
from lqo_mor.reduction.variable_projection import variable_projection
from lqo_mor.systems import examples
from lqo_mor.systems.convert import to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.systems.sparse import SparseLQOSystem

__version__ = "0.1.0"

__all__ = [
    "Allocation",
    "CalibrationOptions",
    "CompressionReport",
    "CompressionResult",
    "ConformalBound",
    "DeepSSM",
    "DiagonalLQOSystem",
    "ErrorCurve",
    "InputSpectrum",
    "LQOError",
    "LQOSystem",
    "LQOWarning",
    "LayerReport",
    "LowRankBalancing",
    "LowRankGramian",
    "OutputErrorBound",
    "QuadraticOutput",
    "Reduction",
    "SparseLQOSystem",
    "Status",
    "allocate",
    "balance",
    "balanced_truncation",
    "compress",
    "compress_file",
    "conformal_error_bound",
    "controllability_gramian",
    "examples",
    "h2_error",
    "h2_inner",
    "h2_norm",
    "hankel_singular_values",
    "hippo",
    "io",
    "irka",
    "load_checkpoint",
    "modal_truncation",
    "observability_gramian",
    "output_error_bound",
    "plot_reduction",
    "projected_gradient",
    "reduce",
    "simulate",
    "to_dense",
    "to_diagonal",
    "tsia",
    "variable_projection",
]


def __getattr__(name: str) -> ModuleType:
    """``lqo_mor.torch``, imported on first use: the rest of the package needs no torch."""
    if name == "torch":
        import lqo_mor.torch as part

        return part
    raise AttributeError(f"module 'lqo_mor' has no attribute {name!r}")
