"""Settings of a run or of a section: read strictly from recipes and options, and written whole."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from sfc.errors import ConfigError
from sfc.run.files import atomic_write
from sfc.settings.limits import Limits
from sfc.settings.recipes import find_recipe, read_recipe

Section = TypeVar("Section")
LIST = "a list such as [A, B], of "


def new_parser(**options: Any) -> ArgumentParser:
    """A parser whose faults are exceptions, see `parse`."""
    return ArgumentParser(exit_on_error=False, **options)


def add_settings(parser: ArgumentParser, root: type, without: Collection[str] = ()) -> None:
    """Adds `--config NAME` (several: later ones win) and an option for every setting of a dataclass to a parser.

    Args:
        parser: gets them.
        root: frozen dataclass.
        without: fields whose options somebody else adds.
    """
    parser.add_argument(
        "--config",
        type=str,
        action="append",
        help="recipe: a YAML file, or a name that `sfc recipes` lists; several are put on top of each other",
    )
    parser.add_class_arguments(root, nested_key=None, as_group=False, skip=set(without))


def parse(
    parser: ArgumentParser, arguments: Sequence[str], root: type | None = None, *, defaults: bool = True
) -> Namespace:
    """What a command line says; a fault becomes one sentence instead of the usage of every option.

    Args:
        parser: from `new_parser`.
        arguments: without the names of program and command.
        root: dataclass whose settings are among the parser's options.
        defaults: False: only what is said.

    Raises:
        ConfigError: names the option.
    """
    return _one_sentence(lambda: parser.parse_args(list(arguments), defaults=defaults), root)


def load_settings(root: type[Section], recipes: Iterable[str | Path], options: Mapping[str, Any]) -> Section:
    """Settings from recipes, later ones on top, and options on top of those; defaults for the rest.

    Args:
        root: frozen dataclass.
        recipes: files, or names of recipes of the package.
        options: plain values, nested as the settings are.

    Raises:
        ConfigError: a recipe is missing or damaged, a key is unknown, or a value has the wrong type or is out of range.
    """
    parser = _parser_of(cast(Hashable, root))
    merged: dict[str, Any] = {}
    for path in map(find_recipe, map(str, recipes)):
        try:
            merged = laid_over(merged, _checked(parser, root, read_recipe(path)))
        except ConfigError as error:
            where = "" if str(error).startswith(str(path)) else f"{path}: "
            raise ConfigError(f"{where}{error}") from error
    merged = laid_over(merged, _checked(parser, root, options))
    instantiated = parser.instantiate(parser.parse_object(merged))
    return root(**{name: instantiated[name] for name in root.__dataclass_fields__})  # type: ignore[attr-defined]


def options_of(parsed: Namespace, root: type) -> dict[str, Any]:
    """The settings among parsed arguments, as `load_settings` takes them."""
    values = parsed.as_dict()
    return {name: values[name] for name in root.__dataclass_fields__ if name in values}  # type: ignore[attr-defined]


def parse_overrides(root: type, overrides: Sequence[str]) -> dict[str, Any]:
    """Settings as `--section.field=value` arguments, as `load_settings` takes them. Raises ConfigError."""
    return options_of(parse(_parser_of(root), overrides, root, defaults=False), root)


@cache
def _parser_of(root: Hashable) -> ArgumentParser:
    """A parser of nothing but the settings of a dataclass; made once, since it takes a part of a second."""
    parser = new_parser()
    parser.add_class_arguments(cast(type, root), nested_key=None, as_group=False)
    return parser


def _checked(parser: ArgumentParser, root: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of some settings with their types. Raises ConfigError."""
    found = _one_sentence(lambda: parser.parse_object(_with_text_keys(values), defaults=False), root).as_dict()
    _check_values(root, found)
    return found


def _with_text_keys(values: Any) -> Any:
    """YAML takes `3:` for a number, which names no setting but must not end in a traceback."""
    if isinstance(values, Mapping):
        return {str(key): _with_text_keys(value) for key, value in values.items()}
    return values


def _one_sentence(act: Callable[[], Namespace], root: type | None) -> Namespace:
    try:
        with redirect_stderr(io.StringIO()):
            return act()
    except Exception as error:  # jsonargparse raises its own, argparse's and YAML's errors
        raise ConfigError(_sentence(error, root)) from error


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested mappings joined; where both have a value, that of `above`."""
    joined = dict(below)
    for key, value in above.items():
        earlier = joined.get(key)
        both = isinstance(value, Mapping) and isinstance(earlier, Mapping)
        joined[key] = laid_over(earlier, value) if both else value  # type: ignore[arg-type]
    return joined


def _sentence(error: Exception, root: type | None) -> str:
    """What jsonargparse says over several lines about types and groups, in one line about settings."""
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:Group '([^']+)' does not accept option|Option) '([^']+)'", text)
    if unknown:
        return f"there is no setting '{'.'.join(filter(None, unknown.groups()))}'"
    ill_typed = re.fullmatch(r'Parser key "([^"]+)"( element \d+)?: .*(?:Got|Given) value: (.*)', text)
    expected = expected_type(root, ill_typed[1]) if ill_typed and root is not None else ""
    if ill_typed and expected:
        name, of_several, value = ill_typed.groups()
        if of_several:  # an option that takes several words
            expected = f"{expected.removeprefix(LIST)}, several with blanks between them"
        return f"{name} must be {expected}, not {value}"
    return re.sub(r"<class '(\w+)'>", r"\1", re.sub(r'Parser key "([^"]+)":', r"\1:", text))


def expected_type(root: type, key: str) -> str:
    """The type of a setting in words; empty for what is no setting."""
    hint: Any = root
    for name in key.split("."):
        hint = get_type_hints(hint).get(name) if is_dataclass(hint) else None
    return "" if hint is None else _in_words(hint)


def _in_words(hint: Any) -> str:
    """A type as a user would say it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is tuple:
        several = inner[-1] is Ellipsis
        return f"{LIST}{_in_words(inner[0])}" if several else f"a list [{', '.join(map(_in_words, inner))}]"
    return "null" if hint is NoneType else getattr(hint, "__name__", str(hint))


def _check_values(section: Any, values: Mapping[str, Any], name: str = "") -> None:
    """Refuses what types cannot say: null where a value is needed, numbers out of range, no section."""
    for field, hint in get_type_hints(section, include_extras=True).items():
        if field not in values:
            continue
        key, value = f"{name}{field}", values[field]
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} is a section of settings, not {value!r}")
            _check_values(hint, value, f"{key}.")
        elif value is None:
            if NoneType not in get_args(hint):
                raise ConfigError(f"{key} must be {_in_words(get_type_hints(section)[field])}, not null")
        elif not isinstance(value, str):
            fault = next((fault for limits in limits_of(hint) if (fault := limits.fault(value))), "")
            if fault:
                raise ConfigError(f"{key} {fault}")


def limits_of(hint: Any) -> list[Limits]:
    """The limits that stand at a setting, also where it may be something else, such as null."""
    if get_origin(hint) is Annotated:
        return [extra for extra in hint.__metadata__ if isinstance(extra, Limits)]
    return [limits for member in get_args(hint) for limits in limits_of(member)]


class _Dumper(yaml.SafeDumper):
    """Quotes what the reader of recipes, which follows YAML 1.2, would take for a number and PyYAML does not: 1e3."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, '"' if text[:1] in tuple("0123456789.+-") else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def write_settings(path: Path, config: Any) -> None:
    """Writes every setting of a dataclass, defaults included."""
    with atomic_write(path) as file:
        file.write(settings_text(asdict(config)).encode())


@contextmanager
def earlier_settings_kept(path: Path) -> Iterator[None]:
    """Leaves saved settings as they were where a command is refused because of its own."""
    earlier = path.read_bytes() if path.is_file() else b""
    try:
        yield
    except ConfigError:
        if earlier:
            with atomic_write(path) as file:
                file.write(earlier)
        raise


def settings_text(values: Mapping[str, Any]) -> str:
    """Nested settings as the text of a recipe."""
    return yaml.dump(plain_values(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def plain_values(value: Any) -> Any:
    """Tuples as lists, so that settings compare equal after a trip through a file."""
    if isinstance(value, Mapping):
        return {key: plain_values(item) for key, item in value.items()}
    return [plain_values(item) for item in value] if isinstance(value, list | tuple) else value
