"""Settings: recipes, strictness, overrides, the trip through a file, the baseline, and naming what changed."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfc.classify.config import NetworkConfig
from sfc.config import RunConfig, load_config
from sfc.data.readers import DataSection
from sfc.data.readers.table import TableSettings
from sfc.errors import ConfigError
from sfc.settings.limits import Limits
from sfc.settings.read import limits_of, plain_values, write_settings
from sfc.settings.recipes import built_in_recipes
from sfc.settings.shared import MachineConfig

RECIPES = [recipe.path for recipe in built_in_recipes()]


def limited(section: type, name: str = "") -> dict[str, Limits]:
    """The limits of every setting that has some, by its dotted name."""
    found = {}
    for key, hint in get_type_hints(section, include_extras=True).items():
        path = f"{name}{key}"
        if is_dataclass(hint):
            found |= limited(hint, f"{path}.")
        elif limits_of(hint):
            found[path] = limits_of(hint)[0]
    return found


LIMITED = limited(RunConfig)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}" if name else key).items()}


def refusal(path: Path | None, *overrides: str) -> str:
    """The message of a refusal, which is one sentence on one line."""
    with pytest.raises(ConfigError) as caught:
        load_config([] if path is None else [path], overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert "usage" not in message
    return message


def recipe(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_only_what_differs(path: Path) -> None:
    config = flat(plain_values(asdict(load_config([path]))))
    default = flat(plain_values(asdict(RunConfig())))
    said = flat(yaml.safe_load(path.read_text()))
    assert all(config[name] == value for name, value in said.items())
    assert {name for name in config if config[name] != default[name]} <= said.keys()


def test_there_are_recipes() -> None:
    assert {"voc12", "coco14", "camvid", "ccp", "synthetic", "paper"} <= {path.stem for path in RECIPES}


def test_no_recipe_and_no_override_gives_the_defaults() -> None:
    assert load_config([]) == RunConfig()


def test_later_recipes_and_overrides_win(tmp_path: Path) -> None:
    first = recipe(tmp_path, "seed: 1\nclassify:\n  training:\n    epochs: 3\n    batch: 7\n", "1.yaml")
    second = recipe(tmp_path, "seed: 2\nclassify:\n  training:\n    epochs: 4\n", "2.yaml")
    config = load_config([first, second], ["--classify.training.epochs=5", "--data.root=elsewhere"])
    assert (config.seed, config.data.root) == (2, "elsewhere")
    assert (config.classify.training.epochs, config.classify.training.batch) == (5, 7)
    assert config.classify.loss == RunConfig().classify.loss


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bogus: 3", "there is no setting 'bogus'"),
        ("classify:\n  training:\n    epocs: 3", "there is no setting 'classify.training.epocs'"),
        ("classify:\n  training:\n    epochs: many", "classify.training.epochs must be int, not many"),
        ("classify:\n  training:\n    epochs: 3.5", "classify.training.epochs must be int, not 3.5"),
        ("data:\n  format: xml", "data.format must be table or voc or coco or folders or synthetic, not xml"),
        ("methods: [cam, cma]", "methods must be"),
        ("data:\n  voc:\n    difficult: true", "there is no setting 'data.voc.difficult'"),
        ("classify:\n  loss:\n    coefficient: on", "classify.loss.coefficient must be off or exact or official"),
        ("classify:\n  input:\n    long_side: [1, 2, 3]", "classify.input.long_side must be a list [int, int] or null"),
        ("localize:\n  scales: 1.0", "localize.scales must be a list such as [A, B], of float, not 1.0"),
        ("classify: [", "cannot be read as YAML"),
        ("[1, 2]", "holds no settings"),
        ("", "holds no settings"),
        ("a: !!python/object/apply:os.system ['exit']", "could not determine a constructor"),
    ],
)
def test_a_faulty_recipe_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    path = recipe(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert words in message


def test_a_recipe_that_is_missing_no_file_or_no_text(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "none.yaml")
    assert missing.startswith(f"{tmp_path / 'none.yaml'}: there is no such recipe: neither a file nor one of camvid, ")
    assert refusal(tmp_path).startswith(f"{tmp_path}: there is no such recipe")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path / "binary.yaml").startswith(f"{tmp_path / 'binary.yaml'}: ")


def test_recipes_are_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(["synthetic"]).data.format == "synthetic"
    assert load_config(["voc12", "paper"]).methods == ("sfc-paper",)
    # A file of that name in this folder is meant rather than the package's recipe.
    recipe(tmp_path, "seed: 77", "synthetic")
    assert load_config(["synthetic"]).seed == 77


def test_every_recipe_says_what_it_is() -> None:
    for each in built_in_recipes():
        assert each.text.endswith("."), each.name
        assert len(each.text) > 20


def test_the_faulty_one_of_several_recipes_is_named(tmp_path: Path) -> None:
    good, bad = recipe(tmp_path, "seed: 1", "good.yaml"), recipe(tmp_path, "sead: 1", "bad.yaml")
    with pytest.raises(ConfigError, match=r"bad\.yaml: there is no setting 'sead'"):
        load_config([good, bad, good])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--bogus=3", "--bogus=3"),
        ("--classify.training.epochs=many", "classify.training.epochs must be int, not many"),
        ("--classify.training.epochs=null", "classify.training.epochs must be int"),
        ("--classify.input.long_side=[640,320]", "put the smaller number first"),
        ("--localize.scales=[]", "localize.scales must not be empty"),
        ("--localize.scales=[1,.nan]", "localize.scales must be at least 0.01, not 1.0, nan"),
    ],
)
def test_faulty_overrides(override: str, words: str) -> None:
    assert words in refusal(None, override)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classify:\n  training: 3", "{path}: classify.training is a section of settings, not 3"),
        ("classify:\n  training:\n    epochs: null", "{path}: classify.training.epochs must be int, not null"),
    ],
)
def test_what_types_alone_let_through(tmp_path: Path, text: str, words: str) -> None:
    path = recipe(tmp_path, text)
    assert refusal(path) == words.format(path=path)


@pytest.mark.parametrize("name", LIMITED)
def test_numbers_out_of_range(name: str) -> None:
    default, limits = flat(plain_values(asdict(RunConfig())))[name], LIMITED[name]
    several = isinstance(default, list)

    def given(value: float) -> str:
        return refusal(None, f"--{name}={[value] * max(1, len(default)) if several else value}")

    assert f"{name} must be at least {limits.least:g}" in given(-1)
    if limits.most < 1e9:
        assert f"{name} must be at most {limits.most:g}" in given(limits.most + 1)


def test_there_are_not_too_many_settings_and_those_that_need_limits_have_them() -> None:
    default = flat(plain_values(asdict(RunConfig())))
    assert len(default) <= 88
    numbers = {
        name
        for name, value in default.items()
        if type(value) in (int, float) or (isinstance(value, list) and value and type(value[0]) in (int, float))
    }
    assert numbers <= LIMITED.keys() | {"segment.network.output_stride"}  # one of three


def test_a_range_is_given_from_its_smaller_end() -> None:
    assert "put the smaller number first" in refusal(None, "--refine.irn.input.scale=[1.5, 0.5]")


@pytest.mark.parametrize("name", ["1e3", "0e0", ".5", "-", "+1", "0x1f"])
def test_names_that_look_like_numbers_stay_names(tmp_path: Path, name: str) -> None:
    config = RunConfig(data=replace(DataSection(), train=name))
    write_settings(tmp_path / "config.yaml", config)
    assert load_config([tmp_path / "config.yaml"]).data.train == name


def test_defaults_lie_within_the_limits() -> None:
    default = flat(plain_values(asdict(RunConfig())))
    faults = [
        limits.fault(default[name]) for name, limits in LIMITED.items() if not isinstance(default[name], str | None)
    ]
    assert len(faults) > 40
    assert not any(faults)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=TEXTS | st.sampled_from(["null", "3", "true", "1e-3", "- a", "[x]", "a: b", "#", "off"]),
    seed=st.integers(0, 2**31),
    rate=st.floats(1e-12, 1e6),
    threshold=st.none() | st.floats(0, 1),
    sides=st.none() | st.tuples(st.integers(1, 640), st.integers(640, 900)),
    sizes=st.lists(st.integers(16, 999), max_size=3),
    coefficient=st.sampled_from(["off", "exact", "official"]),
)
def test_round_trip_through_a_file(
    tmp_path: Path,
    name: str,
    seed: int,
    rate: float,
    threshold: float | None,
    sides: tuple[int, int] | None,
    sizes: list[int],
    coefficient: Any,
) -> None:
    data: Any = DataSection(table=TableSettings(label_separator=name))  # type: ignore[call-arg]
    config = RunConfig(seed=seed, methods=("sfc",), data=data)
    classify = replace(
        config.classify,
        network=NetworkConfig(seed_threshold=threshold, weights=name),
        loss=replace(config.classify.loss, coefficient=coefficient),
        input=replace(config.classify.input, long_side=sides, batch_sizes=tuple(sizes)),
        training=replace(config.classify.training, learning_rate=rate),
    )
    config = replace(config, classify=classify, machine=MachineConfig(threads=1))
    write_settings(tmp_path / "config.yaml", config)
    assert load_config([tmp_path / "config.yaml"]) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_round_trip_of_recipes(tmp_path: Path, path: Path) -> None:
    config = load_config([path])
    write_settings(tmp_path / "config.yaml", config)
    assert load_config([tmp_path / "config.yaml"]) == config
    assert flat(yaml.safe_load((tmp_path / "config.yaml").read_text())).keys() == flat(asdict(config)).keys()


def test_every_setting_is_documented() -> None:
    """A setting without a word in its section's docstring cannot be used by anyone else."""

    def undocumented(section: type) -> list[str]:
        own = [f.name for f in fields(section) if not is_dataclass(get_type_hints(section)[f.name])]
        words = "".join(parent.__doc__ or "" for parent in section.__mro__)
        missing = [f"{section.__name__}.{name}" for name in own if f"{name}:" not in words]
        nested = [hint for hint in get_type_hints(section).values() if is_dataclass(hint)]
        return missing + [name for inner in nested for name in undocumented(inner)]

    assert undocumented(RunConfig) == []
