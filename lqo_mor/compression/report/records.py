"""What happened in a compression, as records that print themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from lqo_mor.files import FilePath, check_new, json_text, write_atomically
from lqo_mor.text_table import text_table

_VERSION = 1  # of the JSON


@dataclass(frozen=True, eq=False)
class LayerReport:
    """What happened to one layer.

    Attributes
    ----------
    name : str
        Name of the block.
    states_before, states_after : int
        Real states of each system of the layer, two per stored slot; after a split those of the largest.
    parameters_before, parameters_after : int
        Numbers stored for the systems of the layer (not for the maps around them).
    relative_error : ndarray
        h2 errors relative to the norm of the systems with their feedthrough (delay 0), one per channel, or a
        single one of shape ``()``.
    repaired : int
        How many of the reduced systems were unstable and had to be repaired.
    seconds : float
        Time of the reduction.
    mean_states : float
        Mean number of real states per system that are in use.
    weighted_error : ndarray or None
        After a calibration the root of the expected squared error at the output of each channel, as it counts in the
        model's output (without sensitivities: of the channel's own output), before all linear parts were fitted jointly.
    """

    name: str
    states_before: int
    states_after: int
    parameters_before: int
    parameters_after: int
    relative_error: np.ndarray
    repaired: int
    seconds: float
    mean_states: float
    weighted_error: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class CompressionReport:
    """What happened to a model; printing it gives a table.

    Attributes
    ----------
    layers : tuple of LayerReport
        One per block.
    parameters_before, parameters_after : int
        Numbers stored for the whole model; after a split in the ragged format.
    method : str
        Name of the reduction method.
    horizon : int or None
        Number of samples that the errors are measured over; None is infinite.
    predicted_error, calibration_error : float or None
        Relative rms error of the model's output: predicted for other inputs of the same kind, from the errors of the layers and
        their sensitivities or by cross-validation of the last fit, and measured on the calibration inputs. None without a
        calibration, or where it was not found out.
    budget_curve : tuple of (float, float)
        Mean numbers of states per system with the relative rms errors of the output that are predicted for them; empty where
        they were not computed.
    """

    layers: tuple[LayerReport, ...]
    parameters_before: int
    parameters_after: int
    method: str
    horizon: int | None
    predicted_error: float | None = None
    calibration_error: float | None = None
    budget_curve: tuple[tuple[float, float], ...] = ()

    def __str__(self) -> str:
        rows = [("layer", "states", "parameters", "h2 error: median", "worst")]
        for layer in self.layers:
            even = layer.mean_states == layer.states_after
            rows.append(
                (
                    layer.name,
                    f"{layer.states_before} -> {layer.states_after if even else f'{layer.mean_states:.1f} (mean)'}",
                    f"{layer.parameters_before} -> {layer.parameters_after}",
                    f"{np.median(layer.relative_error):.2e}",
                    f"{np.max(layer.relative_error):.2e}",
                )
            )
        rows.append(("whole model", "", f"{self.parameters_before} -> {self.parameters_after}", "", ""))
        lines = text_table(rows)
        horizon = "infinite horizon" if self.horizon is None else f"horizon {self.horizon}"
        seconds = sum(layer.seconds for layer in self.layers)
        lines.append(f"method {self.method}, {horizon}, relative errors, {seconds:.1f} s")
        for what, error in (("predicted", self.predicted_error), ("on the calibration inputs", self.calibration_error)):
            if error is not None:
                lines.append(f"relative rms error of the output, {what}: {error:.3g}")
        if repaired := sum(layer.repaired for layer in self.layers):
            lines.append(f"{repaired} reduced systems were unstable and have been repaired")
        return "\n".join(lines)

    def to_json(self) -> str:
        """All fields as JSON, with a version; errors per channel are lists, numbers that are not finite null."""
        return json_text({"version": _VERSION, **asdict(self)})

    def save_json(self, path: FilePath, *, overwrite: bool = False) -> None:
        """Write the report as JSON, see `to_json`.

        Parameters
        ----------
        path : path-like
            New file.
        overwrite : bool, default False
            Whether an existing file may be replaced.

        Raises
        ------
        OutputError
            If `path` exists or cannot be written.
        """
        check_new(path, overwrite)
        write_atomically(path, self.to_json().encode(errors="replace"), overwrite)
