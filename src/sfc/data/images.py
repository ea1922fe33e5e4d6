"""Images and masks between disk and memory: decoded as a viewer would show them, or refused in one sentence."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sfc.data.palette import check_mask_header, write_mask_png
from sfc.data.records import IGNORE, artifact_path
from sfc.errors import DataError
from sfc.run.files import atomic_write

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Photographs only: Pillow would also run Ghostscript on an EPS file."""

REDUCING_GAP = 3.0
"""Pictures are shrunk to this multiple by plain averages before the filter; more is not told apart from the filter."""

try:
    import pillow_heif
except ImportError:
    HAS_HEIF = False
else:
    HAS_HEIF = True
    pillow_heif.register_heif_opener()

MANY_PIXELS = 32_000_000

DOUBT = "doubt"
"""Name of the text of a mask's file that says how unsure it is."""


def shrunk_size(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """Height and width of an image whose long side is at most `longest`; None: as they are."""
    height, width = size
    if longest is None or max(size) <= longest:
        return size
    factor = longest / max(size)
    return max(1, round(height * factor)), max(1, round(width * factor))


def open_image(path: Path, longest: int | None = None) -> Image.Image:
    """RGB picture in memory, as a viewer would show the file.

    EXIF (or XMP) rotation is applied, also where a PNG has it as a text before its pixels; grayscale, palette, CMYK and
    16-bit images are converted (16 bits are scaled to 8); transparent pixels are laid over white. Colour profiles are
    not applied.

    Args:
        path: the file.
        longest: shrink a picture whose long side is longer to this one (bicubic); a large JPEG is then decoded at a
            fraction of its size, which is many times as fast.

    Raises:
        DataError: missing, unreadable, truncated, not an image, no pixels, animated or of several pages, or of a kind
            that no viewer shows (floating point).
    """
    with _opened(path) as image:
        orientation = _orientation(image, path)
        height, width = shrunk_size((image.height, image.width), longest)
        if (width, height) != image.size:
            image.draft(None, (2 * width, 2 * height))  # twice as many pixels as wanted at least, for the filter
        image.load()
        picture = _to_rgb(image, path)
        if (width, height) != picture.size:
            picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
        return picture if orientation == 1 else Image.fromarray(_turn(np.asarray(picture), orientation))


def read_image(path: Path, longest: int | None = None) -> np.ndarray:
    """uint8 [H, W, 3] of `open_image`.

    Raises:
        DataError: as `open_image`.
    """
    return np.array(open_image(path, longest))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of what `read_image` returns, from the header alone.

    Raises:
        DataError: as `read_image`, as far as the header tells.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image, path) >= 5 else (height, width)


def has_many_pixels(path: Path) -> bool:
    """Whether a photograph is so large that others should not be in memory beside it; False if it cannot be read."""
    try:
        height, width = image_size(path)
    except DataError:
        return False
    return height * width > MANY_PIXELS


def read_mask(path: Path, num_classes: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 [H, W] class indices of a PNG mask: 0 background, 1 + class index, 255 ignored.

    A palette is for viewers only: the stored indices are what counts. EXIF rotation is applied.

    Args:
        path: a PNG, palette or 8-bit grayscale.
        num_classes: foreground classes; larger values other than 255 are refused.
        size: (height, width) of the image, which the mask must have.

    Raises:
        DataError: as `read_image`; not such a PNG; another size; a value that is no class.
    """
    with _opened(path, formats=("PNG",)) as image:
        check_mask_header(path)
        orientation = _orientation(image, path)  # before the pixels, after which a PNG may hold more texts
        mask = _turn(np.array(image), orientation)
    if size is not None and mask.shape != size:
        raise DataError(path, f"the mask is {_by(mask.shape)} but its image is {_by(size)} (after EXIF rotation)")
    strange = (mask > num_classes) & (mask != IGNORE)
    if strange.any():
        found = np.unique(mask[strange])
        values = ", ".join(map(str, found[:5])) + (", ..." if found.size > 5 else "")
        raise DataError(path, f"mask values {values} are beyond the {num_classes} classes (and not {IGNORE})")
    return mask


@dataclass(frozen=True)
class PngMask:
    """A mask file, checked against the classes and the size of its image whenever it is read.

    Args:
        path: the mask, see `read_mask`.
        num_classes: foreground classes.
        image: the image it belongs to.
        shows_classes: whether its image has labels, so that a mask of 0 and 255 must be a mistake.
    """

    path: Path
    num_classes: int
    image: Path
    shows_classes: bool = False

    def load(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 1 + class index, 255 ignored. Raises DataError."""
        mask = read_mask(self.path, self.num_classes, image_size(self.image))
        if self.shows_classes and (mask == IGNORE).any() and not ((mask > 0) & (mask < IGNORE)).any():
            raise DataError(
                self.path,
                f"holds 0 and {IGNORE} alone, so its object is ignored; write 1 for the first class, 2 for the second",
            )
        return mask


def mask_path(folder: Path, image_id: str) -> Path:
    """The mask of one image in a folder of masks; see `sfc.data.records.artifact_path`."""
    return artifact_path(folder, image_id, ".png")


def write_mask(
    path: Path, mask: np.ndarray, doubt: float | None = None, texts: Mapping[str, str] | None = None
) -> None:
    """Writes uint8 [H, W] indices as a palette PNG in the VOC colours, atomically: viewers show classes, not black.

    Args:
        path: the file.
        mask: uint8 [H, W].
        doubt: how unsure it is (`sfc.data.pixels.doubt`); kept in the file as the text `doubt`.
        texts: others to keep, by name.

    Raises:
        SFCError: the file cannot be written.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask is uint8 [H, W], not {mask.dtype} {list(mask.shape)}")
    how_sure = {} if doubt is None else {DOUBT: f"{doubt:.4f}"}
    with atomic_write(path) as file:
        write_mask_png(file, mask, {**how_sure, **(texts or {})})


def mask_texts(path: Path) -> dict[str, str]:
    """The texts that `write_mask` kept, by name. Raises DataError: the file is missing or damaged."""
    with _opened(path, ("PNG",)) as image:
        return {str(name): text for name, text in image.info.items() if isinstance(text, str)}


def mask_doubt(path: Path) -> float | None:
    """What `write_mask` kept of a mask's doubt; None where nothing is kept.

    Raises:
        DataError: the file is missing or damaged.
    """
    text = mask_texts(path).get(DOUBT)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
    """An image whose header has been read; whatever goes wrong inside the block becomes a DataError."""
    pixels = 0
    try:
        with Image.open(path, formats=_known(formats)) as image:
            pixels = image.width * image.height
            _check_single_picture(image, path)
            yield image
    except DataError:
        raise
    except MemoryError as error:
        if pixels > MANY_PIXELS:
            raise
        # Such a picture needs little: a length in the damaged file asks for gigabytes.
        raise DataError(path, "the image is truncated or damaged (it asks for more memory than there is)") from error
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(path, "the image has more than 179 million pixels") from error
    except UnidentifiedImageError as error:
        reason = "the file is empty" if path.stat().st_size == 0 else f"not a readable {_names(formats)} image"
        if path.suffix.lower() in (".heic", ".heif") and not HAS_HEIF:
            reason = "photographs of this kind need a package: pip install pillow-heif"
        raise DataError(path, reason) from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(path, f"cannot be read ({error.strerror})") from error
        # Decoders answer a damaged file with exceptions of every kind: SyntaxError, struct.error, zlib.error, ...
        raise DataError(path, f"the image is truncated or damaged ({error})") from error


def _check_single_picture(image: Image.Image, path: Path) -> None:
    if 0 in image.size:
        raise DataError(path, "the image has no pixels")
    # The second picture of an MPO is a preview or a depth map; viewers show the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataError(path, "animated images and files of several pages are not supported")


def _known(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those formats that this build of Pillow can read."""
    if any(name not in Image.OPEN for name in formats):
        Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _names(formats: tuple[str, ...]) -> str:
    return formats[0] if len(formats) == 1 else f"{', '.join(formats[:-1])} or {formats[-1]}"


def _orientation(image: Image.Image, path: Path) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it is damaged, as viewers treat it."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself, header size included.
    try:
        if image.format == "PNG" and "exif" not in image.info:
            exif = _png_exif(path)
            # XMP, or EXIF as ImageMagick keeps it. A PNG's own `getexif` would decode the pixels first.
            return _turn_code(exif if ExifTags.Base.Orientation in exif else Image.Image.getexif(image))
        return _turn_code(image.getexif())
    except Exception:  # noqa: BLE001 - parsers of damaged metadata raise anything; the pixels are still good
        return 1


def _turn_code(exif: Image.Exif) -> int:
    code = exif.get(ExifTags.Base.Orientation, 1)
    return code if code in range(1, 9) else 1


def _png_exif(path: Path) -> Image.Exif:
    """EXIF of a PNG, which may come after the pixels: found from chunk headers, without decoding."""
    exif = Image.Exif()
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                exif.load(file.read(length))
                break
            file.seek(length + 4, 1)
    return exif


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, ...] turned upright; orientations 5 to 8 swap height and width."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _eight_bits(image, path)
    if image.mode == "F":
        raise DataError(path, "floating-point images are not supported")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(path, "images of more than 16 bits a channel are not supported")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
