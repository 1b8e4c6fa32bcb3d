"""The options of a calibrated compression."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CalibrationOptions:
    """What a calibrated compression may do beyond fitting each system to the spectrum of its inputs.

    Attributes
    ----------
    split : bool, default False
        Give each channel as many states as it deserves, in all layers together, instead of the same number to all. The
        S4D file, which is rectangular, would hide the gain: save with ``format="ragged"``. Where layers are single systems:
        more states to the layers that deserve them.
    sensitivity : bool, default True
        Weigh errors by how much they change the model's output, frequency by frequency (a backward pass through the model);
        in layers of channels late answers then count less, since few inputs last to see them.
    sequential : bool, default True
        Fit each layer to the outputs of the layers in front that have been reduced already.
    feedthrough : bool, default True
        Let the feedthroughs change (their diagonals, in single systems).
    mixing : bool, default True
        Refit the linear maps behind layers of channels in closed form, to the outputs they had, if that brings the model's output
        closer on the calibration inputs; and let the decoder change. (A single system has outputs of its own that mix its
        states: the maps behind it change in a joint fit only.)
    joint : bool, default True
        In the end fit the output weights of all systems together, with the feedthroughs, maps and decoder that may change, by
        least squares on the model's output (Gauss-Newton), if that brings it closer by cross-validation. For outputs pooled over
        time and 50 sequences or more; otherwise, and without it, the decoder alone is refitted (`mixing`).
    """

    split: bool = False
    sensitivity: bool = True
    sequential: bool = True
    feedthrough: bool = True
    mixing: bool = True
    joint: bool = True
