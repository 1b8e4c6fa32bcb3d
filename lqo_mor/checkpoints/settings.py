"""What a file's tensors cannot tell: given by the user or a file beside it, or assumed and reported."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lqo_mor.errors import AssumptionWarning, CheckpointError, InvalidInputError, LQOWarning, warn
from lqo_mor.files import check_new, write_atomically

_MARK = "lqo_mor_settings"
_MOST_BYTES = 2**20


class Settings:
    """The settings that a format asks for while it reads a file, given by the user or the file beside the checkpoint.

    Every question names a default, that of the configurations in the original repository. What was not given is collected in
    `assumed`, so that nothing is guessed silently.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        self.values: dict[str, Any] = {}
        self.assumed: dict[str, Any] = {}

    def choice(self, name: str, options: Sequence[Any], default: Any) -> Any:
        """One of several values."""
        value = self._value(name, default)
        if not any(type(value) is type(option) and value == option for option in options):
            raise InvalidInputError(f"setting {name} = {_short(value)} is none of {', '.join(map(str, options))}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        return self.choice(name, (True, False), default)

    def number(self, name: str, default: Any, least: float | None = None) -> Any:
        """A real number, or what `default` is where none is given."""
        value = self._value(name, default)
        real = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
        if value is not default and (not real or (least is not None and value < least)):
            wanted = "a finite number" if least is None else f"a finite number of at least {least}"
            raise InvalidInputError(f"setting {name} = {_short(value)} must be {wanted}")
        return value

    def integer(self, name: str, default: Any, least: int = 1) -> Any:
        """An integer, or what `default` is where none is given."""
        value = self.number(name, default, least)
        if value is not default and value != int(value):
            raise InvalidInputError(f"setting {name} = {_short(value)} must be an integer")
        return value if value is default else int(value)

    def given(self, name: str) -> Any:
        """What was given under that name, or None; nothing is assumed."""
        return self._value(name, None) if name in self._given else None

    def check_stored(self, name: str, stored: Any) -> None:
        """Raise `CheckpointError` if something else was given than what the file itself says."""
        if self.given(name) not in (None, stored):
            raise CheckpointError(f"the file says {name} = {stored}, which cannot be overruled")

    def check_used(self, also: Collection[str] = ()) -> None:
        """Raise `InvalidInputError` if something was given that the format did not ask for, but for what is in `also`."""
        unknown = [str(name) for name in self._given if name not in self.values and name not in also]
        if unknown:
            known = f"it knows {', '.join(self.values)}" if self.values else "it has none"
            raise InvalidInputError(f"the format has no setting {', '.join(unknown)}; {known}")

    def _value(self, name: str, default: Any) -> Any:
        if name in self._given:
            self.values[name] = self._given[name]
        else:
            self.values[name] = self.assumed[name] = default
        return self.values[name]


def check_given(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that a user gives, as a dictionary; raises `InvalidInputError` where they are no mapping."""
    if not isinstance(settings, (Mapping, type(None))):
        raise InvalidInputError(f"settings must be a mapping from names to values, got {_short(settings)}")
    return dict(settings or {})


def assumption_text(file_name: str, assumed: Mapping[str, Any]) -> str:
    """What was assumed, in words."""
    listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in assumed.items())
    return f"{file_name} does not tell everything; assumed {listed}"


def warn_of_assumptions(file_name: str, assumed: Mapping[str, Any]) -> None:
    """Say what was assumed, with `AssumptionWarning`."""
    if assumed:
        warn(f"{assumption_text(file_name, assumed)}; give what is wrong as settings={{...}}", AssumptionWarning)


def sidecar_path(path: Path) -> Path:
    """The file beside a checkpoint that holds its settings."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path, shapes: Iterable[tuple[int, ...]]) -> dict[str, Any]:
    """The settings in the file beside a checkpoint whose tensors have these shapes.

    Empty where there is no such file, or one of somebody else. Where it was written for another checkpoint that stood under this
    name, a warning says that it is not used.
    """
    content = _content(sidecar_path(path))
    if content is None:
        return {}
    if type(content[_MARK]) is not int or content[_MARK] != 1 or not isinstance(content.get("settings"), dict):
        raise CheckpointError(f"{sidecar_path(path).name} is damaged: expected the settings of a checkpoint, version 1")
    if any(content.get(name, value) != value for name, value in _described(shapes).items()):
        warn(
            f"{sidecar_path(path).name} was written for another checkpoint than {path.name} is now; its settings are not used",
            LQOWarning,
        )
        return {}
    return content["settings"]


class Sidecar:
    """The file beside a new checkpoint, which holds its settings; without any, one that stands there is removed.

    It is written when the checkpoint is complete, just before that gets its name: a process that is killed in between leaves a
    sidecar without a checkpoint, which the next one replaces, and never a checkpoint without its settings. As a context it
    takes the sidecar away again where the checkpoint did not get its name.

    Raises `OutputError` if the file cannot be written, before the checkpoint is.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
        self._path, self._settings = sidecar_path(path), dict(settings)
        alone = not os.path.lexists(path) and _content(self._path) is not None
        self._overwrite, self._is_new = overwrite or alone, False
        if self._settings:
            check_new(self._path, self._overwrite)

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and self._is_new:
            with suppress(OSError):
                self._path.unlink()

    def write(self, format_name: str, shapes: Iterable[tuple[int, ...]]) -> None:
        """Store the settings for a checkpoint of that format with tensors of those shapes."""
        if self._settings:
            self._is_new = not os.path.lexists(self._path)
            content = {_MARK: 1, "format": format_name, **_described(shapes), "settings": self._settings}
            write_atomically(self._path, (json.dumps(content, indent=2) + "\n").encode(), self._overwrite)
        elif self._overwrite and _content(self._path) is not None:
            self._path.unlink(missing_ok=True)


def _content(beside: Path) -> dict[str, Any] | None:
    """What a file of this package beside a checkpoint holds, or None."""
    try:
        if not beside.is_file() or beside.stat().st_size > _MOST_BYTES:
            return None
        content = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and _MARK in content else None


def _described(shapes: Iterable[tuple[int, ...]]) -> dict[str, Any]:
    """What tells a checkpoint from another one that is stored under its name, whatever the container and the prefixes are."""
    sizes = [math.prod(shape) for shape in shapes]
    return {"tensors": len(sizes), "numbers": sum(sizes)}


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, (str, bool, int, float, type(None))) else f"a {type(value).__name__}"
