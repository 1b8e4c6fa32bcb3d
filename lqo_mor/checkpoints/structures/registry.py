"""How state-space layers are connected in models whose code is known, one structure a file."""

from lqo_mor.checkpoints.contracts import Structure
from lqo_mor.checkpoints.structures.dlru import DLRU
from lqo_mor.checkpoints.structures.flax_models import FLAX_MODELS
from lqo_mor.checkpoints.structures.s4_models import S4_EXAMPLE, S4_FRAMEWORK

# The first that recognises the tensors around the layers has them; without any, only the systems of a file are known.
# A structure that only one family has stands in its record.
STRUCTURES: tuple[Structure, ...] = (S4_EXAMPLE, S4_FRAMEWORK, FLAX_MODELS, DLRU)
