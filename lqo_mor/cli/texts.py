"""Texts as sequences of bytes in windows of one length, as the shipped model of film reviews reads them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

VOCABULARY = 128
SEPARATOR = 0


def tokens(text: str | bytes) -> np.ndarray:
    """The bytes of a text; all bytes outside ASCII, which are rare, are one token.

    Parameters
    ----------
    text : str or bytes
        A review; a string is encoded as UTF-8.

    Returns
    -------
    ndarray of uint8
        Values 1 to 127; 0 is the separator.
    """
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return np.clip(np.frombuffer(data, np.uint8), 1, VOCABULARY - 1)


def window_places(lengths: np.ndarray, steps: int, first: np.ndarray | None = None) -> np.ndarray:
    """Positions of windows on the endless repetitions ``text, separator, text, separator, ...``.

    A text longer than the window is cut, a shorter one repeated, so that a mean over time is one over text, not over padding.

    Parameters
    ----------
    lengths : (texts,) ndarray of int
        Numbers of tokens without the separator.
    steps : int
        Length of the windows.
    first : (texts,) ndarray of int, optional
        Where the windows begin; by default so that they end with the last token.

    Returns
    -------
    (texts, steps) ndarray of int
        From 0 to the length of the text, which is the place of its separator.
    """
    periods = lengths + 1
    first = lengths - steps if first is None else first
    return (first[:, np.newaxis] + np.arange(steps)) % periods[:, np.newaxis]


def windows(texts: Iterable[str | bytes], steps: int) -> np.ndarray:
    """The windows of evaluation of some texts, which end with their last tokens.

    Parameters
    ----------
    texts : iterable of str or bytes
    steps : int
        Length of the windows.

    Returns
    -------
    (texts, steps) ndarray of uint8

    Examples
    --------
    >>> bytes(windows(["good"], 8)[0])
    b'ood\\x00good'
    """
    parts = [np.append(tokens(text), np.uint8(SEPARATOR)) for text in texts]
    places = window_places(np.array([len(part) - 1 for part in parts], dtype=np.int64), steps)
    return np.stack([part[own] for part, own in zip(parts, places, strict=True)])
