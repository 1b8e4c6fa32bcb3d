"""lqo-mor: model order reduction of linear-quadratic-output systems and of the deep networks made of them."""

from types import ModuleType

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.gramians import controllability_gramian, hankel_singular_values, observability_gramian
from lqo_mor.analysis.low_rank_gramians import LowRankGramian, low_rank_controllability, low_rank_observability
from lqo_mor.analysis.low_rank_norms import low_rank_h2_error, low_rank_h2_norm
from lqo_mor.analysis.norms import h2_inner, h2_norm
from lqo_mor.analysis.simulate import simulate
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.bounds.conformal import ConformalBound, conformal_error_bound
from lqo_mor.bounds.output_error import OutputErrorBound, output_error_bound
from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.checkpoints.streaming import compress_file
from lqo_mor.compression.allocation import Allocation, allocate
from lqo_mor.compression.calibration.options import CalibrationOptions
from lqo_mor.compression.compress import compress
from lqo_mor.compression.report.records import CompressionReport, LayerReport
from lqo_mor.compression.report.result import CompressionResult
from lqo_mor.errors import LQOError, LQOWarning
from lqo_mor.io.mat_files import load_mat, save_mat
from lqo_mor.io.pymor_models import from_pymor, to_pymor
from lqo_mor.io.python_control import from_control, to_control
from lqo_mor.io.scipy_signal import from_scipy, to_scipy
from lqo_mor.io.system_files import load_system, save_system
from lqo_mor.network.model import DeepSSM
from lqo_mor.reduction.balanced import balanced_truncation
from lqo_mor.reduction.descent.projected_gradient import projected_gradient
from lqo_mor.reduction.large import LowRankBalancing, low_rank_balancing, reduce_large
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
from lqo_mor.systems.examples import heat_equation_2d
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
    "balanced_truncation",
    "compress",
    "compress_file",
    "conformal_error_bound",
    "controllability_gramian",
    "examples",
    "from_control",
    "from_pymor",
    "from_scipy",
    "h2_error",
    "h2_inner",
    "h2_norm",
    "hankel_singular_values",
    "heat_equation_2d",
    "hippo",
    "irka",
    "load_checkpoint",
    "load_mat",
    "load_system",
    "low_rank_balancing",
    "low_rank_controllability",
    "low_rank_h2_error",
    "low_rank_h2_norm",
    "low_rank_observability",
    "modal_truncation",
    "observability_gramian",
    "output_error_bound",
    "plot_reduction",
    "projected_gradient",
    "reduce",
    "reduce_large",
    "save_mat",
    "save_system",
    "simulate",
    "to_control",
    "to_dense",
    "to_diagonal",
    "to_pymor",
    "to_scipy",
    "tsia",
    "variable_projection",
]


def __getattr__(name: str) -> ModuleType:
    """``lqo_mor.torch``, imported on first use: the rest of the package needs no torch."""
    if name == "torch":
        import lqo_mor.torch as part

        return part
    raise AttributeError(f"module 'lqo_mor' has no attribute {name!r}")
