"""From tiny archives in the official layout to the folders that readers expect, from paths and from a local server."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sfc.data.palette import write_mask_png
from sfc.data.prepare import official as prepare
from sfc.data.prepare.official import prepare_coco, prepare_voc
from sfc.data.readers.voc_lists import derive_trainaug, read_ids
from sfc.errors import ConfigError, DataError, SFCError

TRAIN, VAL, SBD_ONLY = ("2007_000032", "2007_000039"), ("2007_000033",), ("2008_000002", "2009_000001")


def _mask(value: int) -> np.ndarray:
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[2:4, 1:5] = value
    return mask


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    write_mask_png(buffer, _mask(value))
    return buffer.getvalue()


def _pack(folder: Path, archive: Path) -> Path:
    """A zip or tar of what is in the folder; the name ends in .zip, .tar or .tgz."""
    kind = {".zip": "zip", ".tar": "tar", ".tgz": "gztar"}[archive.suffix]
    made = Path(shutil.make_archive(str(archive.with_suffix("")), kind, root_dir=folder))
    return made.rename(archive)


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with VOCtrainval_11-May-2012.tar, SegmentationClassAug.zip and benchmark.tgz, a few images each."""
    monkeypatch.setattr(prepare, "_KNOWN_MD5", {})
    out = tmp_path / "archives"
    out.mkdir()
    voc = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for name in (*TRAIN, *VAL, *SBD_ONLY):
        _write(voc / "JPEGImages" / f"{name}.jpg", name.encode())
        _write(voc / "Annotations" / f"{name}.xml", b"<annotation/>")
    for name in (*TRAIN, *VAL):
        _write(voc / "SegmentationClass" / f"{name}.png", _png(5))
        _write(voc / "SegmentationObject" / f"{name}.png", b"not needed")
    for split, names in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        _write(voc / "ImageSets" / "Segmentation" / f"{split}.txt", ("\n".join(names) + "\n").encode())
    _pack(tmp_path / "voc", out / "VOCtrainval_11-May-2012.tar")
    for name in (*TRAIN, *VAL, *SBD_ONLY):
        _write(tmp_path / "aug" / "SegmentationClassAug" / f"{name}.png", _png(7))
        _write(tmp_path / "aug" / "__MACOSX" / "SegmentationClassAug" / f"._{name}.png", b"junk")
    _pack(tmp_path / "aug", out / "SegmentationClassAug.zip")
    for name in (TRAIN[0], *VAL, *SBD_ONLY):
        path = tmp_path / "sbd" / "benchmark_RELEASE" / "dataset" / "cls" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"GTcls": {"Segmentation": _mask(9), "CategoriesPresent": np.array([9])}})
        _write(path.parents[1] / "img" / f"{name}.jpg", b"not needed")
    _pack(tmp_path / "sbd", out / "benchmark.tgz")
    return out


def _values(voc: Path) -> dict[str, int]:
    return {path.stem: int(np.asarray(Image.open(path)).max()) for path in (voc / "SegmentationClassAug").iterdir()}


def test_voc_with_augmented_masks(archives: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    prepared = prepare_voc(
        root, [str(archives / name) for name in ("SegmentationClassAug.zip", "VOCtrainval_11-May-2012.tar")]
    )
    voc = root / "VOCdevkit" / "VOC2012"
    assert prepared.root == voc
    folders = {"JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug", "ImageSets"}
    assert {path.name for path in voc.iterdir()} == folders
    assert (voc / "JPEGImages" / f"{TRAIN[0]}.jpg").read_bytes() == TRAIN[0].encode()
    assert set(_values(voc).values()) == {7}
    assert read_ids(voc, "trainaug") == derive_trainaug(voc) == sorted(TRAIN + SBD_ONLY)
    assert "trainaug has 4 images, the official one has 10,582" in prepared.notes
    digest = hashlib.sha256((archives / "SegmentationClassAug.zip").read_bytes()).hexdigest()
    assert any(digest in note for note in prepared.notes)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["VOCtrainval_11-May-2012.tar", "voc2012.tar"])
def test_voc_with_sbd_in_any_order(name: str, order: tuple[int, int], archives: Path, tmp_path: Path) -> None:
    (archives / "VOCtrainval_11-May-2012.tar").rename(archives / name)
    names = [str(archives / name), str(archives / "benchmark.tgz")]
    for _ in range(2):
        voc = prepare_voc(tmp_path / "root", [names[index] for index in order]).root
        expected = dict.fromkeys(TRAIN + VAL, 5) | dict.fromkeys(SBD_ONLY, 9)
        assert _values(voc) == expected
        assert np.array_equal(np.asarray(Image.open(voc / "SegmentationClassAug" / f"{SBD_ONLY[0]}.png")), _mask(9))
        assert read_ids(voc, "trainaug") == sorted(TRAIN + SBD_ONLY)


def test_masks_of_sbd_wait_for_those_of_voc_after_an_interruption(archives: Path, tmp_path: Path) -> None:
    """What was unpacked before it has the list of images, and not yet all masks."""
    voc = Path(shutil.copytree(tmp_path / "voc" / "VOCdevkit", tmp_path / "root" / "VOCdevkit")) / "VOC2012"
    shutil.rmtree(voc / "SegmentationClass")
    (archives / "VOCtrainval_11-May-2012.tar").rename(archives / "voc2012.tar")
    prepare_voc(tmp_path / "root", [str(archives / name) for name in ("benchmark.tgz", "voc2012.tar")])
    assert _values(voc) == dict.fromkeys(TRAIN + VAL, 5) | dict.fromkeys(SBD_ONLY, 9)


def test_voc_alone_says_what_is_missing(archives: Path, tmp_path: Path) -> None:
    prepared = prepare_voc(tmp_path / "root", [str(archives / "VOCtrainval_11-May-2012.tar")])
    assert any("trainaug is not there" in note for note in prepared.notes)
    assert not (prepared.root / "ImageSets" / "Segmentation" / "trainaug.txt").exists()


@pytest.mark.parametrize("name", ["SegmentationClassAug.zip", "benchmark.tgz"])
def test_masks_without_voc_are_refused(name: str, archives: Path, tmp_path: Path) -> None:
    with pytest.raises(SFCError, match=r"name VOCtrainval_11-May-2012\.tar as well"):
        prepare_voc(tmp_path / "root", [str(archives / name)])


def test_checksums_are_compared(archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archives / "VOCtrainval_11-May-2012.tar"
    right = hashlib.md5(path.read_bytes()).hexdigest()
    assert not any(
        "not compared" in note for note in prepare_voc(tmp_path / "a", [str(path)], {path.name: right}).notes
    )
    with pytest.raises(DataError, match="is damaged or another file"):
        prepare_voc(tmp_path / "b", [str(path)], {path.name: "0" * 64})
    monkeypatch.setattr(prepare, "_KNOWN_MD5", {path.name: "1" * 32})
    with pytest.raises(DataError, match="not 1111"):
        prepare_voc(tmp_path / "b", [str(path)])
    with pytest.raises(ConfigError, match=r"VOC\.tar: no archive has this name"):
        prepare_voc(tmp_path / "b", [str(path)], {"VOC.tar": right})
    assert not (tmp_path / "b").exists()
    assert path.exists()


def test_nothing_named_nothing_there_nothing_useful(archives: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name the archives"):
        prepare_voc(tmp_path / "root")
    with pytest.raises(DataError, match=r"none\.tar: there is no such archive"):
        prepare_voc(tmp_path / "root", ["none.tar"])
    with pytest.raises(DataError, match="holds nothing of COCO"):
        prepare_coco(tmp_path / "root", [str(archives / "SegmentationClassAug.zip")])
    assert not any((tmp_path / "root").glob("*/*"))


def test_a_mask_of_sbd_that_is_none(archives: Path, tmp_path: Path) -> None:
    _write(tmp_path / "sbd" / "benchmark_RELEASE" / "dataset" / "cls" / "2009_000009.mat", b"MATLAB 5.0, not")
    _pack(tmp_path / "sbd", archives / "benchmark.tgz")
    with pytest.raises(DataError, match=r"benchmark\.tgz: has a member that cannot be read: .*2009_000009\.mat"):
        prepare_voc(tmp_path / "root", [str(path) for path in archives.iterdir() if path.suffix != ".zip"])


@pytest.fixture
def address(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archives)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_voc_from_a_server(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = (f"{address}/VOCtrainval_11-May-2012.tar", f"{address}/benchmark.tgz")
    monkeypatch.setattr(prepare, "VOC_ADDRESSES", urls)
    prepared = prepare_voc(tmp_path / "root", download=True)
    assert read_ids(prepared.root, "trainaug") == sorted(TRAIN + SBD_ONLY)
    assert {path.name for path in (tmp_path / "root" / "downloads").iterdir()} == {url.split("/")[-1] for url in urls}


def test_a_damaged_download_is_removed(address: str, tmp_path: Path) -> None:
    url = f"{address}/VOCtrainval_11-May-2012.tar"
    with pytest.raises(DataError, match="the next call fetches it again"):
        prepare_voc(tmp_path / "root", [url], {"VOCtrainval_11-May-2012.tar": "0" * 32})
    assert list((tmp_path / "root" / "downloads").iterdir()) == []
    assert prepare_voc(tmp_path / "root", [url]).root.is_dir()


def test_a_hostile_archive_from_a_server(address: str, archives: Path, tmp_path: Path) -> None:
    with tarfile.open(archives / "x.tar", "w") as tar:
        for name in ("VOCdevkit/VOC2012/JPEGImages/a.jpg", "VOCdevkit/VOC2012/JPEGImages/../../../../evil.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match="leads out of the folder"):
        prepare_voc(tmp_path / "root", [f"{address}/x.tar"])
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["downloads"]
    with pytest.raises(SFCError, match="404"):
        prepare_voc(tmp_path / "root", [f"{address}/none.tar"])


def test_official_addresses() -> None:
    assert [url.rsplit("/", 1)[1] for url in prepare.VOC_ADDRESSES] == list(prepare._KNOWN_MD5)
    assert [url.rsplit("/", 1)[1] for url in prepare.coco_addresses("2017")] == [
        "annotations_trainval2017.zip",
        "val2017.zip",
        "train2017.zip",
    ]


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco(year: str, tmp_path: Path) -> None:
    names = []
    for split in (f"train{year}", f"val{year}"):
        _write(tmp_path / split / split / f"{split}_1.jpg", b"image")
        names.append(_pack(tmp_path / split, tmp_path / f"{split}.zip"))
        for kind in ("instances", "captions", "person_keypoints"):
            _write(tmp_path / "ann" / "annotations" / f"{kind}_{split}.json", b"{}")
    names.append(_pack(tmp_path / "ann", tmp_path / f"annotations_trainval{year}.zip"))
    root = tmp_path / "root"
    first = prepare_coco(root, [str(names[0]), str(names[2])])
    assert f"val{year} has annotations only; name the other archive as well" in first.notes
    notes = prepare_coco(root, [str(names[1])]).notes
    assert not any("only" in note for note in notes)
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == {
        f"train{year}/train{year}_1.jpg",
        f"val{year}/val{year}_1.jpg",
        f"annotations/instances_train{year}.json",
        f"annotations/instances_val{year}.json",
    }
