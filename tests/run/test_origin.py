"""What may not change once work has begun, and how a difference is told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from sfc.config import RunConfig
from sfc.errors import ConfigError
from sfc.refine.relation.config import RelationConfig
from sfc.run.origin import differences, require_same
from sfc.settings.read import plain_values


def test_require_same_names_the_file_and_every_difference() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": "x", "gone": 3}
    new = {"a": {"b": 2, "c": [1, 2]}, "d": "x", "fresh": {"e": 5}}
    assert differences(old, new) == [
        "a.b was 1 and is 2",
        "gone was 3 and is None",
        "fresh was None and is {'e': 5}",
    ]
    with pytest.raises(ConfigError, match=r"^run/x\.pt was begun with other settings: a\.b was 1 and is 2; gone"):
        require_same(Path("run/x.pt"), old, new)
    require_same(Path("run/x.pt"), old, dict(reversed(old.items())))


def test_a_setting_that_earlier_work_did_not_know_may_have_its_default() -> None:
    new = plain_values(asdict(RunConfig()))
    old = plain_values(asdict(RunConfig()))
    del old["predict"], old["segment"]["training"]["poly_every"], old["classify"]["network"]["consistency_gradient"]
    require_same(Path("config.yaml"), old, new)
    relation = {"relation": plain_values(asdict(RelationConfig()))}
    earlier = {"relation": {name: value for name, value in relation["relation"].items() if name != "radius"}}
    require_same(Path("masks.json"), earlier, relation)
    new["segment"]["training"]["poly_every"] = 7
    with pytest.raises(ConfigError, match=r"segment\.training\.poly_every was None and is 7\."):
        require_same(Path("config.yaml"), old, new)
    # What earlier work knew counts whatever it was.
    old["classify"]["network"]["consistency_gradient"] = 0.5
    new["segment"]["training"]["poly_every"] = 1
    with pytest.raises(ConfigError, match=r"consistency_gradient was 0\.5 and is 1\.0"):
        require_same(Path("config.yaml"), old, new)


def test_require_same_shortens_long_lists() -> None:
    with pytest.raises(ConfigError, match=r"4 was 4 and is -4 and more\. Choose another run folder"):
        require_same(Path("x"), {str(i): i for i in range(7)}, {str(i): -i for i in range(7)} | {"0": 1})
