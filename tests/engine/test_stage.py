"""The driver of stages, on a toy: what is done is skipped, and what was made from something else is never used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric

from sfc.engine.stage import (
    Artifact,
    Job,
    Stage,
    claim,
    drive,
    each_missing,
    finish_training,
    refuse_changed_settings,
    register,
)
from sfc.errors import ConfigError, SFCError
from sfc.run.folder import SystemFolder


@dataclass(frozen=True)
class Toy:
    """Settings of three stages: a plant grows from soil, gets leaves, and the leaves become tea."""

    water: int = 1
    light: str = "sun"
    leaves: int = 3
    kinds: tuple[str, ...] = ("green",)
    soil: str = "loam"


@dataclass
class Works:
    """The stages, and which of them worked."""

    done: list[str] = field(default_factory=list)
    stop_in: str = ""

    def grow(self, job: Job) -> None:
        self._enter("grow")
        self._stop("seed")
        path = job.path("plant") / "checkpoint.pt"
        path.write_text(f"{job.config.water} {job.config.soil}")
        self._stop("plant")
        finish_training(job, "plant", {"height": 3})

    def pick(self, job: Job) -> None:
        self._enter("pick")
        for path in leaf_paths(job):
            if not path.exists():
                path.write_text("leaf")
                self._stop(path.stem)

    def brew(self, job: Job) -> None:
        """Leaves are dried first, in a folder of their own; each kind of tea is made from those."""
        self._enter("brew")
        for name in ("leaves/dry", *(f"tea/{kind}" for kind in job.config.kinds)):
            claim(job, name)
            (job.path(name) / "file").write_text(name)

    def taste(self, _: Job) -> None:
        self._enter("taste")

    def _enter(self, name: str) -> None:
        self.done.append(name)

    def _stop(self, name: str) -> None:
        if self.stop_in == name:
            raise SFCError(f"stopped in {name}")

    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage("grow", "grow the plant", ("grow",), self.grow, _plant, writes=lambda _: ["plant"]),
            Stage("pick", "pick leaves", ("pick",), self.pick, _fresh, lambda _: ["plant"], lambda _: ["leaves/fresh"]),
            Stage("brew", "brew tea", (), self.brew, _tea, lambda _: ["leaves/fresh"], _cups),
            Stage("taste", "taste tea", (), self.taste, reads=lambda job: [f"tea/{kind}" for kind in job.config.kinds]),
        )


def leaf_paths(job: Job) -> list[Path]:
    return [job.path("leaves/fresh") / f"leaf{number}.txt" for number in range(job.config.leaves)]


def _plant(job: Job) -> list[Artifact]:
    def facts() -> Mapping[str, Any]:
        return {"soil": job.config.soil}

    settings = {"grow": {"water": job.config.water, "light": job.config.light}}
    return [Artifact("plant", "grown plant", settings, facts=facts, advice="repot it", is_training=True)]


def _fresh(job: Job) -> list[Artifact]:
    settings = {"pick": {"leaves": job.config.leaves}}
    missing = lambda: each_missing(iter(leaf_paths(job)))  # noqa: E731
    return [Artifact("leaves/fresh", "fresh leaves", settings, inputs=("plant",), missing=missing)]


def _tea(job: Job) -> list[Artifact]:
    def made(name: str, what: str, inputs: tuple[str, ...]) -> Artifact:
        return Artifact(name, what, {}, inputs, missing=lambda: each_missing(iter([job.path(name) / "file"])))

    teas = [made(f"tea/{kind}", f"{kind} tea", ("leaves/dry",)) for kind in ("green", "black")]
    return [made("leaves/dry", "dry leaves", ("leaves/fresh",)), *teas]


def _cups(job: Job) -> list[str]:
    return ["leaves/dry", *(f"tea/{kind}" for kind in job.config.kinds)]


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def go(fabric: Fabric, tmp_path: Path) -> Callable[..., list[str]]:
    """Does what a command does with some stages and settings; which of them worked."""

    def command(*names: str, config: Toy | None = None, stop_in: str = "") -> list[str]:
        works = Works(stop_in=stop_in)
        job = Job(fabric, config or Toy(), SystemFolder(tmp_path / "toy"), "Toy")
        register(job, works.stages())
        chosen = [stage for stage in works.stages() if stage.name in names]
        refuse_changed_settings(job, chosen)
        for stage in chosen:
            drive(job, stage)
        return works.done

    return command


EVERYTHING = ("grow", "pick", "brew", "taste")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def note(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "origin.json").read_text())
    return content


def test_what_is_done_is_skipped_and_what_only_reads_is_not(
    go: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(*EVERYTHING) == ["grow", "pick", "brew", "taste"]
    assert capsys.readouterr().err.splitlines() == [
        "Toy: grow: grow the plant",
        "Toy: pick: pick leaves",
        "Toy: brew: brew tea",
        "Toy: taste: taste tea",
    ]
    before = snapshot(tmp_path)
    assert go(*EVERYTHING) == ["taste"]
    assert snapshot(tmp_path) == before
    assert capsys.readouterr().err.splitlines()[:2] == ["Toy: grow: already there", "Toy: pick: already there"]


def test_the_notes_say_settings_and_inputs(go: Callable[..., list[str]], tmp_path: Path) -> None:
    go(*EVERYTHING)
    plant, fresh = note(tmp_path / "toy/plant"), note(tmp_path / "toy/leaves/fresh")
    assert plant == {
        "settings": {"grow": {"water": 1, "light": "sun"}},
        "inputs": {"soil": "loam"},
        "finished": {"height": 3},
    }
    assert fresh["settings"] == {"pick": {"leaves": 3}}
    assert fresh["inputs"].keys() == {"plant"}
    assert note(tmp_path / "toy/tea/green")["inputs"].keys() == {"leaves/dry"}


def test_a_stopped_stage_goes_on_and_the_rest_of_its_work_is_done(go: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(SFCError, match="stopped in plant"):
        go("grow", stop_in="plant")
    # The note was there before the files, so that no other settings go on with them.
    assert "finished" not in note(tmp_path / "toy/plant")
    with pytest.raises(ConfigError, match="toy/plant: the training of the grown plant is not finished; run `sfc grow`"):
        go("pick")
    assert go("grow") == ["grow"]
    with pytest.raises(SFCError, match="stopped in leaf1"):
        go("pick", stop_in="leaf1")
    before = snapshot(tmp_path / "toy/leaves")
    with pytest.raises(ConfigError, match=r"leaf2\.txt: no such file \(fresh leaves\); run `sfc pi"):
        go("brew")
    assert go("pick") == ["pick"]
    assert snapshot(tmp_path / "toy/leaves").items() > before.items()


def test_a_new_artifact_of_a_stage_does_not_touch_the_others(go: Callable[..., list[str]], tmp_path: Path) -> None:
    go(*EVERYTHING)
    before = snapshot(tmp_path / "toy/tea/green")
    assert go("brew", config=Toy(kinds=("black",))) == ["brew"]
    assert snapshot(tmp_path / "toy/tea/green") == before
    assert (tmp_path / "toy/tea/black/file").is_file()


def test_changed_settings_are_refused_and_all_named_before_anything_is_touched(
    go: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(*EVERYTHING)
    capsys.readouterr()
    before = snapshot(tmp_path)
    words = (
        r"toy/plant/origin\.json was begun with other settings: grow\.water was 1 and is 2; grow\.light was 'sun' and"
    )
    for stages in (("grow",), ("pick",), EVERYTHING):
        with pytest.raises(ConfigError, match=words):
            go(*stages, config=Toy(water=2, light="lamp"))
    # The last of the stages is the one at fault: none before it works.
    for leaf in (tmp_path / "toy/leaves/fresh").glob("*.txt"):
        leaf.unlink()
    (tmp_path / "toy/plant/checkpoint.pt").unlink()
    before = snapshot(tmp_path)
    with pytest.raises(
        ConfigError, match=r"leaves/fresh/origin\.json was begun .*: pick\.leaves was 3 and is 4\. Choose"
    ):
        go("grow", "pick", config=Toy(leaves=4))
    assert snapshot(tmp_path) == before
    assert capsys.readouterr().err == ""


def test_settings_of_stages_that_take_no_part_are_free(go: Callable[..., list[str]]) -> None:
    go("grow", "pick")
    assert go("grow", config=Toy(leaves=4)) == []


def test_what_was_made_from_something_else_is_refused_and_names_it(
    go: Callable[..., list[str]], tmp_path: Path
) -> None:
    go(*EVERYTHING)
    (tmp_path / "toy/plant/checkpoint.pt").write_text("another plant")
    before = snapshot(tmp_path)
    words = (
        r"toy/leaves/fresh was made from something else \(plant changed since\): delete it to make it again, or choose"
    )
    for stage in ("pick", "brew", "taste"):
        with pytest.raises(ConfigError, match=words):
            go(stage)
    assert go("grow") == []
    assert snapshot(tmp_path) == before
    # Made anew, it fits; what was made from the old one still does not.
    for path in (tmp_path / "toy/leaves/fresh").iterdir():
        path.unlink()
    assert go("pick") == ["pick"]
    with pytest.raises(
        ConfigError, match=r"toy/leaves/dry was made from something else \(leaves/fresh changed since\)"
    ):
        go("brew")


def test_other_data_is_refused_and_named(go: Callable[..., list[str]]) -> None:
    go(*EVERYTHING)
    for stage in EVERYTHING:
        with pytest.raises(
            ConfigError, match=r"toy/plant was made from something else \(soil changed since\): repot it"
        ):
            go(stage, config=Toy(soil="sand"))


def test_a_training_without_a_checkpoint_binds_nobody(go: Callable[..., list[str]], tmp_path: Path) -> None:
    """Whoever mended a file, a tag or a setting after the first fault goes on."""
    with pytest.raises(SFCError, match="stopped in seed"):
        go("grow", stop_in="seed")
    other = Toy(soil="sand", water=2)
    assert go("grow", "pick", config=other) == ["grow", "pick"]
    assert note(tmp_path / "toy/plant")["inputs"] == {"soil": "sand"}
    with pytest.raises(ConfigError, match="soil changed since"):
        go("grow", config=Toy(water=2))


def test_an_unfinished_training_of_other_data_can_only_begin_again(go: Callable[..., list[str]]) -> None:
    with pytest.raises(SFCError, match="stopped in plant"):
        go("grow", stop_in="plant")
    with pytest.raises(ConfigError, match=r"toy/plant .*\(soil changed since\): delete it to make it again"):
        go("grow", config=Toy(soil="sand"))


@pytest.mark.parametrize(
    ("lost", "stage", "words"),
    [
        ((), "pick", "plant: no grown plant; run `sfc grow` first"),
        ((), "brew", "plant: no grown plant; run `sfc grow` first"),
        ((), "taste", "leaves/dry: no dry leaves; run `sfc brew` first"),
        (("grow",), "brew", "leaves/fresh: no fresh leaves; run `sfc pick` first"),
        (("grow", "pick"), "taste", "leaves/dry: no dry leaves; run `sfc brew` first"),
    ],
)
def test_a_missing_input_names_the_stage_to_run(
    go: Callable[..., list[str]], lost: tuple[str, ...], stage: str, words: str
) -> None:
    """Of the artifact that is not there, be it only an input of the one that is needed."""
    go(*lost)
    with pytest.raises(ConfigError, match=rf"toy/{words}$"):
        go(stage)


def test_weights_that_are_gone_are_trained_again(go: Callable[..., list[str]], tmp_path: Path) -> None:
    go("grow")
    (tmp_path / "toy/plant/checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match="the training of the grown plant is not finished; run `sfc grow` first"):
        go("pick")
    assert go("grow", "pick") == ["grow", "pick"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"settings": {}}', '{"settings": 3, "inputs": {}}'])
@pytest.mark.parametrize("stage", ["grow", "pick"])
def test_a_damaged_note_is_named(go: Callable[..., list[str]], tmp_path: Path, content: str, stage: str) -> None:
    go("grow")
    folder = tmp_path / "toy/plant"
    (folder / "origin.json").write_text(content)
    before = snapshot(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"^{folder}/origin\.json: damaged; delete {folder} and make its files again$"
    ):
        go(stage)
    assert snapshot(tmp_path) == before


def test_weights_that_change_are_seen_by_a_job_that_knew_them(fabric: Fabric, tmp_path: Path) -> None:
    job = Job(fabric, Toy(), SystemFolder(tmp_path), "Toy")
    register(job, Works().stages())
    assert job.digest("plant") == ""
    (tmp_path / "plant").mkdir()
    found = set()
    for content in ("a", "bc", "def"):
        (tmp_path / "plant/checkpoint.pt").write_text(content)
        found.add(job.digest("plant"))
    assert len(found) == 3
    # Files are known by what they were made from.
    leaves = job.digest("leaves/fresh")
    job.artifacts["leaves/fresh"] = replace(job.artifacts["leaves/fresh"], settings={"pick": {"leaves": 9}})
    assert job.digest("leaves/fresh") != leaves


def test_once_is_once(fabric: Fabric, tmp_path: Path) -> None:
    job, numbers = Job(fabric, Toy(), SystemFolder(tmp_path), "Toy"), iter(range(5, 9))
    assert [job.once("x", lambda: next(numbers)) for _ in range(3)] == [5, 5, 5]
    assert job.once("y", lambda: None) is None


def test_artifacts_know_the_stage_that_makes_them(fabric: Fabric, tmp_path: Path) -> None:
    job = Job(fabric, Toy(), SystemFolder(tmp_path), "Toy")
    register(job, Works().stages())
    assert {name: artifact.made_by for name, artifact in job.artifacts.items()} == {
        "plant": "grow",
        "leaves/fresh": "pick",
        "leaves/dry": "brew",
        "tea/green": "brew",
        "tea/black": "brew",
    }


def test_what_a_stage_makes_depends_on_the_settings_that_it_declares_alone(fabric: Fabric, tmp_path: Path) -> None:
    grow, pick, *_ = Works().stages()
    job = Job(fabric, Toy(), SystemFolder(tmp_path / "toy"), "Toy")
    register(job, (grow, pick))
    assert {name: artifact.made_by for name, artifact in job.artifacts.items()} == {
        "plant": "grow",
        "leaves/fresh": "pick",
    }
    with pytest.raises(ValueError, match="leaves/fresh depends on settings that the stage pick does not declare"):
        register(job, (grow, replace(pick, sections=("grow",))))
