"""The list of all settings, made from the settings class: for the documentation and for an .env file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings

_NAMES = {int: "whole number", float: "number", str: "text", Path: "path", bool: "true or false"}
_BOUNDS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


class Setting(NamedTuple):
    """One environment variable: `values` says what it takes, `default` is empty where it is unset."""

    variable: str
    values: str
    default: str
    description: str


def settings() -> list[Setting]:
    """All settings, in the order of the class."""
    return [
        Setting(PREFIX + name.upper(), _values(field), _text(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def markdown() -> str:
    """A Markdown table of all settings."""
    rows = ["| variable | values | default | meaning |", "| --- | --- | --- | --- |"]
    for setting in settings():
        default = f"`{setting.default}`" if setting.default else ""
        cells = (f"`{setting.variable}`", setting.values, default, setting.description)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def dotenv(without: Collection[str] = ()) -> str:
    """All settings as lines of an .env file, commented out, with their defaults.

    Args:
        without: variables to leave out.
    """
    blocks = []
    for setting in settings():
        if setting.variable in without:
            continue
        meaning = f"{setting.description} ({setting.values})" if setting.description else setting.values
        blocks.append(f"# {meaning}\n# {setting.variable}={setting.default}")
    return "\n".join(blocks) + "\n"


def _text(value: Any) -> str:
    """A value as it is written in an environment variable."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {_text(getattr(constraint, attribute))}"
        for kind, attribute, sign in _BOUNDS
        for constraint in field.metadata
        if isinstance(constraint, kind)
    ]
    kinds = _kinds(field.annotation)
    return f"{kinds} {' and '.join(bounds)}" if bounds else kinds


def _kinds(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if origin in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        return " or ".join(dict.fromkeys(map(_kinds, members)))
    return _NAMES.get(annotation, str(annotation.__name__))
