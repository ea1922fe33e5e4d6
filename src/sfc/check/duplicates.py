"""Pictures that are there more than once, under other names: told by their pixels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from sfc.data.records import Record


def picture_digest(image: np.ndarray) -> bytes:
    """16 bytes that tell a picture from all others.

    Args:
        image: uint8 [H, W, 3].
    """
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def duplicates(records: Sequence[Record], digests: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """Pairs of images of a split that show the same picture, `a = b`: with the same tags, and with others.

    Args:
        records: of the split.
        digests: of those that can be read, by id.
    """
    groups: dict[bytes, list[Record]] = defaultdict(list)
    for record in records:
        if record.id in digests:
            groups[digests[record.id]].append(record)
    alike: list[str] = []
    at_odds: list[str] = []
    for first, *others in groups.values():
        for other in others:
            place = alike if other.labels == first.labels else at_odds
            place.append(f"{first.id} = {other.id}")
    return alike, at_odds


def shared(train: Mapping[str, bytes], val: Mapping[str, bytes]) -> list[str]:
    """Validation images that show a picture of a training image, by id."""
    known = set(train.values())
    return [name for name, digest in val.items() if digest in known]
