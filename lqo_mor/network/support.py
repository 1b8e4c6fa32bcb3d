"""Which models the bound and the calibration are for."""

from __future__ import annotations

from typing import cast

from lqo_mor.errors import InvalidInputError
from lqo_mor.network.layers import BatchNorm, LayerNorm
from lqo_mor.network.model import DeepSSM


def layer_norm(norm: LayerNorm | BatchNorm | None) -> LayerNorm | None:
    """The normalisation of a model that `check_supported` accepts."""
    return cast("LayerNorm | None", norm)


def check_models(model: object, reduced: object) -> None:
    """Raise `InvalidInputError` where one of a pair is no model."""
    for name, value in (("model", model), ("reduced", reduced)):
        if not isinstance(value, DeepSSM):
            raise InvalidInputError(f"{name} must be a DeepSSM, got {type(value).__name__}")


def check_supported(model: DeepSSM, what: str) -> None:
    """Raise `InvalidInputError` where `what` does not handle a part of the model."""
    if not model.runs:
        raise InvalidInputError(
            f"{what} needs the whole model, but only its systems are known; compress without it, or load a file whose structure "
            "is known"
        )
    for block in model.blocks:
        parts = {
            "systems that run backward in time": block.backward is not None,
            "channels with several outputs": bool(block.ssm.batch) and block.ssm.n_outputs > 1,
            "batch normalisation": isinstance(block.norm, BatchNorm),
        }
        for part, there in parts.items():
            if there:
                raise InvalidInputError(f"{block.name}: {what} does not handle {part}; compress without it")
    if isinstance(model.norm, BatchNorm):
        raise InvalidInputError(f"{what} does not handle batch normalisation; compress without it")
