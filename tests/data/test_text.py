"""Text-only tasks and objectives: T5's span corruption, split captions, corpora of text files."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest

from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.registration import web_task
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.text_objectives import corrupt_spans, corrupted, noise_mask, split_targets
from rt2_jax.data.text_reader import text_source


def t5_spans(length, density=0.15, mean=3.0):
    """T5's counts as its paper's code has them: noise items, and spans of them."""
    noise = int(np.round(length * density))
    noise = min(max(noise, 1), length - 1)
    return noise, max(int(np.round(noise / mean)), 1)


def spans_of(mask):
    """[(is noise, length)] of the runs of a mask."""
    runs = []
    for value in mask.tolist():
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return [tuple(run) for run in runs]


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_t5s_counts_and_begins_with_what_is_kept(seed):
    rng = np.random.default_rng(seed)
    for length in (2, 3, 5, 10, 11, 30, 57, 114, 512):
        mask = noise_mask(length, rng)
        noise, spans = t5_spans(length)
        runs = spans_of(mask)
        assert len(mask) == length and mask.sum() == noise
        assert len(runs) == 2 * spans
        assert [run[0] for run in runs] == [False, True] * spans


def test_every_way_to_cut_is_as_likely_as_t5s_shuffle_makes_it():
    # T5 shuffles `spans - 1` marks over the places between items: all choices are equally likely.
    rng, draws = np.random.default_rng(0), 6000
    options = {"noise_density": 0.5, "mean_span_length": 2}
    masks = (noise_mask(8, rng, **options) for _ in range(draws))
    found = Counter(tuple(length for _, length in spans_of(mask)) for mask in masks)
    assert len(found) == 9  # three ways to cut four kept items in two, three to cut four of noise
    assert all(abs(count / draws - 1 / 9) < 0.02 for count in found.values())


def test_the_papers_sentence_is_corrupted_as_in_its_figure():
    words = "Thank you for inviting me to your party last week".split()
    mask = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0], bool)
    assert corrupted(words, mask, "<{}>") == (
        "Thank you <0> me to your party <1> week",
        "<0> for inviting <1> last",
    )


def restored(text, target, sentinel="<extra_id_{}>"):
    spans = {}
    for word in target.split():
        if word == sentinel.format(len(spans)):
            current = spans.setdefault(word, [])
        else:
            current.append(word)
    return " ".join(word for kept in text.split() for word in spans.pop(kept, [kept]))


@pytest.fixture
def corpus(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    (tmp_path / "a.txt").write_text(
        "one two three\nfour five six seven\n\n\ntoo short\n\neight nine  ten eleven twelve\n"
    )
    (tmp_path / "b.txt").write_text("\ufeff" + " ".join(f"w{i}" for i in range(23)))
    return tmp_path


def steps(files="*.txt", name="corpus", preprocessors=(), **options):
    source = text_source("", {"train": files}, **options)
    task = web_task(
        name, source, prompt="{text}", read_from="", with_image=False, preprocessors=preprocessors
    )
    return list(read_steps(task, "train"))


def test_paragraphs_are_pieces_and_long_ones_are_cut(corpus):
    found = steps(most_words=10)
    assert [step.target for step in found[:2]] == [
        "one two three four five six seven",
        "eight nine ten eleven twelve",
    ]
    assert [step.episode_id for step in found] == ["a.txt:1", "a.txt:7", "b.txt:1", "b.txt:1"]
    assert [len(step.target.split()) for step in found] == [7, 5, 10, 10], "the last three are few"


def test_lines_and_json_lines_are_pieces_too(corpus):
    assert [s.target for s in steps("a.txt", unit="line", least_words=3)] == [
        "one two three",
        "four five six seven",
        "eight nine ten eleven twelve",
    ]
    lines = "".join(json.dumps({"text": f"text {i} of the web", "url": ""}) + "\n" for i in (1, 2))
    for name, data in {
        "c.jsonl": lines.encode(),
        "c.json.gz": gzip.compress(lines.encode()),
    }.items():
        (corpus / name).write_bytes(data)
        assert [s.target for s in steps(name, name[:3] + name[-1])] == [
            "text 1 of the web",
            "text 2 of the web",
        ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "d.jsonl",
            b'{"text": "a b c d e"}\n{"body": 1}\n',
            "d.jsonl, line 2: no JSON object",
        ),
        ("d.txt", b"\xff\xfe", "d.txt: damaged, no text in UTF-8"),
        ("d.txt.gz", gzip.compress(b"a b c d e f" * 99, mtime=0)[:-9], "d.txt.gz: damaged"),
    ],
)
def test_damaged_corpora_are_named(corpus, name, data, message):
    (corpus / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        steps(name)


def test_a_missing_corpus_and_wrong_numbers_are_named(corpus):
    with pytest.raises(FileNotFoundError, match="no file .*none.*RT2_DATA_DIR"):
        steps("none*.txt")
    with pytest.raises(ValueError, match="least_words 5 and most_words 3, expected"):
        steps(most_words=3)


def test_a_span_corruption_task_can_be_restored_and_depends_on_its_seed_alone(corpus, tmp_path):
    plain = [step.target for step in steps(name="plain")]
    first, same, other = (
        [(s.text, s.target) for s in steps(name=name, preprocessors=[corrupt_spans(seed=seed)])]
        for name, seed in (("first", 0), ("same", 0), ("other", 1))
    )
    assert first == same != other
    for text, whole in zip(first, plain, strict=True):
        assert restored(*text) == whole != text[0]
        kept, noise = (len([w for w in each.split() if "<" not in w]) for each in text)
        expected = t5_spans(kept + noise)
        assert noise == expected[0] and text[1].count("<extra_id_") - expected[1] in (0, 1)


def test_a_rolled_mask_is_t5s_from_another_beginning():
    rng, places = np.random.default_rng(0), Counter()
    for _ in range(2000):
        mask = noise_mask(10, rng, random_roll=True)
        assert mask.sum() == 2 and len(spans_of(mask)) in (2, 3)
        places.update(np.flatnonzero(mask).tolist())
    assert set(places) == set(range(10))
    assert max(places.values()) < 1.3 * min(places.values())


def test_a_real_novel_becomes_a_cached_task(registry, shared_data, monkeypatch, tmp_path):
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))
    source = text_source("text", {"train": "botchan.txt"}, most_words=100, least_words=60)
    options = {"prompt": "{text}", "read_from": "text", "with_image": False}
    plain = list(read_steps(web_task("plain", source, **options), "train"))
    task = web_task("spans", source, preprocessors=[corrupt_spans(sentinel="<s{}>")], **options)
    assert cache_task(task, tmp_path).steps == len(plain) > 100
    cache = StepCache(tmp_path, "spans", "train")
    for whole, step in zip(plain, (cache[i] for i in range(len(cache))), strict=True):
        assert step.images == () and restored(step.text, step.target, "<s{}>") == whole.target


def test_a_split_caption_says_where_it_was_cut_and_every_place_comes(web):
    caption = "a red cube beside a disc"
    steps_ = [
        {"images": [], "text": "", "target": caption, "episode": i, "episode_id": str(i)}
        for i in range(100)
    ]
    task = web(
        steps=steps_,
        prompt="Generate the alt_text in en at {text}",
        preprocessors=[split_targets(seed=3)],
    )
    cuts = Counter()
    for step in read_steps(task, "train"):
        cut, *words = step.text.split()
        assert int(cut[:-1]) == len(words)
        assert " ".join([*words, step.target]) == caption
        cuts[len(words)] += 1
    assert set(cuts) == set(range(6)), "zero words are the whole caption; some are always left"
