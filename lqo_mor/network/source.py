"""What a model needs of the file that it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lqo_mor.files import FilePath

if TYPE_CHECKING:
    from lqo_mor.network.model import DeepSSM


class ModelSource(Protocol):
    """What a model keeps of the file it came from: it knows what the format stores, and how to write it."""

    @property
    def format(self) -> str:
        """The name of the format."""

    def other_parameters(self, model: DeepSSM) -> int | None:
        """How many numbers the file holds outside of the systems, or None if those are the arrays of the model."""

    def layer_parameters(self, model: DeepSSM, format: str | None = None) -> tuple[int, ...]:
        """How many numbers the format, or another one, stores for the system of each block."""

    def reduce_in_class(self, model: DeepSSM, state_size: int, horizon: int | None) -> DeepSSM:
        """The model reduced so that the class of its checkpoint can hold it."""

    def write(
        self, model: DeepSSM, path: FilePath, overwrite: bool, format: str | None = None, same_size: bool | None = None
    ) -> None:
        """Store the model at `path`, in its own format or another one."""
