"""The CAM stage: every image once, whatever stops it; whose CAMs a folder holds; what the files contain."""

from __future__ import annotations

import hashlib
import json
import resource
import threading
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sfc.localize.stage as stage
from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.classify.train import build_network
from sfc.config import load_config
from sfc.data.images import PngMask, read_image
from sfc.data.pixels import normalise
from sfc.data.readers.read import read_dataset
from sfc.data.records import DataSet, Record
from sfc.engine.image_work import one_image_a_thread
from sfc.errors import ConfigError, SFCError
from sfc.localize.config import LocalizeConfig
from sfc.localize.store import ERROR, cam_path, load_cams
from sfc.run.files import file_hash
from sfc.settings.shared import MachineConfig

CONFIG = LocalizeConfig(scales=(1.0, 0.5))
MACHINE = MachineConfig(accelerator="cpu", threads=1)


class Processes:
    """So many processes that meet at a barrier, each a thread here."""

    def __init__(self, count: int = 1) -> None:
        self.meeting = threading.Barrier(count)
        self.sums = [0] * count
        self.members = [Process(self, rank) for rank in range(count)]


class Process:
    """What the stage asks of a Fabric."""

    device = torch.device("cpu")

    def __init__(self, group: Processes, rank: int) -> None:
        self.group, self.global_rank, self.world_size = group, rank, len(group.sums)
        self.is_global_zero = rank == 0

    def barrier(self) -> None:
        self.group.meeting.wait(timeout=60)

    def all_reduce(self, value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        self.group.sums[self.global_rank] = int(value)
        self.barrier()
        return torch.tensor(sum(self.group.sums))


@pytest.fixture(scope="module")
def net(recipe: Path) -> SFCNetwork:
    torch.manual_seed(3)
    return build_network(load_config([recipe]).classify.network, 3).eval()


@pytest.fixture
def data(recipe: Path) -> DataSet:
    return read_dataset(load_config([recipe]).data, "train")


def localize(
    net: SFCNetwork,
    data: DataSet,
    folder: Path,
    config: LocalizeConfig = CONFIG,
    weights: str = "w",
    process: Process | None = None,
) -> None:
    process = process or Processes().members[0]
    stage.localize(process, net, data, folder, config, MACHINE, weights, "CAMs")


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every CAM file, by id."""
    found = (path for path in folder.rglob("*.cam"))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in found
    }


def copied(data: DataSet, folder: Path) -> DataSet:
    """The same images somewhere they may be broken."""
    records = []
    for record in data.records:
        path = folder / f"{record.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.image.read_bytes())
        records.append(replace(record, image=path))
    return replace(data, records=tuple(records))


def label(record: Record) -> np.ndarray:
    return np.isin(np.arange(3), record.labels)


def no_inference(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


def test_every_image_gets_the_cams_of_its_labels(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    localize(net, data, tmp_path)
    assert files(tmp_path).keys() == {record.id for record in data.records}
    assert len(data) == 12
    for record in data.records:
        stored = load_cams(cam_path(tmp_path, record.id))
        computed = infer_cams(net, read_image(record.image), label(record), CONFIG.scales)
        assert stored[0].tolist() == computed[0].tolist() == [0, *(1 + k for k in record.labels)]
        for kept, exact in zip(stored[1:], computed[1:], strict=True):
            assert kept.shape == exact.shape == (1 + len(record.labels), 48, 48)
            assert np.linalg.norm(kept - exact) <= 1.01 * ERROR * np.linalg.norm(exact)
    assert () in {record.labels for record in data.records}


def test_finished_images_are_left_alone(
    net: SFCNetwork, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    localize(net, data, tmp_path)
    before = files(tmp_path)
    lost = [record.id for record in data.records[2:9:3]]
    for identity in lost:
        cam_path(tmp_path, identity).unlink()
    localize(net, data, tmp_path)
    after = files(tmp_path)
    assert {name for name in before if before[name] != after[name]} == set(lost)
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    monkeypatch.setattr(stage, "infer_cams", no_inference)
    localize(net, data, tmp_path)
    assert files(tmp_path) == after


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_images(
    net: SFCNetwork, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    localize(net, replace(data, records=data.records[:1]), tmp_path)
    saved: list[tuple[str, str]] = []
    real = stage.infer_cams

    def watched(network: SFCNetwork, image: np.ndarray, *rest: object, **options: object) -> object:
        saved.append((threading.current_thread().name, hashlib.sha256(image.tobytes()).hexdigest()))
        return real(network, image, *rest, **options)

    monkeypatch.setattr(stage, "infer_cams", watched)
    faults: list[BaseException] = []

    def work(process: Process) -> None:
        try:
            localize(deepcopy(net), data, tmp_path, process=process)
        except BaseException as error:  # noqa: BLE001
            faults.append(error)

    threads = [
        threading.Thread(target=work, args=(process,), name=str(process.global_rank))
        for process in Processes(count).members
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(saved) == len({image for _, image in saved}) == 11
    shares = [sum(name == str(rank) for name, _ in saved) for rank in range(count)]
    assert max(shares) - min(shares) <= 1
    assert len(files(tmp_path)) == 12


def test_an_unreadable_image_does_not_stop_the_others(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    data = copied(data, tmp_path / "images")
    whole = data.records[3].image.read_bytes()
    data.records[3].image.write_bytes(whole[: len(whole) // 2])
    data.records[7].image.unlink()
    with pytest.raises(SFCError) as caught:
        localize(net, data, tmp_path / "cams")
    message = str(caught.value)
    assert message.startswith(f"{data.records[3].image}: the image is truncated or damaged")
    assert message.endswith(f" and 1 more images cannot be used; the CAMs of all other images are in {tmp_path}/cams")
    before = files(tmp_path / "cams")
    assert before.keys() == {record.id for record in data.records} - {data.records[3].id, data.records[7].id}
    data.records[3].image.write_bytes(whole)
    data.records[7].image.write_bytes(whole)
    localize(net, data, tmp_path / "cams")
    after = files(tmp_path / "cams")
    assert len(after) == 12
    assert after.items() >= before.items()


def test_a_process_without_failures_stops_with_the_others(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    data = copied(replace(data, records=data.records[:4]), tmp_path / "images")
    data.records[1].image.write_bytes(b"")
    messages: dict[int, str] = {}

    def work(process: Process) -> None:
        try:
            localize(deepcopy(net), data, tmp_path / "cams", process=process)
        except SFCError as error:
            messages[process.global_rank] = str(error)

    threads = [threading.Thread(target=work, args=(process,)) for process in Processes(2).members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "1.png: the file is empty" in messages[1]
    assert messages[0].startswith("another process names an image that cannot be used")


def test_a_full_disk_keeps_what_is_done(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    """Files of more than one class are too large for it."""
    lossless = replace(CONFIG, store="lossless")
    data = replace(data, records=tuple(sorted(data.records, key=lambda record: len(record.labels))))
    first = next(index for index, record in enumerate(data.records) if len(record.labels) > 1)
    assert first > 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (45_000, before[1]))
    try:
        with pytest.raises(SFCError, match=rf"{data.records[first].id}\.cam: cannot be written \("):
            localize(net, data, tmp_path, lossless)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = files(tmp_path)
    assert {record.id for record in data.records[:first]} <= kept.keys()
    assert not list(tmp_path.rglob("*.tmp"))
    localize(net, data, tmp_path, lossless)
    assert files(tmp_path).items() >= kept.items()
    assert len(files(tmp_path)) == 12


@pytest.mark.parametrize(
    ("options", "weights", "words"),
    [
        ({}, "others", "weights was 'w' and is 'others'"),
        ({"scales": (1.0,)}, "w", r"scales was \[1.0, 0.5\] and is \[1.0\]"),
        ({"labels": "predicted"}, "w", "labels was 'given' and is 'predicted'"),
        ({"store": "lossless"}, "w", "store was 'compact' and is 'lossless'"),
    ],
)
def test_cams_of_other_weights_or_settings_are_refused(
    net: SFCNetwork, data: DataSet, tmp_path: Path, options: dict, weights: str, words: str
) -> None:
    few = replace(data, records=data.records[:2])
    localize(net, few, tmp_path)
    before = files(tmp_path)
    note = (tmp_path / "cams.json").read_bytes()
    with pytest.raises(ConfigError, match=rf"cams\.json was begun with other settings: {words}"):
        localize(net, data, tmp_path, replace(CONFIG, **options), weights)
    assert files(tmp_path) == before
    assert (tmp_path / "cams.json").read_bytes() == note


def test_a_damaged_note_of_whose_cams_these_are(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "cams.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cams\.json: damaged; delete"):
        localize(net, data, tmp_path)
    assert files(tmp_path) == {}


def test_the_note_says_weights_and_settings(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    digest = file_hash(tmp_path / "weights")
    assert digest == hashlib.sha256(b"abc").hexdigest()
    localize(net, replace(data, records=data.records[:1]), tmp_path / "cams", weights=digest)
    note = json.loads((tmp_path / "cams" / "cams.json").read_text())
    assert note == {"weights": digest, "scales": [1.0, 0.5], "labels": "given", "threshold": 0.5, "store": "compact"}


def test_predicted_labels_are_the_classes_above_the_threshold(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    data = replace(data, records=data.records[:4])
    probabilities = {}
    for record in data.records:
        image = torch.from_numpy(read_image(record.image)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            pair = normalise(torch.cat([image, image.flip(3)]))
            score = net.classifier(net.backbone(pair)[3]).mean(dim=(0, 2, 3))
        probabilities[record.id] = torch.sigmoid(score).numpy()
    ordered = np.sort(np.concatenate(list(probabilities.values())))
    middle = float(ordered[5:7].mean())
    for threshold in (0.0, middle, 1.0):
        folder = tmp_path / str(threshold)
        localize(net, data, folder, LocalizeConfig((1.0,), "predicted", threshold))
        for record in data.records:
            keys = load_cams(cam_path(folder, record.id))[0].tolist()
            assert keys == [0, *(1 + np.flatnonzero(probabilities[record.id] >= threshold))]
    assert 0 < sum((p >= middle).sum() for p in probabilities.values()) < 12


def test_the_lossless_store_keeps_every_bit(net: SFCNetwork, data: DataSet, tmp_path: Path) -> None:
    data = replace(data, records=data.records[:3])
    localize(net, data, tmp_path, replace(CONFIG, store="lossless"))
    for record in data.records:
        with one_image_a_thread(12):  # as the stage does: the number of threads decides the last bits
            exact = infer_cams(net, read_image(record.image), label(record), CONFIG.scales)
        for kept, computed in zip(load_cams(cam_path(tmp_path, record.id)), exact, strict=True):
            assert kept.dtype == computed.dtype
            assert np.array_equal(kept, computed)


def test_cams_have_the_size_of_the_mask(net: SFCNetwork, tmp_path: Path) -> None:
    """A grayscale photograph that its camera held upright, and one with an odd size and transparency."""
    random = np.random.default_rng(0)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(random.integers(0, 255, (30, 44), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=rotated)
    Image.fromarray(random.integers(0, 255, (31, 17, 4), dtype=np.uint8)).save(tmp_path / "b.png")
    records = []
    for name, size in (("a.jpg", (44, 30)), ("b.png", (31, 17))):
        mask = tmp_path / f"mask_{name[0]}.png"
        Image.fromarray(np.full(size, 2, dtype=np.uint8)).save(mask)
        records.append(Record(name[0], tmp_path / name, (1,), PngMask(mask, 3, tmp_path / name)))
    data = DataSet("sizes", "train", ("red", "green", "blue"), tuple(records))
    localize(net, data, tmp_path / "cams")
    for record in data.records:
        keys, weight, prototype = load_cams(cam_path(tmp_path / "cams", record.id))
        assert record.mask is not None
        assert weight.shape[1:] == prototype.shape[1:] == record.mask.load().shape
        assert keys.tolist() == [0, 2]
