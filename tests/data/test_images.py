"""Images and masks as viewers show them, and every bad file refused in one sentence that names it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngImageFile, PngInfo

from sfc.data.images import PngMask, image_size, read_image, read_mask, write_mask
from sfc.errors import DataError, SFCError


def picture(height: int = 37, width: int = 53, seed: int = 0) -> Image.Image:
    """A smooth image without symmetry, so that JPEG keeps it and every turn shows."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


@pytest.mark.parametrize("name", ["a.jpg", "ä b.JPEG", "c.png", "d.bmp", "e.tif", "f.webp", "g.gif"])
def test_reads_what_pillow_reads(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    picture().save(path, **({"lossless": True} if name.endswith("webp") else {}))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(read, expected)
    assert image_size(path) == (37, 53)


@pytest.mark.parametrize("height", [1, 16, 37])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_jpeg_equals_pillow_bit_for_bit(tmp_path: Path, mode: str, options: dict, height: int) -> None:
    path = tmp_path / "a.jpg"
    picture(height).convert(mode).save(path, **options)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_rotation_is_honoured(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"turned.{suffix}"
    picture().save(path, exif=exif_bytes(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]
    assert expected.shape[:2] == ((53, 37) if orientation >= 5 else (37, 53))


def test_exif_after_the_pixels_of_a_png_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    exif = exif_bytes(6).removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    end = buffer.getvalue().index(b"IEND") - 4
    path.write_bytes(buffer.getvalue()[:end] + chunk + buffer.getvalue()[end:])
    assert image_size(path) == (53, 37)
    np.testing.assert_array_equal(read_image(path), np.asarray(picture().transpose(Image.Transpose.ROTATE_270)))


def xmp(orientation: int) -> PngInfo:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>')
    return info


def magick(orientation: int) -> PngInfo:
    """EXIF as ImageMagick writes it into a PNG."""
    info, exif = PngInfo(), exif_bytes(orientation)
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif):8d}\n{exif.hex()}\n", zip=True)
    return info


@pytest.mark.parametrize("text", [xmp, magick])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_in_the_texts_of_a_png_is_honoured(
    text: Callable[[int], PngInfo], orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "turned.png"
    picture().save(path, pnginfo=text(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape[:2] == ((53, 37) if orientation >= 5 else (37, 53))
    np.testing.assert_array_equal(read_image(path), expected)
    monkeypatch.setattr(PngImageFile, "load", lambda *_: pytest.fail("pixels were decoded"))
    assert image_size(path) == expected.shape[:2]


def test_a_text_after_the_pixels_of_a_png_turns_neither_image_nor_mask(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    buffer = io.BytesIO()
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(buffer, "PNG")
    with_text = io.BytesIO()
    Image.new("L", (1, 1)).save(with_text, "PNG", pnginfo=xmp(6))
    content, other = buffer.getvalue(), with_text.getvalue()
    chunk = other[other.index(b"iTXt") - 4 : other.index(b"IDAT") - 4]
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + chunk + content[end:])
    assert read_image(path).shape[:2] == image_size(path) == read_mask(path, 5).shape == (2, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_meaningless_orientation_turns_nothing(tmp_path: Path, orientation: int) -> None:
    picture().save(tmp_path / "a.jpg", exif=exif_bytes(orientation))
    assert image_size(tmp_path / "a.jpg") == (37, 53) == read_image(tmp_path / "a.jpg").shape[:2]


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00rubbish")
    assert image_size(tmp_path / "a.jpg") == (37, 53) == read_image(tmp_path / "a.jpg").shape[:2]


def test_transparent_pixels_lie_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    rgba[1, 0] = (0, 0, 0, 51)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), [[[10, 20, 30], [255, 255, 255]], [[204, 204, 204], [255, 255, 255]]]
    )
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    palette.putpalette([0, 0, 0, 7, 8, 9])
    palette.save(tmp_path / "p.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), [[[255, 255, 255], [7, 8, 9]]])


def test_grayscale_kinds(tmp_path: Path) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / "l.png")
    np.testing.assert_array_equal(read_image(tmp_path / "l.png"), np.repeat(gray[..., None], 3, axis=2))
    Image.fromarray(gray > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 0], np.where(gray > 99, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 128, 129, 257, 25700, 65535]], dtype=np.uint16)).save(path)
    np.testing.assert_array_equal(read_image(path)[0, :, 1], [0, 0, 1, 1, 100, 255])


def test_sixteen_bit_colour_is_scaled_to_eight(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\x00" + struct.pack(">HHH", 25700, 65535, 0)
    (tmp_path / "a.png").write_bytes(png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[100, 255, 0]]])


def test_first_picture_of_a_phone_file_is_read(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.mpo", save_all=True, append_images=[picture(10, 10)])
    with Image.open(tmp_path / "a.mpo") as image:
        assert image.n_frames == 2
        np.testing.assert_array_equal(read_image(tmp_path / "a.mpo"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animation_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving.{suffix}"
    picture().save(path, save_all=True, append_images=[picture(seed=1)])
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"moving\.\w+: animated images and files of several pages"):
            read(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    buffer = io.BytesIO()
    picture(200, 300).save(buffer, Image.registered_extensions()[f".{suffix}"])
    path.write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    with pytest.raises(DataError, match=r"cut\.\w+: ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    if share == 0.0:
        assert caught.value.reason == "the file is empty"


def test_missing_file_folder_and_text(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"none\.jpg: no such file"):
            read(tmp_path / "none.jpg")
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path)
        (tmp_path / "loop.jpg").unlink(missing_ok=True)
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        with pytest.raises(DataError, match=r"loop\.jpg: cannot be read \(Too many levels"):
            read(tmp_path / "loop.jpg")
        (tmp_path / "text.jpg").write_text("a page of HTML, saved under the wrong name")
        with pytest.raises(DataError, match=r"text.jpg: not a readable JPEG, .* or (AVIF|HEIF) image"):
            read(tmp_path / "text.jpg")


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "gif"])
def test_image_without_pixels_is_refused(tmp_path: Path, suffix: str, height: int, width: int) -> None:
    path = tmp_path / f"nothing.{suffix}"
    content = {
        "png": png_chunks((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IEND", b"")),
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": f"P6 {width} {height} 255\n".encode(),
        "gif": b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b";",
    }
    path.write_bytes(content[suffix])
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"nothing\.\w+: "):
            read(path)


@pytest.mark.parametrize(("values", "reason"), [(np.float32(0.5), "floating-point"), (np.int32(70000), "16 bits")])
def test_what_no_viewer_shows_is_refused(tmp_path: Path, values: np.generic, reason: str) -> None:
    Image.fromarray(np.full((2, 3), values)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=reason):
        read_image(tmp_path / "a.tif")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]), data=st.data())
def test_damage_never_escapes_as_another_exception(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    picture(24, 31).save(buffer, kind, exif=exif_bytes(6)) if kind in ("JPEG", "PNG") else picture(24, 31).save(
        buffer, kind
    )
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with suppress(DataError):
            read(path)


def test_mask_comes_back_as_stored(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2], [20, 255, 0]], dtype=np.uint8)
    write_mask(tmp_path / "deep" / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "deep" / "m.png", 20, (2, 3)), mask)
    with Image.open(tmp_path / "deep" / "m.png") as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGB"))
    assert shown[0, 1].tolist() == [128, 0, 0]
    assert shown[1, 1].tolist() == [224, 224, 192]
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "m.png"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_mask_survives_the_disk(tmp_path: Path, height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", 254), mask)


def test_few_bit_palette_and_grayscale_masks(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2, 3]], dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "gray.png", 3), mask)
    palette = Image.fromarray(mask)
    palette.putpalette([255, 255, 255, 9, 9, 9, 0, 0, 0, 1, 1, 1])
    palette.save(tmp_path / "two.png", bits=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "two.png", 3), mask)
    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)
    two_bit_gray = png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00\x1b")), (b"IEND", b""))
    (tmp_path / "stretched.png").write_bytes(two_bit_gray)
    with pytest.raises(DataError, match="not 2-bit grayscale"):
        read_mask(tmp_path / "stretched.png", 254)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "8-bit RGB"), ("RGBA", "8-bit RGBA"), ("LA", "8-bit grayscale with alpha")]
)
def test_coloured_mask_is_refused(tmp_path: Path, mode: str, kind: str) -> None:
    picture().convert(mode).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png: a mask is a palette or 8-bit grayscale PNG.*not {kind}$"):
        read_mask(tmp_path / "m.png", 3)


def test_deep_jpeg_missing_and_animated_masks_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="not 16-bit grayscale"):
        read_mask(tmp_path / "deep.png", 3)
    picture().convert("L").save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg: not a readable PNG image"):
        read_mask(tmp_path / "m.jpg", 3)
    with pytest.raises(DataError, match="no such file"):
        read_mask(tmp_path / "none.png", 3)
    frames = [Image.fromarray(np.full((2, 2), value, dtype=np.uint8)) for value in (0, 1)]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animated"):
        read_mask(tmp_path / "two.png", 3)


def test_mask_values_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[0, 6, 7, 9, 255]], dtype=np.uint8))
    assert read_mask(tmp_path / "m.png", 9).max() == 255
    with pytest.raises(DataError, match=r"m\.png: mask values 7, 9 are beyond the 6 classes \(and not 255\)"):
        read_mask(tmp_path / "m.png", 6)


def test_mask_turns_with_its_image(tmp_path: Path) -> None:
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(mask).save(tmp_path / "turned.png", exif=exif_bytes(6))
    picture(2, 3).save(tmp_path / "turned.jpg", exif=exif_bytes(6))
    source = PngMask(tmp_path / "turned.png", 5, tmp_path / "turned.jpg")
    np.testing.assert_array_equal(source.load(), [[3, 0], [4, 1], [5, 2]])
    write_mask(tmp_path / "flat.png", mask)
    with pytest.raises(DataError, match=r"flat\.png: the mask is 3x2 but its image is 2x3 \(after EXIF rotation\)"):
        PngMask(tmp_path / "flat.png", 5, tmp_path / "turned.jpg").load()


def test_unwritable_mask_and_wrong_arrays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SFCError, match="cannot be written"):
        write_mask(tmp_path / "file" / "m.png", np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        write_mask(tmp_path / "m.png", np.zeros((1, 1), dtype=np.int64))


@pytest.mark.parametrize("orientation", [1, 6])
def test_photographs_of_phones(orientation: int, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    upright = picture(64, 96)
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "a.heic", format="HEIF", quality=95, exif=exif_bytes(orientation))
    found = read_image(tmp_path / "a.heic").astype(int)
    assert found.shape == (64, 96, 3)
    assert image_size(tmp_path / "a.heic") == (64, 96)
    assert np.abs(found - np.asarray(upright, int)).mean() < 8


def test_without_their_decoder_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfc.data.images.HAS_HEIF", False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypnone")
    with pytest.raises(DataError, match="need a package: pip install pillow-heif"):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize(("side", "expected"), [(10, DataError), (6000, MemoryError)])
def test_memory_that_a_damaged_file_asks_for(
    side: int, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a small picture it is a fault of the file, as a wrong length in it is; of a large one it is none."""
    Image.new("1", (side, side)).save(tmp_path / "a.png")

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", out_of_memory)
    with pytest.raises(expected):
        read_image(tmp_path / "a.png")
