"""Methods by name: what each changes, and what all share."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sfc.classify.losses import LOSSES
from sfc.cli import main
from sfc.config import RunConfig, load_config
from sfc.errors import ConfigError
from sfc.methods import METHODS
from sfc.settings.read import plain_values
from sfc.settings.recipes import built_in_recipes

RECIPES = [recipe.name for recipe in built_in_recipes()]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}" if name else key).items()}


def values(config: RunConfig) -> dict[str, Any]:
    return flat(plain_values(asdict(config)))


def changes(config: RunConfig, method: str) -> dict[str, Any]:
    before, after = values(config), values(config.of_method(method))
    return {name: after[name] for name in after if before[name] != after[name]}


def test_the_methods_are_these() -> None:
    assert list(METHODS) == ["cam", "cam-half", "cam-competing", "sfc", "sfc-released", "sfc-paper"]
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("half", [False, True])
def test_cam_switches_off_every_part_and_nothing_else(recipe: str, half: bool) -> None:
    config = load_config([recipe], ["--classify.network.pixel_correlation=true"])
    before, changed = values(config), changes(config, "cam-half" if half else "cam")
    after = values(config.of_method("cam"))
    # What acts through those parts alone is the same in every baseline.
    alone = (
        ("classify.network.consistency_gradient", 1.0),
        ("classify.loss.coefficient", "off"),
        ("classify.loss.start", 0.0),
    )
    for name, value in alone:
        assert after[name] == value
        changed.pop(name, None)
    assert changed == {
        "classify.network.pixel_correlation": False,
        **{f"classify.loss.{name}.weight": 0.0 for name in LOSSES if before[f"classify.loss.{name}.weight"]},
        **({"classify.network.prototypes": "cosine"} if before["classify.network.prototypes"] != "cosine" else {}),
        **({} if half == before["classify.loss.half_size_pass"] else {"classify.loss.half_size_pass": half}),
        **({"classify.bank_draws": 0} if before["classify.bank_draws"] else {}),
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_plain_cam_with_competing_prototypes_differs_from_plain_cam_in_those_alone(recipe: str) -> None:
    config = load_config([recipe])
    plain, competing = values(config.of_method("cam")), values(config.of_method("cam-competing"))
    assert {name for name in plain if plain[name] != competing[name]} == {"classify.network.prototypes"}
    assert competing["classify.network.prototypes"] == "competing"


def test_recipes_for_photographs_share_what_was_measured() -> None:
    """The classifier of voc_animals, but for its length."""
    measured, other = values(load_config(["voc_animals"])), values(load_config(["ccp"]))
    differ = {name for name in other if name.startswith("classify.") and other[name] != measured[name]}
    assert differ == {"classify.training.epochs"}
    assert other["segment.network.weights"] == measured["segment.network.weights"]


def test_sfc_is_what_the_settings_say() -> None:
    config = load_config(["camvid"])
    assert config.of_method("sfc") == config


def test_released_and_paper_have_their_arithmetic_whatever_the_recipe_says() -> None:
    loose = load_config(["camvid"], ["--classify.loss.scale.weight=3", "--classify.bank_draws=9"])
    released, paper = loose.of_method("sfc-released"), loose.of_method("sfc-paper")
    for config in (released, paper):
        loss = plain_values(asdict(config.classify.loss))
        assert (loss["prototype"], loss["scale"]) == ({"weight": 1.6}, {"weight": 0.8})
        assert (loss["half_size_pass"], config.classify.bank_draws) == (True, 4)
        assert (config.classify.network.centre_features, config.classify.network.consistency_gradient) == (False, 1.0)
        # Budget and network are those of every other method.
        assert config.classify.training == loose.classify.training
        assert config.classify.input == loose.classify.input
        assert config.classify.network.backbone == "compact"
    assert (released.classify.network.pixel_correlation, paper.classify.network.pixel_correlation) == (True, False)
    assert (released.classify.network.seed_threshold, paper.classify.network.seed_threshold) == (None, 0.5)
    assert (released.classify.loss.coefficient, paper.classify.loss.coefficient) == ("official", "exact")
    assert (released.refine.label_lambda, released.refine.walk_lambda, released.refine.scored_lambda) == (0.7, 0.3, 1)
    assert (paper.refine.label_lambda, paper.refine.walk_lambda, paper.refine.scored_lambda) == (1, 1, 1)


def test_voc12_is_the_released_code_with_and_without_its_name() -> None:
    """The defaults are the released arithmetic but for the coefficient, which is VOC's there."""
    config = load_config(["voc12"])
    assert config.methods == ("sfc-released",)
    assert replace(config, methods=()) == replace(config.of_method("sfc-released"), methods=())


def test_the_compact_network_has_no_weights_to_start_from() -> None:
    for section in ("classify", "segment"):
        overrides = [f"--{section}.network.backbone=compact", f"--{section}.network.weights=x.pth"]
        with pytest.raises(ConfigError, match=f"{section}.network.weights is 'x.pth', but"):
            load_config([], overrides)


def test_methods_are_refused_twice_unknown_or_missing() -> None:
    with pytest.raises(ConfigError, match="methods names cam twice"):
        load_config([], ["--methods=[cam, sfc, cam]"])
    with pytest.raises(ConfigError, match="methods must name at least one of cam, cam-half, cam-competing, sfc"):
        load_config([], ["--methods=[]"])
    with pytest.raises(ConfigError, match="methods"):
        load_config([], ["--methods=[sfx]"])


@pytest.mark.parametrize("name", ["[cam]", "cam,sfc", "cma"])
def test_what_is_no_name_on_the_command_line_is_told_how_names_are_given(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", "--config", "synthetic", "--methods", name, "--run", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert said.startswith(
        "sfc: methods must be cam or cam-half or cam-competing or sfc or sfc-released or sfc-paper, "
    )
    assert "several with blanks between them, not " in said
    assert not (tmp_path / "run").exists()
