"""``lqo-mor demo imdb``: the sentiment of sentences by a model of film reviews, before and after compression."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable, Sequence
from importlib.resources import as_file, files
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lqo_mor.checkpoints.load import load_checkpoint
from lqo_mor.cli.loading import progress_bar
from lqo_mor.cli.tables import plain_table
from lqo_mor.compression.compress import compress
from lqo_mor.errors import InvalidInputError
from lqo_mor.network.model import DeepSSM
from lqo_mor.temporaries import temporary_folder

VOCABULARY = 128  # tokens, see `tokens`
SEPARATOR = 0
STEPS = 1024  # bytes that the model was trained to read
FULL = "imdb.safetensors"
SMALL = "imdb-small.safetensors"  # a compressed model that ships beside the full one; without the file it is made on the spot
STATES = 48  # of every layer, where it is made on the spot
VERDICTS = ("negative", "positive")
EXAMPLES = (
    "An absolute delight from start to finish. The two leads are wonderful together, and I left the cinema smiling.",
    "Two hours of my life that I will never get back. The plot makes no sense and the acting is wooden.",
    "A quiet, beautifully photographed story that trusts its audience. One of the best films I have seen this year.",
    "The trailer had all the good jokes. What remains is boring, predictable and far too long.",
    "I expected a terrible sequel and got a funny, moving and surprisingly clever film.",
    "I expected a great sequel and got a dull, lazy and surprisingly stupid film.",
)
_SHOWN = 64  # characters of a sentence in the table


def show(console: Console, texts: Sequence[str] | None, stream: TextIO | None) -> None:
    """Classify sentences by the shipped model of film reviews and by a compressed version of it.

    Without texts these are a few examples, and then those of the stream: a terminal is asked for sentences until an empty line;
    of anything else every line is one. Raises `InvalidInputError` for an empty text.
    """
    if texts is not None and not all(text.strip() for text in texts):
        raise InvalidInputError("a text is empty; give some words to classify")
    models = _models(console)
    console.print(_table(EXAMPLES if texts is None else texts, *models))
    if texts is not None or stream is None:
        return
    if stream.isatty():
        console.print("\nYour own sentences, a few lines long for good results; an empty line ends.")
        for sentence in _asked():
            console.print(_table([sentence], *models))
    else:
        # As bytes, which is what the model reads: lines in any encoding will do.
        lines = [line for line in getattr(stream, "buffer", stream) if line.strip()]
        if lines:
            console.print()
            console.print(_table([line.strip() for line in lines], *models))


def _models(console: Console) -> tuple[DeepSSM, DeepSSM]:
    """The full and the compressed model, with a few words on both."""
    data = files("lqo_mor") / "data"
    with as_file(data / FULL) as path:
        full = load_checkpoint(path)
    begin = time.perf_counter()
    if (data / SMALL).is_file():
        with as_file(data / SMALL) as path:
            small = load_checkpoint(path)
        how = "It was compressed for inputs like its training reviews, without retraining"
    else:
        with progress_bar("compressing (the first run also compiles)") as progress, temporary_folder() as folder:
            compress(full, state_size=STATES, horizon=STEPS, progress=progress).model.save(folder / SMALL)
            small = load_checkpoint(folder / SMALL)
        how = f"Every layer was just reduced, without retraining, in {time.perf_counter() - begin:.1f} s"
    sizes = {m: ", ".join(dict.fromkeys(str(block.state_size) for block in m.blocks)) for m in (full, small)}
    share = small.n_parameters / full.n_parameters
    console.print(
        f"A deep state-space model with quadratic outputs ({len(full.blocks)} layers of {sizes[full]} states, "
        f"{full.n_parameters:,} parameters) that\n"
        f"tells the sentiment of a film review from its last {STEPS} bytes.\n"
        f"{how}:\n{sizes[small]} states, {small.n_parameters:,} parameters ({share - 1:.0%}).\n",
        markup=False,
    )
    return full, small


def classify(model: DeepSSM, texts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts (texts,) of a model on texts, as indices of `VERDICTS`, and their probabilities (texts,) from one half to one.

    The model classifies windows of `STEPS` bytes as negative or positive.
    """
    logits = model(windows(texts, STEPS))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), odds.max(axis=1) / odds.sum(axis=1)


def _table(texts: Sequence[str | bytes], full: DeepSSM, small: DeepSSM) -> Table:
    """One row per text."""
    columns = ("sentence", "full model", "compressed")
    table = plain_table(*columns, left=columns)
    results = [classify(model, texts) for model in (full, small)]
    for i, text in enumerate(texts):
        table.add_row(Text(_shortened(text)), *(f"{VERDICTS[verdicts[i]]} {p[i]:.1%}" for verdicts, p in results))
    return table


def _shortened(text: str | bytes) -> str:
    """The beginning of a text, on one line and without control characters."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    words = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.shorten(words, _SHOWN, placeholder=" ...") if " " in words.strip() else words.strip()[:_SHOWN]


def _asked() -> Iterable[str]:
    """Sentences from the terminal, until an empty line, the end of the input, or an interrupt."""
    try:
        while sentence := input("> ").strip():
            yield sentence
    except (EOFError, KeyboardInterrupt):
        print()


def tokens(text: str | bytes) -> np.ndarray:
    """The bytes of a text in UTF-8, values 1 to 127 (0 separates); all bytes outside ASCII, which are rare, are one token."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return np.clip(np.frombuffer(data, np.uint8), 1, VOCABULARY - 1)


def window_places(lengths: np.ndarray, steps: int, first: np.ndarray | None = None) -> np.ndarray:
    """Positions of windows on the endless repetitions ``text, separator, text, separator, ...``.

    A text longer than the window is cut, a shorter one repeated, so that a mean over time is one over text, not over padding.
    Lengths are without the separator; windows begin at `first` (texts,), by default so that they end with the last token.
    Returns (texts, steps), from 0 to the length of the text, which is the place of its separator.
    """
    periods = lengths + 1
    first = lengths - steps if first is None else first
    return (first[:, np.newaxis] + np.arange(steps)) % periods[:, np.newaxis]


def windows(texts: Iterable[str | bytes], steps: int) -> np.ndarray:
    """The windows of evaluation of some texts, (texts, steps), which end with their last tokens.

    Examples
    --------
    >>> bytes(windows(["good"], 8)[0])
    b'ood\\x00good'
    """
    parts = [np.append(tokens(text), np.uint8(SEPARATOR)) for text in texts]
    places = window_places(np.array([len(part) - 1 for part in parts], dtype=np.int64), steps)
    return np.stack([part[own] for part, own in zip(parts, places, strict=True)])
