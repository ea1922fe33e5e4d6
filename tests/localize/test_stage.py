"""The CAM stage: every image once, whatever stops it; whose CAMs a folder holds; what the files contain."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sfc.classify.inference as inference
import sfc.localize.stage as stage
from sfc.classify.inference import infer_cams
from sfc.classify.network import SFCNetwork
from sfc.classify.stage import CLASSIFY_NAME
from sfc.classify.train import checkpoint_choice, load_classifier, train_classifier
from sfc.config import RunConfig, load_config
from sfc.data.images import PngMask, read_image
from sfc.data.pixels import IMAGENET_PIXELS
from sfc.data.readers.read import read_dataset
from sfc.data.readers.splits import Data
from sfc.data.records import DataSet, Record
from sfc.engine.processes import make_fabric
from sfc.engine.stage import Job, drive, finish_training, refuse_changed_settings, register
from sfc.errors import ConfigError, SFCError
from sfc.localize.stage import LOCALIZE
from sfc.localize.store import ERROR, cam_path, load_cams
from sfc.pipeline import STAGES
from sfc.run.files import file_hash
from sfc.run.folder import SystemFolder


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
def config(recipe: Path) -> RunConfig:
    """Without validation images."""
    return load_config([recipe], ["--data.val="])


@pytest.fixture(scope="module")
def data(config: RunConfig) -> DataSet:
    return read_dataset(config.data, "train")


@pytest.fixture(scope="module")
def trained(config: RunConfig, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a classifier; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    fabric = make_fabric(config.machine)
    train_classifier(fabric, config.classify, config.machine, config.seed, data, None, folder, "classifier")
    return folder


@pytest.fixture(scope="module")
def net(config: RunConfig, data: DataSet, trained: Path) -> SFCNetwork:
    return load_classifier(config.classify, config.seed, data.classes, trained)


@pytest.fixture
def system(trained: Path, tmp_path: Path) -> SystemFolder:
    """A system whose classifier is trained; whose data they were, the first job says."""
    folder = SystemFolder(tmp_path / "system")
    shutil.copytree(trained, folder.classify)
    return folder


def job_of(
    system: SystemFolder, config: RunConfig, train: DataSet, val: DataSet | None = None, process: Process | None = None
) -> Job:
    config = config if val is None else replace(config, data=replace(config.data, val="val.csv"))
    job = Job(process or Processes().members[0], config, system, "test")
    register(job, STAGES)
    job.data = Data(train, None, val)
    if process is None and not (system.classify / "origin.json").exists():
        finish_training(job, CLASSIFY_NAME, {"checkpoint": checkpoint_choice(config.classify, system.classify)})
    return job


def localize(*arguments: object, **options: object) -> None:
    drive(job_of(*arguments, **options), LOCALIZE)


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


def stored(system: SystemFolder, split: str = "train") -> dict[str, tuple[int, bytes]]:
    return files(system.cams(split))


def test_every_image_gets_the_cams_of_its_labels(
    system: SystemFolder, config: RunConfig, net: SFCNetwork, data: DataSet
) -> None:
    localize(system, config, data)
    assert stored(system).keys() == {record.id for record in data.records}
    assert len(data) == 12
    for record in data.records:
        cams = load_cams(cam_path(system.cams("train"), record.id))
        computed = infer_cams(net, read_image(record.image), label(record), config.localize.scales)
        assert cams[0].tolist() == computed[0].tolist() == [0, *(1 + k for k in record.labels)]
        for kept, exact in zip(cams[1:], computed[1:], strict=True):
            assert kept.shape == exact.shape == (1 + len(record.labels), 48, 48)
            assert np.linalg.norm(kept - exact) <= 1.01 * ERROR * np.linalg.norm(exact)
    assert () in {record.labels for record in data.records}


def test_every_split_has_a_store_of_its_own(system: SystemFolder, config: RunConfig, data: DataSet) -> None:
    val = replace(data, split="val", records=data.records[3:5])
    localize(system, config, data, val)
    assert len(stored(system)) == 12
    assert stored(system, "val").keys() == {record.id for record in val.records}
    assert all((system.cams(split) / "origin.json").is_file() for split in ("train", "val"))


def test_finished_images_are_left_alone(
    system: SystemFolder, config: RunConfig, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    localize(system, config, data)
    before = stored(system)
    lost = [record.id for record in data.records[2:9:3]]
    for identity in lost:
        cam_path(system.cams("train"), identity).unlink()
    localize(system, config, data)
    after = stored(system)
    assert {name for name in before if before[name] != after[name]} == set(lost)
    assert {name: content for name, (_, content) in before.items()} == {
        name: content for name, (_, content) in after.items()
    }
    monkeypatch.setattr(inference, "infer_cams_of_several", no_inference)
    localize(system, config, data)
    assert stored(system) == after


def in_threads(jobs: list[Job]) -> dict[int, BaseException]:
    """Runs the stage once a process; what each raised, by rank."""
    faults: dict[int, BaseException] = {}

    def work(job: Job) -> None:
        try:
            drive(job, LOCALIZE)
        except BaseException as error:  # noqa: BLE001
            faults[job.fabric.global_rank] = error

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_images(
    system: SystemFolder, config: RunConfig, data: DataSet, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(stage, "PIXELS_TOGETHER", 2 * 48 * 48)
    localize(system, config, data)
    for record in data.records[2:]:
        cam_path(system.cams("train"), record.id).unlink()
    saved: list[tuple[int, str]] = []
    real = inference.infer_cams_of_several

    def watched(network: SFCNetwork, images: list[np.ndarray], *rest: object, **options: object) -> object:
        assert len(images) == 2
        saved.extend((id(network), hashlib.sha256(image.tobytes()).hexdigest()) for image in images)
        return real(network, images, *rest, **options)

    monkeypatch.setattr(inference, "infer_cams_of_several", watched)
    jobs = [job_of(system, config, data, process=process) for process in Processes(count).members]
    assert in_threads(jobs) == {}
    assert len(saved) == len({image for _, image in saved}) == 10
    shares = [sum(network == id(job.kept["classifier"]) for network, _ in saved) for job in jobs]
    assert sum(shares) == 10
    assert max(shares) - min(shares) <= 2
    assert len(stored(system)) == 12


def test_an_unreadable_image_does_not_stop_the_others(
    system: SystemFolder, config: RunConfig, data: DataSet, tmp_path: Path
) -> None:
    val = copied(data, tmp_path / "images")
    whole = val.records[3].image.read_bytes()
    val.records[3].image.write_bytes(whole[: len(whole) // 2])
    val.records[7].image.unlink()
    with pytest.raises(SFCError) as caught:
        localize(system, config, data, val)
    message = str(caught.value)
    assert message.startswith(
        (f"{val.records[3].image}: the image is truncated or damaged", f"{val.records[7].image}: ")
    )
    cams = system.cams("val")
    assert message.endswith(f" and 1 more images cannot be used; the CAMs of all other images are in {cams}")
    before = stored(system, "val")
    assert before.keys() == {record.id for record in val.records} - {val.records[3].id, val.records[7].id}
    val.records[3].image.write_bytes(whole)
    val.records[7].image.write_bytes(whole)
    localize(system, config, data, val)
    after = stored(system, "val")
    assert len(after) == 12
    assert after.items() >= before.items()


def test_images_of_one_size_go_through_the_network_together(
    system: SystemFolder, config: RunConfig, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = copied(data, tmp_path / "images")
    for record in val.records[:9:3]:
        with Image.open(record.image) as image:
            image.rotate(90).crop((0, 0, 48, 40)).save(record.image)
    sizes: list[list[tuple[int, ...]]] = []
    real = inference.infer_cams_of_several

    def watched(network: SFCNetwork, images: list[np.ndarray], *rest: object, **options: object) -> object:
        sizes.append([image.shape[:2] for image in images])
        return real(network, images, *rest, **options)

    monkeypatch.setattr(inference, "infer_cams_of_several", watched)
    localize(system, config, data, val)
    assert all(len(set(batch)) == 1 for batch in sizes)
    assert sorted(map(len, sizes)) == [1, 3, 4, 8, 8]
    assert sum(batch.count((40, 48)) for batch in sizes) == 3


def test_a_training_image_that_changed_since_is_refused(
    system: SystemFolder, config: RunConfig, data: DataSet, tmp_path: Path
) -> None:
    data = copied(data, tmp_path / "images")
    job_of(system, config, data)
    data.records[3].image.write_bytes(data.records[3].image.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"system/classify was made from something else \(images or tags changed"):
        localize(system, config, data)
    assert stored(system) == {}


def test_a_process_without_failures_stops_with_the_others(
    system: SystemFolder, config: RunConfig, data: DataSet, tmp_path: Path
) -> None:
    val = copied(replace(data, records=data.records[:4]), tmp_path / "images")
    val.records[1].image.write_bytes(b"")
    localize(system, config, data)
    faults = in_threads([job_of(system, config, data, val, process) for process in Processes(2).members])
    assert all(type(fault) is SFCError for fault in faults.values())
    assert "1.png: the file is empty" in str(faults[1])
    assert str(faults[0]).startswith("another process names an image that cannot be used")


def test_a_full_disk_keeps_what_is_done(
    system: SystemFolder,
    config: RunConfig,
    data: DataSet,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some of the files are too large for it."""
    monkeypatch.setattr(stage, "PIXELS_TOGETHER", 1)  # the order of the images changes below, and so would batches
    whole = SystemFolder(tmp_path / "whole")
    shutil.copytree(trained, whole.classify)
    localize(whole, config, data)
    sizes = {name: len(content) for name, (_, content) in stored(whole).items()}
    data = replace(data, records=tuple(sorted(data.records, key=lambda record: sizes[record.id])))
    ordered = sorted(sizes.values())
    first = next(index for index in range(6, 12) if ordered[index] > ordered[index - 1])
    job = job_of(system, config, data)
    resource = pytest.importorskip("resource", reason="limits of files are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ordered[first] - 1, before[1]))
    try:
        with pytest.raises(SFCError, match=r"\.cam: cannot be written \(") as caught:
            drive(job, LOCALIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any(f"{record.id}.cam" in str(caught.value) for record in data.records[first:])
    kept = stored(system)
    assert kept.keys() == {record.id for record in data.records[:first]}
    assert not list(system.root.rglob("*.tmp"))
    drive(job, LOCALIZE)
    assert stored(system).items() >= kept.items()
    assert {name: content for name, (_, content) in stored(system).items()} == {
        name: content for name, (_, content) in stored(whole).items()
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": (1.0,)}, r"localize\.scales was \[1\.0, 0\.5\] and is \[1\.0\]"),
        ({"labels": "predicted"}, r"localize\.labels was 'given' and is 'predicted'"),
    ],
)
def test_cams_of_other_settings_are_refused(
    system: SystemFolder, config: RunConfig, data: DataSet, options: dict, words: str
) -> None:
    localize(system, config, data)
    cam_path(system.cams("train"), data.records[4].id).unlink()  # there is work to do
    before, note = stored(system), (system.cams("train") / "origin.json").read_bytes()
    job = job_of(system, replace(config, localize=replace(config.localize, **options)), data)
    refused = rf"cams/train/origin\.json was begun with other settings: {words}\. Choose another run folder"
    with pytest.raises(ConfigError, match=refused):
        refuse_changed_settings(job, [LOCALIZE])
    with pytest.raises(ConfigError, match=refused):
        drive(job, LOCALIZE)
    assert stored(system) == before
    assert (system.cams("train") / "origin.json").read_bytes() == note


def test_cams_of_other_weights_are_refused(system: SystemFolder, config: RunConfig, data: DataSet) -> None:
    localize(system, config, data)
    before, note = stored(system), (system.cams("train") / "origin.json").read_bytes()
    checkpoint = system.classify / "checkpoint.pt"
    torch.save({**torch.load(checkpoint, weights_only=True), "optimiser": None}, checkpoint)
    with pytest.raises(
        ConfigError, match=r"cams/train was made from something else \(classify changed since\): delete"
    ):
        localize(system, config, data)
    assert stored(system) == before
    assert (system.cams("train") / "origin.json").read_bytes() == note


def test_a_damaged_note_of_whose_cams_these_are(system: SystemFolder, config: RunConfig, data: DataSet) -> None:
    system.cams("train").mkdir(parents=True)
    (system.cams("train") / "origin.json").write_text("{")
    with pytest.raises(ConfigError, match=rf"cams/train/origin\.json: damaged; delete {system.cams('train')} and make"):
        localize(system, config, data)
    assert stored(system) == {}


def test_the_note_says_weights_and_settings(system: SystemFolder, config: RunConfig, data: DataSet) -> None:
    digest = file_hash(system.classify / "checkpoint.pt")
    assert digest == hashlib.sha256((system.classify / "checkpoint.pt").read_bytes()).hexdigest()
    localize(system, config, data)
    note = json.loads((system.cams("train") / "origin.json").read_text())
    assert note == {
        "settings": {"localize": {"scales": [1.0, 0.5], "labels": "given"}},
        "inputs": {"classify": digest},
    }


def test_predicted_labels_are_the_classes_that_are_more_likely_than_not(
    system: SystemFolder, config: RunConfig, net: SFCNetwork, data: DataSet
) -> None:
    probabilities = {}
    for record in data.records:
        image = torch.from_numpy(read_image(record.image)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            pair = IMAGENET_PIXELS.normalise(torch.cat([image, image.flip(3)]))
            score = net.classifier(net.backbone(pair)[3]).mean(dim=(0, 2, 3))
        probabilities[record.id] = torch.sigmoid(score).numpy()
    localize(system, replace(config, localize=replace(config.localize, scales=(1.0,), labels="predicted")), data)
    for record in data.records:
        keys = load_cams(cam_path(system.cams("train"), record.id))[0].tolist()
        assert keys == [0, *(1 + np.flatnonzero(probabilities[record.id] >= 0.5))]
    assert 0 < sum((p >= 0.5).sum() for p in probabilities.values()) < 36


def test_cams_have_the_size_of_the_mask(system: SystemFolder, config: RunConfig, tmp_path: Path) -> None:
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
    localize(system, config, data)
    for record in data.records:
        keys, weight, prototype = load_cams(cam_path(system.cams("train"), record.id))
        assert record.mask is not None
        assert weight.shape[1:] == prototype.shape[1:] == record.mask.load().shape
        assert keys.tolist() == [0, 2]
