"""lqo-mor: model order reduction of linear-quadratic-output systems and of the deep networks made of them."""

from lqo_mor.analysis.differences import h2_error
from lqo_mor.analysis.gramians import controllability_gramian, hankel_singular_values, observability_gramian
from lqo_mor.analysis.norms import h2_inner, h2_norm
from lqo_mor.analysis.simulate import simulate
from lqo_mor.analysis.spectrum import InputSpectrum
from lqo_mor.checkpoints import compress_file, load_checkpoint
from lqo_mor.errors import LQOError, LQOWarning
from lqo_mor.large import (
    LowRankBalancing,
    LowRankGramian,
    SparseLQOSystem,
    heat_equation_2d,
    low_rank_balancing,
    low_rank_controllability,
    low_rank_h2_error,
    low_rank_h2_norm,
    low_rank_observability,
    reduce_large,
)
from lqo_mor.network import CalibrationOptions, DeepSSM, compress, conformal_error_bound, output_error_bound
from lqo_mor.reduction import (
    ErrorCurve,
    Reduction,
    balanced_truncation,
    hippo,
    irka,
    modal_truncation,
    projected_gradient,
    reduce,
    tsia,
    variable_projection,
)
from lqo_mor.reduction.result import Status
from lqo_mor.systems import examples
from lqo_mor.systems.convert import to_dense, to_diagonal
from lqo_mor.systems.dense import LQOSystem
from lqo_mor.systems.diagonal import DiagonalLQOSystem
from lqo_mor.systems.quadratic import QuadraticOutput
from lqo_mor.toolboxes import (
    from_control,
    from_pymor,
    from_scipy,
    load_mat,
    load_system,
    save_mat,
    save_system,
    to_control,
    to_pymor,
    to_scipy,
)

__version__ = "0.1.0"

__all__ = [
    "CalibrationOptions",
    "DeepSSM",
    "DiagonalLQOSystem",
    "ErrorCurve",
    "InputSpectrum",
    "LQOError",
    "LQOSystem",
    "LQOWarning",
    "LowRankBalancing",
    "LowRankGramian",
    "QuadraticOutput",
    "Reduction",
    "SparseLQOSystem",
    "Status",
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
