"""Settings: read strictly, and written whole."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from sfc.config import RunConfig
from sfc.errors import ConfigError
from sfc.run.files import atomic_write

TRAINING = {
    "learning_rate": 0,
    "head_factor": 0,
    "momentum": 0,
    "weight_decay": 0,
    "poly_power": 0,
    "poly_every": 1,
    "warmup": 0,
    "clip": 0,
    "batch": 1,
    "epochs": 1,
    "seed": 0,
    "checkpoint_every": 1,
}
"""The least values of every training's settings."""

LEAST = {
    **{
        f"{stage}.training.{name}": least
        for stage in ("classify", "refine.relation", "segment")
        for name, least in TRAINING.items()
    },
    "data.synthetic_images": 1,
    "data.synthetic_seed": 0,
    "classify.network.trained_from": 0,
    "classify.network.side_channels": 1,
    "classify.loss.prototype_weight": 0,
    "classify.loss.scale_weight": 0,
    "classify.loss.start": 0,
    "classify.bank.draws": 0,
    "classify.training.picture_every": 0,
    "classify.input.long_side": 1,
    "classify.input.crop": 16,
    "classify.input.batch_sizes": 16,
    "localize.scales": 0.01,
    "localize.threshold": 0,
    "refine.seeds.fusion_lambda": 0,
    "refine.seeds.uncertain_background": 0,
    "refine.crf.gt_prob": 0.001,
    "refine.crf.gaussian": 0.001,
    "refine.crf.bilateral": 0.001,
    "refine.crf.iterations": 0,
    "refine.relation.radius": 2,
    "refine.relation.input.scale": 0.01,
    "refine.relation.input.crop": 16,
    "refine.walk.fusion_lambda": 0,
    "refine.walk.radius": 2,
    "refine.walk.beta": 0,
    "refine.walk.steps": 0,
    "refine.walk.tolerance": 0,
    "refine.walk.power": 0,
    "refine.walk.background": 0,
    "segment.network.output_stride": 1,
    "segment.network.atrous_rates": 1,
    "segment.input.scale": 0.01,
    "segment.input.crop": 16,
    "segment.scales": 0.01,
    "segment.bias_factor": 0,
    "segment.accumulate": 1,
    "predict.scales": 0.01,
    "predict.crf.gaussian": 0.001,
    "predict.crf.bilateral": 0.001,
    "predict.crf.iterations": 0,
    "predict.tile": 64,
    "predict.overlap": 0,
    "evaluate.fusion_lambda": 0,
    "machine.devices": 1,
    "machine.nodes": 1,
    "machine.workers": 0,
    "machine.threads": 0,
}
"""The least value of each number (or of each member of a list)."""

RANGES = ("classify.input.long_side", "refine.relation.input.scale", "segment.input.scale")
"""Settings that are a lower and an upper end."""

MOST = {"classify.loss.start": 1, "localize.threshold": 1, "refine.crf.gt_prob": 0.999}
"""The greatest value, where there is one."""


def add_settings(parser: ArgumentParser) -> None:
    """Adds `--config FILE` (several: later ones win) and an option for every setting to a parser."""
    parser.add_argument("--config", action="config", help="recipe (YAML); give it before options that override it")
    parser.add_class_arguments(RunConfig, nested_key=None, as_group=False)


def settings_of(parser: ArgumentParser, parsed: Namespace) -> RunConfig:
    """The settings among parsed arguments.

    Raises:
        ConfigError: a setting is null that must not be, out of range, or a section is no section.
    """
    _check_values(RunConfig, parsed)
    names = RunConfig.__dataclass_fields__
    instantiated = parser.instantiate(parsed)
    config = RunConfig(**{name: instantiated[name] for name in names})
    config.predict.require_tiles()
    return config


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line; whatever is wrong with it becomes one sentence, instead of the usage of every option.

    Args:
        parser: made with `exit_on_error=False`, and so are its subcommands.
        arguments: without the program's name.

    Raises:
        ConfigError: names the option or, where a recipe is at fault, the file and the key.
    """
    try:
        with redirect_stderr(io.StringIO()):
            return parser.parse_args(list(arguments))
    except Exception as error:  # jsonargparse raises its own, argparse's and YAML's errors
        for path in recipes(arguments):
            _check_recipe(path)
        raise ConfigError(_sentence(error)) from error


def recipes(arguments: Sequence[str]) -> list[str]:
    """The files that a command line gives with `--config`."""
    following = [*arguments[1:], ""]
    pairs = zip(arguments, following, strict=False)
    values = [after if name == "--config" else name.partition("=")[2] for name, after in pairs if _is_config(name)]
    return [value for value in values if value]


def _is_config(argument: str) -> bool:
    return argument == "--config" or argument.startswith("--config=")


def load_config(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Settings from files and `--section.field=value` overrides; defaults for the rest.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_settings(parser)
    return settings_of(parser, parse(parser, [*(f"--config={path}" for path in paths), *overrides]))


def _check_recipe(path: str) -> None:
    """Raises a ConfigError that names the file, if it is at fault on its own."""
    if not Path(path).is_file():
        raise ConfigError(f"{path}: there is no such recipe")
    parser = ArgumentParser(exit_on_error=False)
    add_settings(parser)
    try:
        parser.parse_args([f"--config={path}"])
    except Exception as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    """What jsonargparse says over several lines about types and groups, in one line about settings."""
    text = " ".join(str(error).split())
    if text.startswith("Unexpected config:"):
        return "holds no settings"
    unknown = re.search(r"(?:Group '([^']+)' does not accept option|Option) '([^']+)'", text)
    if unknown:
        return f"there is no setting '{'.'.join(filter(None, unknown.groups()))}'"
    ill_typed = re.fullmatch(r'Parser key "([^"]+)": .*(?:Got|Given) value: (.*)', text)
    expected = _expected(ill_typed[1]) if ill_typed else ""
    if ill_typed and expected:
        return f"{ill_typed[1]} must be {expected}, not {ill_typed[2]}"
    return re.sub(r"<class '(\w+)'>", r"\1", re.sub(r'Parser key "([^"]+)":', r"\1:", text))


def _expected(key: str) -> str:
    """The type of a setting in words; empty for what is no setting."""
    hint: Any = RunConfig
    for name in key.split("."):
        hint = get_type_hints(hint).get(name) if is_dataclass(hint) else None
    if hint is None:
        return ""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return hint.__name__ if hint in {bool, int, float, str} else str(hint)


def _check_values(section: Any, values: Any, name: str = "") -> None:
    """Refuses what types cannot say: null where a value is needed, numbers out of range."""
    for field, hint in get_type_hints(section).items():
        key, value = f"{name}{field}", values[field]
        if is_dataclass(hint):
            if not isinstance(value, Namespace):
                raise ConfigError(f"{key} is a section of settings, not {value!r}")
            _check_values(hint, value, f"{key}.")
        elif value is None:
            if NoneType not in get_args(hint):
                raise ConfigError(f"{key} must be {_expected(key)}, not null")
        elif key in LEAST:
            _check_range(key, value if isinstance(value, list | tuple) else [value])


def _check_range(key: str, numbers: Sequence[float]) -> None:
    if not numbers and key != "classify.input.batch_sizes":
        raise ConfigError(f"{key} must not be empty")
    if not all(number >= LEAST[key] for number in numbers):
        raise ConfigError(f"{key} must be at least {LEAST[key]:g}, not {', '.join(map(str, numbers))}")
    if not all(number <= MOST.get(key, number) for number in numbers):
        raise ConfigError(f"{key} must be at most {MOST[key]:g}, not {', '.join(map(str, numbers))}")
    if key in RANGES and numbers[0] > numbers[1]:
        raise ConfigError(f"{key} is a range, from {numbers[0]} to {numbers[1]}: put the smaller number first")


class _Dumper(yaml.SafeDumper):
    """Quotes what the reader of recipes, which follows YAML 1.2, would take for a number and PyYAML does not: 1e3."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, '"' if text[:1] in tuple("0123456789.+-") else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def write_config(path: Path, config: RunConfig) -> None:
    """Writes every setting, defaults included."""
    text = yaml.dump(plain_values(asdict(config)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def read_plain(path: Path) -> dict[str, Any]:
    """What `write_config` wrote, as plain values: an older version's settings need not fit this one's.

    Raises:
        ConfigError: the file cannot be read or is damaged.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: the saved settings cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no settings")
    return content


def plain_values(value: Any) -> Any:
    """Tuples as lists, so that settings compare equal after a trip through a file."""
    if isinstance(value, Mapping):
        return {key: plain_values(item) for key, item in value.items()}
    return [plain_values(item) for item in value] if isinstance(value, list | tuple) else value
