"""Configuration files: YAML with command-line overrides (OmegaConf), checked by a pydantic model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

Model = TypeVar("Model", bound=BaseModel)


class SettingsError(ValueError):
    """A configuration that cannot be used: which key, what it holds, what was expected."""


PACKAGED = Path(__file__).parent / "configs"


def find(name: Path) -> Path:
    """A file, or by its bare name one of the configurations that come with the package.

    A folder is none: the run of a recipe may well lie in one of the recipe's name.
    """
    packaged = PACKAGED / f"{name}.yaml"
    return packaged if not name.is_file() and name.parent == Path() and packaged.exists() else name


def load(kind: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file or packaged configuration, apply `key.sub=value` overrides, and check every key.

    Where the value is a mapping, `key={...}`, it stands in place of the one in the file.

    Raises:
        SettingsError: the file cannot be read, or a key is unknown, missing or has an unusable value.
    """
    path = find(path)
    bad = [o for o in overrides if "=" not in o]
    if bad:
        raise SettingsError(f"override {bad[0]!r}: expected key=value")
    try:
        changes = OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, YAMLError) as error:
        raise SettingsError(f"overrides {' '.join(overrides)}: {error}") from error
    try:
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig):
            raise SettingsError(f"{path}: expected keys with values at the top level")
        merged = OmegaConf.merge(content, changes)
        # Merged, keys of the recipe, such as its sources, would stay beside those that are given.
        for name, _, value in (o.partition("=") for o in overrides):
            if value.lstrip().startswith("{"):
                OmegaConf.update(merged, name, OmegaConf.select(changes, name), merge=False)
        values = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OSError as error:
        packaged = ", ".join(sorted(file.stem for file in PACKAGED.glob("*.yaml")))
        raise SettingsError(
            f"cannot read {path}: {error.strerror or error}; in the package are {packaged}"
        ) from error
    except MissingMandatoryValue as error:
        key = error.full_key
        raise SettingsError(f"{path}: {key} has no value; give it one there, or with {key}=VALUE") from error
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return checked(kind, values, str(path))


def checked(kind: type[Model], values: object, where: str = "settings") -> Model:
    """Values as a model.

    Raises:
        SettingsError: with a line for every key that is unknown, missing or has an unusable value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{where}:\n{described(error)}") from error


def described(error: ValidationError) -> str:
    """One line per problem: the key, what came, what was expected."""
    lines = []
    problems = error.errors(include_url=False)
    # A list of items that were refused one by one is also said to be too short: that says nothing more.
    within = {problem["loc"][0] for problem in problems if len(problem["loc"]) > 1}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"][0] in within:
            continue
        key = ".".join(map(str, problem["loc"])) or "(top level)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: missing")
        elif not problem["loc"]:  # all keys together are no help
            lines.append(f"  {key}: {problem['msg']}")
        else:
            lines.append(f"  {key}: {problem['msg']}; got {problem['input']!r}")
    return "\n".join(lines)
