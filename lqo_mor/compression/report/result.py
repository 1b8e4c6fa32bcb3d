"""What a compression gives: the smaller model and its report."""

from __future__ import annotations

from dataclasses import dataclass

from lqo_mor.compression.report.records import CompressionReport
from lqo_mor.network.model import DeepSSM


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """The compressed `model` and the `report` on it."""

    model: DeepSSM
    report: CompressionReport
