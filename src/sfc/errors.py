"""The errors that a user can cause and mend; the command line prints them in one sentence and exits with code 2."""

from __future__ import annotations

from pathlib import Path


class SFCError(Exception):
    """Something outside the program is wrong: a file, an option, a machine. The message names it."""


class DataError(SFCError):
    """A file of the data set cannot be used as it is.

    Args:
        path: the file (or the key of a list) at fault.
        reason: what is wrong with it, as the end of a sentence.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str]]:
        """Two arguments survive the trip out of a worker process; the default keeps only the message."""
        return (type(self), (self.path, self.reason))


class ConfigError(SFCError):
    """A setting is unknown, ill-typed, or does not fit the data, the checkpoint or the run folder."""


class CheckpointError(SFCError):
    """A checkpoint is missing, damaged, or was made for something else."""
