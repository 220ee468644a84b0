"""Tar shards in webdataset's layout: streamed in order; damage is named with its file and key."""

import io
import json
import logging
import tarfile
import tracemalloc

import numpy as np
import pytest

from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.registration import web_task
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.tar_reader import tar_source
from rt2_jax.data.tar_shards import expand_braces, find_shards, read_shard

from .conftest import encoded, picture


def write_shard(path, samples, mode="w"):
    """Samples are lists of (file name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in (file for sample in samples for file in sample):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def sample(number, caption="", **metadata):
    """As img2dataset writes them."""
    key = f"{number:09d}"
    metadata = {"key": key, "caption": caption or f"caption {number}", **metadata}
    return [
        (f"{key}.jpg", encoded(picture(number))),
        (f"{key}.json", json.dumps(metadata).encode()),
        (f"{key}.txt", metadata["caption"].encode()),
    ]


@pytest.fixture
def shards(registry, tmp_path, monkeypatch):
    """A folder of two shards of three samples, with the files that img2dataset puts beside them."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    for i in range(2):
        write_shard(tmp_path / f"web/{i:05d}.tar", [sample(10 * i + j) for j in range(3)])
        (tmp_path / f"web/{i:05d}_stats.json").write_text("{}")
    return tmp_path / "web"


def steps(pattern="{00000..00001}.tar", name="web", **options):
    task = web_task(name, tar_source("web", {"train": pattern}, **options), prompt="", read_from="")
    return list(read_steps(task, "train"))


def test_samples_come_in_the_order_of_the_shards_with_their_picture_and_caption(shards, tmp_path):
    found = steps()
    numbers = [0, 1, 2, 10, 11, 12]
    assert [step.target for step in found] == [f"caption {number}" for number in numbers]
    assert [step.episode for step in found] == list(range(6))
    assert found[3].episode_id == "00001.tar/000000010"
    for step, number in zip(found, numbers, strict=True):
        np.testing.assert_array_equal(decode_image(step.images[0]), picture(number))
    again = web_task("again", tar_source("web", {"train": "*.tar"}), prompt="", read_from="web")
    assert cache_task(again, tmp_path).steps == 6


def test_the_shards_of_the_source_are_the_files(shards, check_shards, tmp_path):
    source = tar_source("web", {"train": "*.tar"})
    task = web_task("files", source, prompt="", read_from="web")
    assert check_shards(task) == ["00000.tar", "00001.tar"]
    assert cache_task(task, tmp_path / "cache").source_shards == ("00000.tar", "00001.tar")


def test_texts_may_stand_in_the_json_and_samples_be_chosen_by_it(shards):
    write_shard(shards / "q.tar", [sample(i, similarity=i / 10, question=f"{i}?") for i in (1, 4)])
    (found,) = steps(
        "q.tar",
        text="json:question",
        target="json:caption",
        keep=lambda metadata: metadata["similarity"] > 0.3,
    )
    assert (found.text, found.target) == ("4?", "caption 4")


def test_large_pictures_are_shrunk(shards):
    assert {decode_image(step.images[0]).shape for step in steps(longest_side=8)} == {(6, 8, 3)}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{00..02}.tar", ["00.tar", "01.tar", "02.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern, names):
    assert expand_braces(pattern) == names


def test_every_shard_of_braces_must_be_there_and_one_of_a_glob(shards, tmp_path):
    assert [path.name for path in find_shards(shards, "*.tar")] == ["00000.tar", "00001.tar"]
    for name, pattern in {"range": "{00000..00002}.tar", "glob": "{00000,00002*}.tar"}.items():
        with pytest.raises(FileNotFoundError, match="no shard .*00002.*tar.*RT2_DATA_DIR"):
            steps(pattern, name)
    with pytest.raises(ValueError, match="the range 3..1 goes down"):
        find_shards(shards, "{3..1}.tar")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:5200], "after key '00000000[01]'"),
        (lambda data: data[:512], "after key '000000000'"),
        (lambda data: data[:300], "at its beginning"),
        (lambda data: b"", "at its beginning"),
        (
            lambda data: data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512),
            "after key '000000002'",
        ),
        (lambda data: data.replace(b"000000001.json", b"00000000!.json"), "after key '000000001'"),
    ],
)
def test_a_damaged_or_cut_shard_is_named_with_its_last_key(shards, damage, message):
    path = shards / "00000.tar"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"00000.tar: damaged or cut off {message}"):
        list(read_shard(path))


def test_a_packed_shard_is_read_and_its_damage_found(shards):
    path = shards / "packed.tar.gz"
    write_shard(path, [sample(i) for i in range(3)], "w:gz")
    assert [found.key for found in read_shard(path)] == [f"00000000{i}" for i in range(3)]
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match="packed.tar.gz: damaged or cut off"):
        list(read_shard(path))


BROKEN = [
    [("a.jpg", encoded(picture(1))[:-40]), ("a.txt", b"cut")],
    [("b.txt", b"alone")],
    [("c.jpg", encoded(picture(1)))],
    [("d.jpg", encoded(picture(1))), ("d.txt", b" ")],
    [("e.jpg", encoded(picture(1))), ("e.txt", b"\xff")],
]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (BROKEN[0], "broken.tar, key 'a': .* no whole picture"),
        (BROKEN[1], "key 'b': no picture; expected one of jpg, jpeg, png, webp, found txt"),
        (BROKEN[2], "key 'c': no txt beside it; found jpg"),
        (BROKEN[3], "key 'd': txt is empty or missing"),
        (BROKEN[4], "key 'e': txt: no UTF-8 text"),
    ],
)
def test_a_damaged_sample_is_named_with_shard_and_key(shards, broken, message):
    write_shard(shards / "broken.tar", [sample(0), broken])
    with pytest.raises(ValueError, match=message):
        steps("broken.tar", longest_side=8)


def test_damaged_samples_can_be_left_out_and_are_counted(shards, caplog):
    write_shard(shards / "broken.tar", [sample(0), *BROKEN, sample(1)])
    with caplog.at_level(logging.WARNING, "rt2_jax.data"):
        found = steps("broken.tar", skip_damaged=True)
    assert [(step.episode, step.target) for step in found] == [(0, "caption 0"), (1, "caption 1")]
    lines = [record.getMessage() for record in caplog.records]
    for key, line in zip("abcde", lines[:-1], strict=True):
        assert f"broken.tar, key '{key}'" in line
    assert lines[-1] == "web, split train: 5 damaged samples left out, 2 used"


def test_memory_does_not_grow_with_a_shard(tmp_path):
    def peak(count):
        path = tmp_path / f"{count}.tar"
        write_shard(path, [[(f"{i}.jpg", bytes(20_000)), (f"{i}.txt", b"a")] for i in range(count)])
        tracemalloc.start()
        assert sum(1 for _ in read_shard(path)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(400) < peak(20) + 30_000
