"""Image-text tar shards in webdataset's layout, read one sample at a time without TensorFlow.

A shard is a tar file (perhaps compressed) in which the files of a sample stand one after the other
and have one name up to the first dot, the sample's key: `000000001.jpg`, `000000001.txt`,
`000000001.json`. This is what img2dataset writes.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_BRACES = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class TarSample:
    """A sample of a shard.

    Attributes:
      shard: the file.
      key: the name that its files have in common.
      files: their bytes, by extension in lower case (`jpg`, `txt`, `json`).
    """

    shard: pathlib.Path
    key: str
    files: dict[str, bytes]

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.shard.name}/{self.key}"


def expand_braces(pattern: str) -> list[str]:
    """`a{00..11}.tar` and `{a,b}.tar` written out, as a shell does; leading zeros are kept.

    Raises:
      ValueError: a range that goes down.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    choices = found[1].split(",")
    if numbers := _RANGE.fullmatch(found[1]):
        first, last = numbers.groups()
        if int(first) > int(last):
            raise ValueError(f"shards {pattern!r}: the range {found[1]} goes down")
        choices = [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
    return list(
        itertools.chain.from_iterable(
            expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])
            for choice in choices
        )
    )


def find_shards(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """The files of a pattern with braces, and globs sorted by name.

    Raises:
      FileNotFoundError: a name or a glob of the pattern has no file.
    """
    shards: list[pathlib.Path] = []
    for name in expand_braces(pattern):
        if any(character in name for character in "*?["):
            found = sorted(path for path in root.glob(name) if path.is_file())
        else:
            found = [root / name] if (root / name).is_file() else []
        if not found:
            raise FileNotFoundError(
                f"no shard {root / name} (of {pattern!r}); set RT2_DATA_DIR to the folder above "
                "the data, or change the pattern"
            )
        shards += found
    return shards


def read_shard(shard: pathlib.Path) -> Iterator[TarSample]:
    """The samples of a shard in their order; one is in memory at a time.

    Raises:
      ValueError: the file is damaged or cut off; the message names it and the last key.
    """
    key = ""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in _members(tar):
                stem, _, extension = pathlib.PurePosixPath(member.name).name.partition(".")
                if not member.isfile() or not stem:
                    continue
                name = str(pathlib.PurePosixPath(member.name).with_name(stem))
                if name != key:
                    if files:
                        yield TarSample(shard, key, files)
                    key, files = name, {}
                extracted = tar.extractfile(member)
                assert extracted is not None
                files[extension.lower()] = extracted.read()
    except _DAMAGE as error:
        # What tarfile says of a file that is none has a line for each compression.
        first = str(error).splitlines()[0].removesuffix(":") if str(error) else "no data"
        place = f"after key {key!r}" if key else "at its beginning"
        raise ValueError(
            f"{shard}: damaged or cut off {place} ({first}); fetch it again, or leave it out"
        ) from error
    if files:
        yield TarSample(shard, key, files)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """All members up to the end that a whole archive has.

    tarfile's own iterator keeps every member that it has seen, and takes a damaged header, and the
    lack of an end, for the end.
    """
    file = tar.fileobj
    assert file is not None
    tar.offset = 0
    while True:
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
            return
        file.seek(tar.offset)
        yield tarfile.TarInfo.fromtarfile(tar)
