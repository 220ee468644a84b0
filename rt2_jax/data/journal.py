"""Records appended to a file one by one, and the ArrayRecord file that is made of it when it ends.

An ArrayRecord file can be read only once it is closed, so a killed writer would lose all of it. A
journal can be read up to its last whole record however its writer ended. A record is its length
(uint64), the CRC-32 of length and bytes (uint32), and the bytes, all little-endian.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import struct
import zlib

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

JOURNAL, SEALED = ".journal", ".array_record"
"""What the names of the files end in."""

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_HEAD = _LENGTH.size + _CHECKSUM.size


class JournalWriter:
    """Appends to a new journal; what `append` has returned from outlives this process.

    Attributes:
      path: of the file.
      size: in bytes.

    Raises:
      OSError: the file is there already, or cannot be made.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.size = 0
        self._file = path.open("xb", buffering=0)

    def append(self, record: bytes) -> None:
        """Writes a record.

        Raises:
          OSError: it cannot be written; the journal ends with the record before it.
        """
        left = memoryview(_head(record) + record)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # a reader leaves out what is cut off
                self._file.truncate(self.size)
            raise
        self.size += _HEAD + len(record)

    def close(self) -> None:
        """Ends it."""
        self._file.close()


class Journal:
    """The whole records of a journal by number; more may be appended, which this does not see.

    Attributes:
      unreadable: bytes behind the last whole record: one that was cut off, or damage.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("rb")
        self._places: list[tuple[int, int]] = []
        size, place = os.fstat(self._file.fileno()).st_size, 0
        while place + _HEAD <= size:
            self._file.seek(place)
            head = self._file.read(_HEAD)
            length = _LENGTH.unpack_from(head)[0]
            if length > size - place - _HEAD:
                break
            if _head(self._file.read(length)) != head:
                break
            self._places.append((place + _HEAD, length))
            place += _HEAD + length
        self.unreadable = size - place

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        place, length = self._places[index]
        self._file.seek(place)
        return self._file.read(length)

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def seal_journal(path: pathlib.Path) -> pathlib.Path:
    """Makes the ArrayRecord file of a journal, which is then deleted.

    The file appears whole, and on disk; until then there is the journal.

    Raises:
      OSError: it cannot be written; the journal stays.
    """
    final = path.with_suffix(SEALED)
    unfinished = final.with_name(f"{final.name}.unfinished")
    with contextlib.closing(Journal(path)) as journal:
        try:
            # Pictures are compressed already.
            writer = ArrayRecordWriter(str(unfinished), "group_size:1,uncompressed")
            try:
                for number in range(len(journal)):
                    writer.write(journal[number])
            finally:
                writer.close()
            _check_and_flush(unfinished, len(journal))
        except Exception as error:  # ArrayRecord has no error class of its own
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise OSError(f"{final} cannot be written ({error}); {path} stays") from error
    unfinished.replace(final)
    path.unlink()
    return final


def _check_and_flush(path: pathlib.Path, records: int) -> None:
    with contextlib.closing(ArrayRecordReader(str(path))) as reader:
        if reader.num_records() != records:
            raise ValueError(f"found {reader.num_records()} records, expected {records}")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _head(record: bytes) -> bytes:
    length = _LENGTH.pack(len(record))
    return length + _CHECKSUM.pack(zlib.crc32(record, zlib.crc32(length)))
