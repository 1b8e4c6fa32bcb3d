"""Formats of single state-space layers, one family a file: where their tensors are, and the maps to systems and back."""

from lqo_mor.checkpoints.families.contract import Family
from lqo_mor.checkpoints.families.s4d import S4D_LAYERS

# The first that recognises the tensors of a layer has it: the more special before the more general.
FAMILIES: tuple[Family, ...] = (S4D_LAYERS,)
