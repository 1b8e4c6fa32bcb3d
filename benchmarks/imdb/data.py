"""The IMDb reviews (Maas et al. 2011) as sequences of bytes, as in the Long Range Arena.

The complete labelled data, 25,000 reviews each for training and test, in two files ``imdb_train.tsv.gz`` and
``imdb_test.tsv.gz`` with the columns label, rating, id and text.

The model sees a window of fixed length on the endless repetition ``review, 0, review, 0, ...``: a review that is longer
than the window is cut, a shorter one is repeated, so that the mean over time is a mean over text and not over padding.
For evaluation the window ends with the last byte of the review; for training it is placed at random.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lqo_mor.cli.demo_imdb import SEPARATOR, VOCABULARY, tokens, window_places

__all__ = ["SEPARATOR", "SHA256", "VOCABULARY", "Reviews", "load_reviews", "split_held_out", "tokens"]

SHA256 = {
    "imdb_train.tsv.gz": "0379b21503b6c918e25e544c4543cb0c2462e07a1f296b07b59a886a05703f6b",
    "imdb_test.tsv.gz": "d81b2c5c37e5dc383c669d35ffd921c96b8588f12136a1fe8a1c03be275e4d82",
}
HEADER = b"label\trating\tid\ttext"


@dataclass(frozen=True)
class Reviews:
    """Reviews of different lengths in one array, each followed by a separator.

    Attributes
    ----------
    stream : ndarray of uint8
        Tokens of all reviews.
    starts, lengths : ndarray of int
        First position and number of tokens of each review, without its separator.
    labels : ndarray of int
        1 for a positive review.
    """

    stream: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_texts(cls, texts, labels) -> Reviews:
        """Reviews of texts, strings or bytes."""
        parts = [np.append(tokens(text), np.uint8(SEPARATOR)) for text in texts]
        lengths = np.array([len(part) - 1 for part in parts])
        return cls(np.concatenate(parts), np.cumsum(lengths + 1) - lengths - 1, lengths, np.asarray(labels, dtype=np.int64))

    def take(self, rows) -> Reviews:
        """The reviews with these indices."""
        return Reviews(self.stream, self.starts[rows], self.lengths[rows], self.labels[rows])

    def windows(self, steps: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """One window per review, that of evaluation, or a random one.

        Parameters
        ----------
        steps : int
            Length of the windows.
        rng : numpy.random.Generator, optional
            Source of random windows.

        Returns
        -------
        ndarray of uint8, shape (reviews, steps)
            Windows of reviews as long as `steps` or longer have no separator.
        """
        first = None
        if rng is not None:
            first = rng.integers(np.where(self.lengths >= steps, self.lengths + 1 - steps, self.lengths + 1))
        places = window_places(self.lengths, steps, first)
        return self.stream[self.starts[:, np.newaxis] + places]


def load_reviews(folder, part: str) -> Reviews:
    """All labelled reviews of one part.

    Parameters
    ----------
    folder : path-like
        Folder of the two files.
    part : {"train", "test"}
        Which file.

    Returns
    -------
    Reviews
        25,000 reviews in the order of the file.

    Raises
    ------
    ValueError
        If the file is not the one whose checksum stands in this module.
    """
    name = f"imdb_{part}.tsv.gz"
    data = (Path(folder) / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise ValueError(f"{name} has another SHA-256 checksum than the file of this experiment")
    header, *lines = gzip.decompress(data).rstrip(b"\n").split(b"\n")
    if header != HEADER:
        raise ValueError(f"{name} has the columns {header!r}, expected {HEADER!r}")
    fields = [line.split(b"\t", 3) for line in lines]
    return Reviews.from_texts([field[3] for field in fields], [int(field[0]) for field in fields])


def split_held_out(reviews: Reviews, count: int, seed: int = 0) -> tuple[Reviews, Reviews]:
    """A part for training and a held-out part with as many positive as negative reviews.

    Parameters
    ----------
    reviews : Reviews
        The training file.
    count : int
        Reviews in the held-out part.
    seed : int
        Seed of the draw.

    Returns
    -------
    training, held_out : Reviews
        In the order of the file.
    """
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(reviews.labels == label))[: count // 2] for label in (0, 1)]
    held_out = np.zeros(len(reviews), dtype=bool)
    held_out[np.concatenate(chosen)] = True
    return reviews.take(np.flatnonzero(~held_out)), reviews.take(np.flatnonzero(held_out))
