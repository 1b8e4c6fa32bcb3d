"""Systems and models as PyTorch modules, for training and for inference step by step (needs torch).

``import lqo_mor as lqo`` imports this part on first use of ``lqo.torch``, and needs no torch before.
"""

from lqo_mor.errors import MissingDependencyError

try:
    import torch as _torch  # noqa: F401  # here once, for all modules of this part
except ImportError:
    raise MissingDependencyError("torch", "torch", "lqo_mor.torch") from None

from lqo_mor.torch.layer import SSMLayer, random_system, torch_layer
from lqo_mor.torch.lqo_deep_ssm import LQODeepSSM
from lqo_mor.torch.model import ModelState, SSMBlock, SSMModel, torch_model, update_model
from lqo_mor.torch.ragged_s4d import RaggedS4D, RaggedS4DModel, RaggedSlots, replace_s4d_layers

__all__ = [
    "LQODeepSSM",
    "ModelState",
    "RaggedS4D",
    "RaggedS4DModel",
    "RaggedSlots",
    "SSMBlock",
    "SSMLayer",
    "SSMModel",
    "random_system",
    "replace_s4d_layers",
    "torch_layer",
    "torch_model",
    "update_model",
]
