"""Formats of single state-space layers, one family a file: where their tensors are, and the maps to systems and back."""

from collections.abc import Callable

from lqo_mor.checkpoints.contracts import Family, Original
from lqo_mor.checkpoints.families.dss import DSS
from lqo_mor.checkpoints.families.ema import EMA, EMA_S4, EMA_TRANSFORMERS
from lqo_mor.checkpoints.families.flax import S4D_FLAX
from lqo_mor.checkpoints.families.linoss import LINOSS
from lqo_mor.checkpoints.families.lqo import LQO
from lqo_mor.checkpoints.families.lru import LRU, LRU_TORCH
from lqo_mor.checkpoints.families.native import NATIVE
from lqo_mor.checkpoints.families.ragged import RAGGED, from_s4d, to_s4d
from lqo_mor.checkpoints.families.s4_diagonal import S4_DIAGONAL, S4_DIAGONAL_V2, S4_DIAGONAL_V3
from lqo_mor.checkpoints.families.s4_dplr import S4_DPLR, S4_DPLR_V2, S4_DPLR_V3, S4_V1
from lqo_mor.checkpoints.families.s4d import S4D, S4D_LAYERS
from lqo_mor.checkpoints.families.s5 import S5, S5_TORCH

# The first that recognises the tensors of a file has them: the more special before the more general.
FAMILIES: tuple[Family, ...] = (
    RAGGED,
    LQO,
    S4D,
    NATIVE,
    LRU,
    LRU_TORCH,
    S5,
    S5_TORCH,
    LINOSS,
    S4D_FLAX,
    S4_DPLR,
    S4_DPLR_V3,
    S4_DPLR_V2,
    DSS,
    S4_V1,
    S4_DIAGONAL,
    S4_DIAGONAL_V3,
    S4_DIAGONAL_V2,
    EMA_S4,
    EMA_TRANSFORMERS,
    EMA,
    S4D_LAYERS,
)

# Those whose layers are read inside of any model.
IN_ANY_MODEL = tuple(family for family in FAMILIES if family.structure is None)

# From the format that was read to the one that is written: what was read, as if it had come from a file of the other.
CONVERSIONS: dict[tuple[str, str], Callable[[Original], Original]] = {
    (S4D.name, RAGGED.name): from_s4d,
    (RAGGED.name, S4D.name): to_s4d,
}
