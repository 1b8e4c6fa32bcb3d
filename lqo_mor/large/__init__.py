"""Large sparse linear-quadratic-output systems: low-rank Gramians, norms, errors and reduction without dense n × n matrices."""

from lqo_mor.large.examples import heat_equation_2d
from lqo_mor.large.gramians import LowRankGramian, low_rank_controllability, low_rank_observability
from lqo_mor.large.norms import low_rank_h2_error, low_rank_h2_norm
from lqo_mor.large.reduction import LowRankBalancing, low_rank_balancing, reduce_large
from lqo_mor.large.system import SparseLQOSystem

__all__ = [
    "LowRankBalancing",
    "LowRankGramian",
    "SparseLQOSystem",
    "heat_equation_2d",
    "low_rank_balancing",
    "low_rank_controllability",
    "low_rank_h2_error",
    "low_rank_h2_norm",
    "low_rank_observability",
    "reduce_large",
]
