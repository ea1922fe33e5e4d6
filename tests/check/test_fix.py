"""`sfc check --fix`: what is safe is mended in a new table, the rest and the user's own table stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sfc.check.fix import fix_table
from sfc.cli import main
from sfc.data.readers.detect import detect
from sfc.data.readers.read import read_dataset
from sfc.errors import DataError, SFCError

GOOD = "image,labels,mask\na.jpg,cat;dog,\nb.jpg,,b.png\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "expected", "words"),
    [
        ("image;labels\na.jpg;cat\n", "image,labels\na.jpg,cat\n", "cells were separated by ';'"),
        ("image\tlabels\na.jpg\tcat\n", "image,labels\na.jpg,cat\n", "cells were separated by a tab"),
        ("image,labels\na.jpg,cät\n".encode("cp1252"), "image,labels\na.jpg,cät\n", "Windows-1252"),
        ("image,labels\na.jpg,cät\n".encode("utf-16"), "image,labels\na.jpg,cät\n", "it was UTF-16"),
        ("\ufeffimage,labels\na.jpg,cat\n", "image,labels\na.jpg,cat\n", "byte order mark"),
        ("image,labels,\na.jpg,cat,\nb.jpg,,\n", "image,labels\na.jpg,cat\nb.jpg,\n", "2 rows ended in separators"),
        ("Image, Labels \na.jpg,cat\n", "image,labels\na.jpg,cat\n", "capitals or blanks"),
        ("image,labels\n a.jpg ,cat\n", "image,labels\na.jpg,cat\n", "blanks around them"),
        ("image,labels\na.jpg,cat\n\na.jpg,cat\n", "image,labels\na.jpg,cat\n", "1 rows were there twice"),
        ("image,labels\na.jpg,;cat; dog;cat;\n", "image,labels\na.jpg,cat;dog\n", "separators at their ends"),
    ],
)
def test_what_is_safe_is_mended(content: str | bytes, expected: str, words: str, tmp_path: Path) -> None:
    table, new = write(tmp_path / "train.csv", content), tmp_path / "new.csv"
    before = table.read_bytes()
    (mended,) = fix_table(table, new)
    assert words in mended
    assert new.read_text(encoding="utf-8") == expected
    assert table.read_bytes() == before
    assert fix_table(new, tmp_path / "again.csv") == []
    assert not (tmp_path / "again.csv").exists()


@pytest.mark.parametrize(
    ("name", "content", "new", "expected"),
    [
        ("train.tsv", "image\tlabels\n a.jpg\tcat\n", "new.tsv", "image\tlabels\na.jpg\tcat\n"),
        ("train.TSV", "image,labels\na.jpg,cat\n", "new.TSV", "image\tlabels\na.jpg\tcat\n"),
        ("train.tsv", "image\tlabels\n a.jpg\tcat\n", "new.csv", "image,labels\na.jpg,cat\n"),
        ("train.csv", "image;labels\na.jpg;cat\n", "new.tsv", "image\tlabels\na.jpg\tcat\n"),
        ("train.txt", "image,labels\na.jpg,cat\n", "new.csv", "image,labels\na.jpg,cat\n"),
    ],
)
def test_a_table_has_the_separator_of_its_suffix(
    name: str, content: str, new: str, expected: str, tmp_path: Path
) -> None:
    assert len(fix_table(write(tmp_path / name, content), tmp_path / new)) == 1
    assert (tmp_path / new).read_text() == expected
    assert fix_table(tmp_path / new, tmp_path / f"again{Path(new).suffix}") == []
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    assert read_dataset(detect(tmp_path / new), "train").classes == ("cat",)


@pytest.mark.parametrize("name", ["new.jsonl", "new.txt", "new"])
def test_what_is_no_table_of_cells_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(SFCError, match=rf"{name}: the name of a mended table ends in \.csv or \.tsv"):
        fix_table(write(tmp_path / "train.csv", "image;labels\na.jpg;cat\n"), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_what_could_be_meant_stays(tmp_path: Path) -> None:
    content = GOOD + "a.jpg,cat,\nc.jpg,a cat|a dog,\nd.jpg,cat,,too,many\n"
    assert fix_table(write(tmp_path / "train.csv", content), tmp_path / "new.csv") == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("picture,tags\na.jpg,cat\n", "no columns image and labels"),
        ("", "no columns image and labels"),
        ('image,labels\n"a.jpg,cat\n', "is damaged"),
        (b"image,labels\n\x81\x8d.jpg,cat\n", "is neither UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused(content: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        fix_table(write(tmp_path / "train.csv", content), tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    table = write(tmp_path / "train.csv", "image;labels\na.jpg;cat\n")
    for new in (table, write(tmp_path / "other.csv", "mine")):
        with pytest.raises(SFCError, match="is there already"):
            fix_table(table, new)


def test_on_the_command_line(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (squares / "train.csv").read_text()
    write(tmp_path / "train.csv", text.replace(";", " ; ").replace(",", "\t"))
    assert main(["check", str(tmp_path / "train.csv"), "--fix", str(tmp_path / "new.csv")]) == 0
    assert f"next: sfc check {tmp_path / 'new.csv'}" in capsys.readouterr().out
    assert (tmp_path / "new.csv").read_text() == text
    assert main(["check", str(squares), "--fix", str(tmp_path / "other.csv")]) == 0
    assert "nothing to mend" in capsys.readouterr().out
    assert main(["check", "--fix", str(tmp_path / "x.csv")]) == 2
