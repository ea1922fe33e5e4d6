"""What files were made from: notes, and how a difference is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfc.errors import ConfigError
from sfc.run.origin import (
    NOTE,
    differences,
    note_digest,
    read_note,
    require_file,
    require_inputs,
    require_same,
    write_note,
)

DAMAGE = ["", "{", "\x00", '"text"', "[1]", "[" * 100_000, "nul"]


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


def test_require_same_shortens_long_lists() -> None:
    with pytest.raises(ConfigError, match=r"4 was 4 and is -4 and more\. Choose another run folder"):
        require_same(Path("x"), {str(i): i for i in range(7)}, {str(i): -i for i in range(7)} | {"0": 1})


def test_require_inputs_names_the_folder_and_what_changed() -> None:
    old, new = {"classify": "abc", "images": "d", "gone": "x"}, {"classify": "abd", "images": "d", "fresh": ["y"]}
    words = r"^run/cams was made from something else \(classify, fresh, gone changed since: b\): make it again$"
    with pytest.raises(ConfigError, match=words):
        require_inputs(Path("run/cams"), old, new, "make it again", lambda: ": b")
    require_inputs(Path("run/cams"), old, dict(reversed(old.items())), "")


def test_a_note_survives_a_file(tmp_path: Path) -> None:
    assert read_note(tmp_path / "nothing") is None
    note = {"settings": {"a": {"b": [1.5, None], "ü": "é"}}, "inputs": {"classify": "abc"}, "finished": {"x": 1}}
    write_note(tmp_path / "deep" / "er", note)
    assert read_note(tmp_path / "deep" / "er") == note
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == [NOTE] == ["origin.json"]


@pytest.mark.parametrize("content", [*DAMAGE, "{}", '{"settings": {}}', '{"settings": [], "inputs": {}}'])
def test_a_damaged_note_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTE).write_text(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/origin\.json: damaged; delete {tmp_path} and make its files"):
        read_note(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", None])
def test_a_note_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / NOTE).mkdir()
    else:
        (tmp_path / NOTE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"origin\.json: damaged; delete"):
        read_note(tmp_path)


def test_the_digest_is_that_of_settings_and_inputs_in_any_order() -> None:
    note: dict[str, dict[str, Any]] = {"settings": {"a": 1, "b": {"c": 2, "d": 3}}, "inputs": {"x": "1", "y": "2"}}
    turned = {"inputs": {"y": "2", "x": "1"}, "settings": {"b": {"d": 3, "c": 2}, "a": 1}, "finished": {"z": 1}}
    assert note_digest(note) == note_digest(turned)
    assert len(note_digest(note)) == 64
    others = [
        {**note, "settings": {**note["settings"], "a": 2}},
        {**note, "inputs": {"x": "1"}},
        {"settings": note["inputs"], "inputs": note["settings"]},
    ]
    assert len({note_digest(each) for each in (note, *others)}) == 4


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_settings_are_the_same_after_a_trip_through_a_file(settings: dict[str, Any]) -> None:
    back = json.loads(json.dumps(settings))
    assert differences(settings, back) == []
    empty: dict[str, Any] = {"inputs": {}}
    assert note_digest({"settings": settings, **empty}) == note_digest({"settings": back, **empty})


def test_require_file_compares_the_whole_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "made.json"
    assert not require_file(path, {"a": 1}, "masks")
    path.parent.mkdir()
    path.write_text('{"a": 1, "b": {"c": 2}}')
    assert require_file(path, {"b": {"c": 2}, "a": 1}, "masks")
    advice = "Choose another folder, or delete masks to make its files again$"
    with pytest.raises(ConfigError, match=rf"^{path} was begun with other settings: b\.c was 2 and is 3\. {advice}"):
        require_file(path, {"a": 1, "b": {"c": 3}}, "masks")
    with pytest.raises(ConfigError, match=r"b was \{'c': 2\} and is None"):
        require_file(path, {"a": 1}, "masks")


@pytest.mark.parametrize("content", DAMAGE)
def test_require_file_refuses_a_damaged_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "made.json").write_text(content)
    with pytest.raises(ConfigError):
        require_file(tmp_path / "made.json", {"a": 1}, "masks")
