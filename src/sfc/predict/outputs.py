"""What is written of one photograph: its mask and, where wanted, probabilities and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfc.data.images import mask_path, mask_texts, write_mask
from sfc.data.records import artifact_path
from sfc.errors import DataError
from sfc.pictures.overlay import overlay
from sfc.predict.folder import IMAGES_FILE, MASKS_FOLDER
from sfc.run.files import atomic_write

PROBABILITIES_FOLDER, OVERLAYS_FOLDER, GALLERY_FOLDER = "probabilities", "overlays", "gallery"
PHOTOGRAPH = "photograph"
"""Name of the text of a mask's file that says which file it is of, see `file_note`."""


def file_note(image: Path) -> str:
    """Size and time of a photograph's file, which tell it from another under its name, an older one too.

    Empty where there is no such file.
    """
    try:
        found = image.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


class Strip(NamedTuple):
    """Some rows of a photograph.

    Attributes:
        top: the first of them.
        labels: their mask, uint8 [rows, W].
        probabilities: float32 [K, rows, W], if the source has any.
        doubt: see `sfc.data.pixels.doubt`.
    """

    top: int
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    doubt: float


@dataclass(frozen=True)
class Outputs:
    """Where the files of each photograph go, and which are wanted beside the mask.

    Args:
        folder: gets masks/ID.png and, where wanted, probabilities/ID.npy and overlays/ID.jpg.
        probabilities: float16 [K, H, W] as NumPy keeps arrays.
        overlays: the photograph with its mask laid over it, as JPEG.
    """

    folder: Path
    probabilities: bool = False
    overlays: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that are made in the folder by `sfc predict`, whatever is wanted now."""
        names = (MASKS_FOLDER, PROBABILITIES_FOLDER, OVERLAYS_FOLDER, GALLERY_FOLDER)
        return tuple(self.folder / name for name in names)

    def taken(self) -> Path | None:
        """Something in the folder that has a name of what will be written there; None where there is nothing."""
        for path in (*self.folders, self.folder / IMAGES_FILE):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                return path
        return None

    def finished(self, identity: str, image: Path) -> bool:
        """Whether a photograph has everything that is wanted, made of the file that is there now, if one is."""
        note = file_note(image)
        is_complete = all(path.exists() for path in self._paths(identity))
        return is_complete and (not note or self._made_of(identity) == note)

    def _made_of(self, identity: str) -> str:
        """`file_note` of the file that the mask is of; empty where nobody knows."""
        try:
            return mask_texts(self.mask(identity)).get(PHOTOGRAPH, "")
        except DataError:
            return ""

    def has_mask(self, identity: str) -> bool:
        """Whether a photograph has a mask."""
        return self.mask(identity).exists()

    def write(
        self, identity: str, image: NDArray[np.uint8], note: str, num_labels: int, strips: Iterable[Strip]
    ) -> None:
        """Writes all of a photograph's files, each whole or not at all; the mask comes last.

        Args:
            identity: names the files.
            image: uint8 [H, W, 3].
            note: `file_note` of its file, from before it was read.
            num_labels: channels of the probabilities.
            strips: the mask in strips, from top to bottom.

        Raises:
            SFCError: a file cannot be written.
        """
        size = (image.shape[0], image.shape[1])
        mask, in_doubt = np.empty(size, np.uint8), 0.0
        with ExitStack() as files:
            store = None
            if self.probabilities:
                file = files.enter_context(atomic_write(self._probabilities(identity)))
                store = _ArrayFile(file, (num_labels, *size))
            for top, labels, probabilities, doubt in strips:
                mask[top : top + len(labels)] = labels
                in_doubt += doubt * len(labels) / len(image)
                if store is not None and probabilities is not None:
                    store.put(top, probabilities)
        if self.overlays:
            with atomic_write(self._overlay(identity)) as file:
                Image.fromarray(overlay(image, mask)).save(file, format="JPEG", quality=90)
        if self._made_of(identity) != note:
            # What was not wanted now is left of another photograph.
            for path in {self._probabilities(identity), self._overlay(identity)}.difference(self._paths(identity)):
                path.unlink(missing_ok=True)
        write_mask(self.mask(identity), mask, in_doubt, {PHOTOGRAPH: note})

    def _paths(self, identity: str) -> list[Path]:
        wanted = [self.mask(identity)]
        if self.probabilities:
            wanted.append(self._probabilities(identity))
        return [*wanted, self._overlay(identity)] if self.overlays else wanted

    def mask(self, identity: str) -> Path:
        """The mask of a photograph."""
        return mask_path(self.folder / MASKS_FOLDER, identity)

    def _probabilities(self, identity: str) -> Path:
        return artifact_path(self.folder / PROBABILITIES_FOLDER, identity, ".npy")

    def _overlay(self, identity: str) -> Path:
        return artifact_path(self.folder / OVERLAYS_FOLDER, identity, ".jpg")


class _ArrayFile:
    """float16 [K, H, W] in NumPy's format, written a few rows of all channels at a time."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int, int]) -> None:
        header: dict[str, Any] = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._file, self._shape, self._start = file, shape, file.tell()

    def put(self, top: int, rows: NDArray[np.float32]) -> None:
        _, height, width = self._shape
        for channel, values in enumerate(rows.astype("<f2")):
            self._file.seek(self._start + 2 * width * (channel * height + top))
            self._file.write(values.tobytes())
