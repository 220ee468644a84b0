"""What a user of the vocabulary is promised: rt2_8k, other people's models, and the training."""

import doctest
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.vocabulary import fertility, train
from rt2_jax.data.vocabulary.corpus import CHARACTERS, sentences
from rt2_jax.data.vocabulary.tokenizer import Tokenizer, load_vocabulary
from rt2_jax.data.vocabulary.train import VOCABULARY_SIZE, single_piece_words, special_pieces

ACTION = "1 128 91 241 5 101 127 217"
MODEL = Path(train.__file__).with_name("rt2_8k.model")
TRAINED_WITH = "0.2.3"


@pytest.fixture(scope="module")
def rt2():
    return load_vocabulary()


@pytest.fixture(scope="module")
def other(shared_data):
    return lambda name: Tokenizer.from_file(shared_data / "tokenizers" / f"{name}.model")


def pieces(tokenizer, text):
    return [tokenizer.id_to_piece(i) for i in tokenizer.encode(text)]


# rt2_8k


def test_special_ids_are_those_of_t5(rt2):
    assert (rt2.pad_id, rt2.eos_id, rt2.unk_id) == (0, 1, 2)
    assert rt2.vocab_size == VOCABULARY_SIZE


def test_every_integer_of_an_action_is_one_piece(rt2):
    ids = [rt2.encode(str(i)) for i in range(256)]
    assert all(len(i) == 1 for i in ids) and len({i for (i,) in ids}) == 256
    assert [rt2.decode(i) for i in ids] == [str(i) for i in range(256)]


@given(integers=st.lists(st.integers(-10, 255), min_size=1, max_size=30))
def test_a_sequence_of_integers_is_one_piece_each_and_comes_back(rt2, integers):
    text = " ".join(map(str, integers))
    assert pieces(rt2, text) == [f"▁{i}" for i in integers]
    assert rt2.decode(rt2.encode(text)) == text


def test_integers_stay_single_pieces_inside_a_chain_of_thought(rt2):
    text = f"Instruction: I'm hungry. Plan: pick rxbar chocolate. Action: {ACTION}."
    assert pieces(rt2, text)[-10:] == [":", *(f"▁{i}" for i in ACTION.split()), "."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1284", "▁128 4"),
        ("256", "▁25 6"),
        ("007", "▁0 0 7"),
        ("3.5", "▁3 . 5"),
        ("255th", "▁255 t h"),
        ("x128", "▁ x 1 2 8"),
        ("(5)", "▁( 5 )"),
        ("5-10", "▁5 - 1 0"),
        ("-3 10", "▁-3 ▁10"),
        ("-11", "▁-1 1"),
        ("Action:128", "▁Action : 1 2 8"),
    ],
)
def test_other_numbers_are_split_at_digits_and_come_back(rt2, text, expected):
    assert pieces(rt2, text) == expected.split()
    assert rt2.decode(rt2.encode(text)) == text


@given(
    numbers=st.lists(st.integers(0, 1023), min_size=1, max_size=8),
    separator=st.sampled_from(["", " ", ", "]),
)
def test_a_location_is_one_piece_wherever_it_stands(rt2, numbers, separator):
    names = [f"<loc{n:04d}>" for n in numbers]
    text = f"at{separator}{separator.join(names)} green star"
    assert [p for p in pieces(rt2, text) if p.startswith("<loc")] == names
    assert rt2.decode(rt2.encode(text)) == text


def test_a_pointing_answer_costs_one_id_per_location_and_word_and_one_to_open(rt2):
    expected = ["▁", "<loc0512>", "<loc0100>", "▁green", "▁star"]
    assert pieces(rt2, "<loc0512><loc0100> green star") == expected
    assert "<loc1024>" not in pieces(rt2, "<loc1024>")


def test_words_of_a_table_top_world_and_of_coco_are_one_piece_after_a_space(rt2):
    words = single_piece_words()
    assert {"cyan", "pentagon", "A", "Z", "left", "top", "seven", "giraffe", "teddy"} <= set(words)
    assert pieces(rt2, "the " + " ".join(words)) == ["▁the", *(f"▁{word}" for word in words)]


def test_the_robot_prompt_costs_one_token_per_word_and_mark(rt2):
    prompt = (
        "Q: what action should the robot take to push the green star to the top left corner? A:"
    )
    assert len(rt2.encode(prompt)) == len(prompt.split()) + len("::?")


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_any_text_comes_back_exactly_and_nothing_is_unknown(rt2, text):
    ids = rt2.encode(text)
    assert rt2.decode(ids) == text and rt2.unk_id not in ids


def test_markup_in_a_users_text_never_becomes_a_control_token(rt2):
    assert not {rt2.pad_id, rt2.eos_id, rt2.unk_id} & set(rt2.encode("<pad></s><unk><0x41>"))
    assert rt2.decode([rt2.pad_id, *rt2.encode("a dog"), rt2.eos_id]) == "a dog"


def test_normal_pieces_are_those_that_training_found(rt2):
    normal = [i for i in range(rt2.vocab_size) if rt2.is_normal(i)]
    assert 5_500 <= len(normal) == rt2.vocab_size - 3 - 256 - len(special_pieces())
    assert not any(rt2.is_normal(rt2.piece_to_id(p)) for p in ("</s>", "<0x41>", "▁7", "<loc0000>"))
    assert rt2.is_normal(rt2.piece_to_id("▁green"))


def test_overwriting_the_rarest_pieces_spares_characters_integers_and_table_top_words(rt2):
    rare = {rt2.id_to_piece(i) for i in ActionVocabulary.from_rare_pieces(rt2).ids}
    assert len(rare) == 256
    spared = {*CHARACTERS, *special_pieces(), *(f"▁{word}" for word in single_piece_words())}
    assert not rare & spared


def test_common_pieces_score_higher_than_rare_ones(rt2):
    score = {w: rt2.score(rt2.piece_to_id(f"▁{w}")) for w in ("the", "giraffe")}
    assert 0 > score["the"] > score["giraffe"]


# The tokenizer


def test_a_pickled_tokenizer_is_the_same_tokenizer(rt2):
    copy = pickle.loads(pickle.dumps(rt2))
    assert copy.hash == rt2.hash
    assert copy.encode("move the green star") == rt2.encode("move the green star")


def test_the_hash_is_that_of_the_file(rt2):
    assert load_vocabulary(MODEL).hash == rt2.hash
    assert rt2.hash == hashlib.sha256(MODEL.read_bytes()).hexdigest()


def test_a_missing_file_is_refused_and_built_in_names_are_listed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no vocabulary at .*missing\.model.*rt2_8k"):
        load_vocabulary(tmp_path / "missing.model")


@pytest.mark.parametrize("content", [b"", b'{"model": "a tokenizer.json"}', b"version https://git"])
def test_a_file_that_is_no_sentencepiece_model_is_refused_by_name(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: .*no SentencePiece model.*converted"):
        load_vocabulary(path)


@pytest.mark.parametrize("id", [-1, 8000])
@pytest.mark.parametrize(
    "use",
    [lambda t, i: t.decode([5, i]), Tokenizer.id_to_piece, Tokenizer.score, Tokenizer.is_normal],
)
def test_an_id_outside_the_vocabulary_is_refused_by_number(rt2, use, id):
    with pytest.raises(ValueError, match=rf"token id {id} is not in rt2_8k: its ids are 0 to 7999"):
        use(rt2, id)


def test_a_string_that_is_no_piece_is_refused_by_name(rt2):
    assert rt2.id_to_piece(rt2.piece_to_id("<loc1023>")) == "<loc1023>"
    with pytest.raises(KeyError, match="'<loc1024>' is no piece of rt2_8k"):
        rt2.piece_to_id("<loc1024>")


def test_tokenizing_needs_no_tensorflow():
    code = (
        "import sys; from rt2_jax.data import load_vocabulary; load_vocabulary().encode('a');"
        "sys.exit(str({'tensorflow', 'seqio', 'jax', 'google.protobuf'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "set()"


def test_seqio_gives_the_same_ids(rt2):
    seqio = pytest.importorskip("seqio")
    vocabulary = seqio.SentencePieceVocabulary(str(MODEL), extra_ids=0)
    assert vocabulary.vocab_size == rt2.vocab_size
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    for text in [ACTION, "<loc0512><loc0100> green star", " two\nlines ä 你", *sentences(200)]:
        assert list(vocabulary.encode(text)) == rt2.encode(text)
        assert vocabulary.encode_tf(text).numpy().tolist() == rt2.encode(text)
        assert vocabulary.decode(rt2.encode(text)) == text


# Other people's vocabularies


@pytest.mark.parametrize(
    ("name", "size", "special", "not_normal"),
    [
        ("bigbird_pegasus_96k", 96_103, (0, 1, 105), "<sep_0>"),
        ("bigbird_gpt2_50k", 50_358, (0, 1, 100), "<sep_0>"),
        ("t5_32k_rebuilt", 32_000, (0, 1, 2), "</s>"),
        ("albert_30k_spiece", 30_000, (0, -1, 1), "[MASK]"),
        ("caps_ints_8000", 8_000, (0, 1, 2), "<0x41>"),
        ("spm_test_1000", 1_000, (-1, 2, 0), "<s>"),
    ],
)
def test_other_sentencepiece_models_load(other, name, size, special, not_normal):
    tokenizer = other(name)
    assert tokenizer.vocab_size == size
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == special
    assert not tokenizer.is_normal(tokenizer.piece_to_id(not_normal))
    assert tokenizer.is_normal(tokenizer.piece_to_id("▁the"))


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("bigbird_pegasus_96k", [305, 12593, 12041, 56040, 371, 8520, 25389, 40322]),
        ("bigbird_gpt2_50k", [453, 13209, 10596, 35251, 743, 9050, 18213, 24995]),
    ],
)
def test_the_integer_route_takes_models_with_single_piece_integers(other, name, golden):
    tokenizer = other(name)
    levels = [int(i) for i in ACTION.split()]
    vocabulary = ActionVocabulary.from_integer_pieces(tokenizer)
    assert vocabulary.to_ids(levels).tolist() == tokenizer.encode(ACTION) == golden
    assert tokenizer.decode(golden) == ACTION


def test_the_integer_route_takes_rt2_8k(rt2):
    vocabulary = ActionVocabulary.from_integer_pieces(rt2)
    levels = [int(i) for i in ACTION.split()]
    assert vocabulary.to_ids(levels).tolist() == rt2.encode(ACTION)
    assert vocabulary.tokenizer_hash == rt2.hash


@pytest.mark.parametrize(
    ("name", "missing", "some"),
    [
        ("t5_32k_rebuilt", 178, "57-59"),
        ("albert_30k_spiece", 125, "251-255"),
        ("spm_test_1000", 256, "0-255"),
        ("seqio_test_26", 256, "0-255"),
    ],
)
def test_the_integer_route_refuses_other_models_and_lists_the_missing(other, name, missing, some):
    with pytest.raises(ValueError, match=rf"{missing} of the integers 0-255 .*[ :]{some}[,.]"):
        ActionVocabulary.from_integer_pieces(other(name))


# Training and documentation


def test_the_examples_of_the_documentation_run():
    page = Path(__file__).parents[2] / "docs" / "vocabulary.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted >= 5 and not result.failed


def test_the_corpus_is_the_same_every_time():
    assert list(sentences(300)) == list(sentences(300)) != list(sentences(300, seed=1))


def test_the_corpus_inflects_as_english_does():
    words = set(" ".join(sentences(60_000)).lower().replace(".", "").replace(",", "").split())
    assert {"women", "knives", "puppies", "benches", "taken", "sat", "stopping", "lying"} <= words
    assert not {"womans", "knifes", "puppys", "benchs", "taked", "sitted", "stoping"} & words


def test_training_again_gives_the_checked_in_vocabulary(rt2):
    again = Tokenizer(train.train_vocabulary())
    ours, theirs = ([t.id_to_piece(i) for i in range(t.vocab_size)] for t in (rt2, again))
    if sentencepiece.__version__ == TRAINED_WITH:
        assert theirs == ours
    else:
        assert len(set(theirs) & set(ours)) > 0.98 * VOCABULARY_SIZE


def test_training_refuses_a_vocabulary_that_splits_a_table_top_word(monkeypatch):
    monkeypatch.setattr(train, "SENTENCES", 30_000)
    monkeypatch.setattr(train, "single_piece_words", lambda: ["red", "parallelepiped"])
    with pytest.raises(ValueError, match=r"must be one piece each.*\['parallelepiped'\]"):
        train.train_vocabulary()


# Fertility


def test_captions_cost_few_tokens_per_word(rt2, shared_data):
    data = json.loads((shared_data / "text" / "coco_captions_val2017.json").read_text())
    captions = list(fertility.strings_under(data, "caption"))
    assert len(captions) == 25_014
    assert fertility.fertility(rt2, captions) <= 1.25


def test_fertility_reads_json_and_plain_text(tmp_path, capsys):
    path = tmp_path / "text.json"
    path.write_text(json.dumps({"a": [{"q": ["the dog", "a cat"]}, {"q": "red"}], "r": "no"}))
    fertility.main([str(path), "--key", "q"])
    plain = tmp_path / "text.txt"
    plain.write_text(" the dog \n\na dog.\n")
    fertility.main([str(plain), "--vocabulary", "rt2_8k"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["1.000", "1.250"]


def test_fertility_of_no_text_is_refused(rt2):
    with pytest.raises(ValueError, match="at least one word"):
        fertility.fertility(rt2, [" "])
