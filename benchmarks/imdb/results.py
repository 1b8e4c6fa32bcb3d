"""Rows of results in a JSON file that grows row by row, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

from lqo_mor.bench.machine import machine_facts
from lqo_mor.files import write_atomically

PACKAGES = ("lqo-mor", "numpy", "scipy", "numba", "torch", "safetensors")


def sha256(path: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Results:
    """A JSON file with settings, machines and rows, and the rows as CSV beside it.

    Parameters
    ----------
    path : path-like
        The JSON file; an existing one is continued.
    settings : dict
        What determines all rows; of plain values.
    key : tuple of str
        Columns that tell the rows apart.

    Raises
    ------
    ValueError
        If the file holds rows of other settings.
    """

    def __init__(self, path, settings: dict, key: tuple[str, ...]):
        self.path, self.settings, self.key = Path(path), json.loads(json.dumps(settings)), key
        self.rows: list[dict] = []
        self.machines: list[dict] = []
        self.extra: dict = {}
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            for name in sorted(self.settings.keys() | stored["settings"].keys()):
                ours, theirs = self.settings.get(name), stored["settings"].get(name)
                if ours != theirs:
                    raise ValueError(f"{self.path.name} has rows with {name} = {theirs}, not {ours}; choose another file")
            self.rows, self.machines, self.extra = stored["rows"], stored["machines"], stored["extra"]
        facts = machine_facts(*PACKAGES)
        if facts not in self.machines:
            self.machines.append(facts)
        self._machine = self.machines.index(facts)

    def find(self, **key) -> dict | None:
        """The row with this key, if it is there."""
        wanted = [key.get(name) for name in self.key]
        return next((row for row in self.rows if [row.get(name) for name in self.key] == wanted), None)

    def add(self, row: dict) -> None:
        """Append a row and write both files; each changes completely or not at all."""
        self.rows.append({**row, "machine": self._machine})
        self.write()

    def write(self) -> None:
        """Write both files."""
        content = {"settings": self.settings, "machines": self.machines, "extra": self.extra, "rows": self.rows}
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode(), overwrite=True)
        write_atomically(self.path.with_suffix(".csv"), self._csv().encode(), overwrite=True)

    def _csv(self) -> str:
        names = list(
            dict.fromkeys(name for row in self.rows for name, value in row.items() if not isinstance(value, (list, dict)))
        )
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()
