"""Sections of settings that grow with a table of parts: readers, CAM losses, refiners, segmenters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, make_dataclass
from typing import Any, Literal, Protocol


class Part(Protocol):
    """What one table of parts holds.

    Attributes:
        settings: frozen dataclass of the part's own settings, whose docstring describes each; None: it has none.
    """

    @property
    def settings(self) -> type | None:
        """See above."""
        ...


def with_parts(section: type, parts: Mapping[str, Part], choice: str = "") -> Any:
    """A section of settings with a sub-section for each part that has settings, under the part's name.

    Args:
        section: frozen dataclass of what does not depend on parts.
        parts: the table.
        choice: the field of `section` that names one of the parts, which then takes no other name.

    Returns:
        A frozen dataclass, a subclass of `section`.
    """
    chosen = section.__dataclass_fields__.get(choice)  # type: ignore[attr-defined]
    fields: list[Any] = [(choice, names_of(parts), chosen.default)] if chosen is not None else []
    for name, part in parts.items():
        if part.settings is not None:
            fields.append((name, part.settings, field(default_factory=part.settings)))
    namespace = {"__doc__": section.__doc__, "__module__": section.__module__}
    return make_dataclass(section.__name__, fields, bases=(section,), frozen=True, namespace=namespace)


def names_of(parts: Iterable[str]) -> Any:
    """The type of a setting that names one of the parts."""
    return Literal[tuple(parts)]
