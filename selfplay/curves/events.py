"""TensorBoard's event files: written in the thread that makes the records, and checked record by record.

TensorBoard's own writer works in a second thread, which a full disk ends with a traceback. Here each record is written
at once, into a file that stays open, and an error is raised where the record was made.

A record is its length (uint64), a checksum of the length, the data, and a checksum of the data (uint32, masked
CRC-32C), all little-endian; see ``tensorboard.summary.writer.record_writer``.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

PREFIX = "events.out.tfevents."  # of the files' names, by which TensorBoard knows them
_VERSION = "brain.Event:2"  # what TensorBoard expects in a file's first record
_numbers = itertools.count()


class EventFile:
    """A new event file in a folder.

    Args:
        folder: the folder, which exists.

    Attributes:
        path: the file.

    Raises:
        OSError: here and in its methods, if the disk does not take it.
    """

    def __init__(self, folder: Path) -> None:
        name = f"{PREFIX}{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = folder / name
        self._file = self.path.open("ab")
        self._records = RecordWriter(self._file)
        self.add_event(Event(wall_time=time.time(), file_version=_VERSION))
        self.flush()

    def add_event(self, event: Any) -> None:
        """Write a record."""
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


class EventWriter(SummaryWriter):
    """torch's writer of curves, pictures and texts, with an :class:`EventFile`.

    Args:
        folder: the folder of the file.
        purge_step: records of earlier files from this step on are hidden, as a run that is resumed needs it.

    Attributes:
        path: the file.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        events = EventFile(folder)
        self.path = events.path
        self._made: Any = FileWriter.__new__(FileWriter)  # its constructor would start TensorBoard's thread
        self._made.event_writer = events
        if purge_step is not None:
            self._made.add_event(Event(session_log=SessionLog(status=SessionLog.START)), purge_step)
        super().__init__(str(folder))

    def _get_file_writer(self) -> Any:
        torchs: Any = self  # whose types say that both are None
        torchs.file_writer, torchs.all_writers = self._made, {self.log_dir: self._made}
        return self._made


@dataclass(frozen=True)
class Records:
    """What an event file holds.

    Attributes:
        whole: records whose checksums are right, up to the first that is not.
        damaged: whether one is not.
        rest: bytes after the last whole record: of one that was cut, as a kill leaves it; zeros, as a power loss does.
    """

    whole: int
    damaged: bool
    rest: int


def check_records(path: Path) -> Records:
    """Read an event file record by record, and compare the checksums; data are not decoded.

    Raises:
        OSError: if it cannot be read.
    """
    whole, left = 0, path.stat().st_size
    with path.open("rb") as file:
        while left:
            header = file.read(min(12, left))
            length = int.from_bytes(header[:8], "little")
            if len(header) < 12 or (_right(header) and length + 4 > left - 12):  # cut, within a record
                return Records(whole, False, left)
            data = file.read(length + 4) if _right(header) else b""
            if not data or not _right(data):
                zeros = not any(header) and not any(any(part) for part in iter(lambda: file.read(1 << 16), b""))
                return Records(whole, not zeros, left)
            whole, left = whole + 1, left - 12 - len(data)
    return Records(whole, False, 0)


def _right(data: bytes) -> bool:
    """Whether the last four bytes are the checksum of those before."""
    return data[-4:] == struct.pack("<I", masked_crc32c(data[:-4]))
