"""What a compression gives: the smaller model, the report on it, and both as a page."""

from __future__ import annotations

from dataclasses import dataclass

from lqo_mor.bounds.output_error import OutputErrorBound
from lqo_mor.compression.report.html import html_page
from lqo_mor.compression.report.records import CompressionReport
from lqo_mor.files import FilePath, check_new, write_atomically
from lqo_mor.network.model import DeepSSM


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """What a compression gives.

    Attributes
    ----------
    model : DeepSSM
        The compressed model, to be run, saved or compared.
    report : CompressionReport
        What happened to the layers.
    original : DeepSSM
        The model that was compressed.
    """

    model: DeepSSM
    report: CompressionReport
    original: DeepSSM

    def save_html(self, path: FilePath, *, bound: OutputErrorBound | None = None, overwrite: bool = False) -> None:
        """Write the report as a page with figures and pictures, a single file without scripts.

        Parameters
        ----------
        path : path-like
            New file.
        bound : OutputErrorBound, optional
            Of the two models (`output_error_bound`), to be shown as well.
        overwrite : bool, default False
            Whether an existing file may be replaced.

        Raises
        ------
        MissingDependencyError
            If Matplotlib is not installed (extra ``plot``).
        OutputError
            If `path` exists or cannot be written.
        InvalidInputError
            If `bound` is that of other models.
        """
        check_new(path, overwrite)
        page = html_page(self.report, self.original, self.model, bound)
        write_atomically(path, page.encode(errors="replace"), overwrite)
