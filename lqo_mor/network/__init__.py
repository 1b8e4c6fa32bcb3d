"""Deep state-space models: what runs. The parts to build a model of by hand are here."""

from lqo_mor.network.blocks import Block
from lqo_mor.network.layers import BatchNorm, Embedding, LayerNorm, Linear
from lqo_mor.network.model import DeepSSM

__all__ = ["BatchNorm", "Block", "DeepSSM", "Embedding", "LayerNorm", "Linear"]
