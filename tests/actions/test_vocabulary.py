import hashlib
import json

import numpy as np
import pytest

from rt2_jax.actions.vocabulary import ActionVocabulary


class WordTokenizer:
    """A small tokenizer of its own: one id for each word in its list, else one for each letter."""

    def __init__(self, words, merged=None):
        self.pieces = ["<pad>", *map(str, words), *(merged or {}), *"0123456789- "]
        self.merged = merged or {}

    @property
    def hash(self):
        return hashlib.sha256("|".join(self.pieces).encode()).hexdigest()

    @property
    def vocab_size(self):
        return len(self.pieces)

    def encode(self, text):
        for pair in self.merged:
            text = text.replace(pair, pair.replace(" ", "_"))
        ids = []
        for word in text.split(" "):
            known = word.replace("_", " ")
            ids += [self.pieces.index(x) for x in ([known] if known in self.pieces else known)]
        return ids

    def decode(self, ids):
        return " ".join(self.pieces[i] for i in ids)

    def id_to_piece(self, id):
        return self.pieces[id]

    def score(self, id):
        return -float(id // 3)

    def is_normal(self, id):
        return id != 0


INTEGERS = WordTokenizer(range(255, -1, -1))
WORDS = WordTokenizer(f"word{i}" for i in range(300))
VOCABULARY = ActionVocabulary.from_integer_pieces(INTEGERS)


def test_on_the_integer_route_a_level_is_the_token_of_its_integer():
    assert VOCABULARY.to_ids([1, 128, 255]).tolist() == INTEGERS.encode("1 128 255")
    assert VOCABULARY.to_integers(INTEGERS.encode("1 128 91 241 5 101 127 217")).tolist() == [
        1, 128, 91, 241, 5, 101, 127, 217,
    ]  # fmt: skip


@pytest.mark.parametrize("route", ["from_integer_pieces", "from_rare_pieces"])
def test_a_vocabulary_is_made_for_any_run_of_integers(route):
    tokenizer = WordTokenizer(range(-10, 11))
    vocabulary = getattr(ActionVocabulary, route)(tokenizer, range(-10, -1))
    assert len(vocabulary.ids) == 9
    assert vocabulary.to_ids([-10, -2]).tolist() == [vocabulary.ids[0], vocabulary.ids[-1]]
    assert vocabulary.to_integers(vocabulary.ids).tolist() == list(range(-10, -1))
    with pytest.raises(ValueError, match="integer 0 has no token: .* has -10 to -2"):
        vocabulary.to_ids([0])


def test_all_integers_that_are_no_single_pieces_are_listed_and_the_other_route_named():
    words = [i for i in range(256) if i not in (12, 77, 78, 79, 200, 254, 255)]
    message = r"7 of the integers 0-255 .*: 12, 77-79, 200, 254-255\. Use .*from_rare_pieces"
    with pytest.raises(ValueError, match=message):
        ActionVocabulary.from_integer_pieces(WordTokenizer(words))
    with pytest.raises(ValueError, match="2 of the integers -3 to 9 .*: -3 to -2. Use"):
        ActionVocabulary.from_integer_pieces(WordTokenizer(range(-1, 10)), range(-3, 10))


def test_one_unknown_token_for_all_integers_is_no_vocabulary():
    class Unknowing(WordTokenizer):
        def encode(self, text):
            return [0 for _ in text.split(" ")]

    with pytest.raises(ValueError, match="256 of the integers 0-255 .*: 0-255"):
        ActionVocabulary.from_integer_pieces(Unknowing(range(256)))


def test_integers_that_merge_with_a_neighbour_are_refused():
    tokenizer = WordTokenizer(range(256), merged={"91 241": 0})
    assert tokenizer.encode("91") == [92]
    with pytest.raises(ValueError, match="not in the text '91 91 91 92 .*from_rare_pieces"):
        ActionVocabulary.from_integer_pieces(tokenizer)


def test_on_the_rare_route_levels_are_the_pieces_of_lowest_score():
    # Scores fall with the id in steps of three; ties go in the order of ids.
    assert ActionVocabulary.from_rare_pieces(WORDS, range(5)).ids == (300, 297, 298, 299, 294)


def test_with_a_corpus_they_are_the_pieces_that_it_uses_least():
    corpus = [" ".join(WORDS.id_to_piece(i).lstrip("\u2581") for i in range(1, 301))] * 2
    corpus += [" ".join(WORDS.id_to_piece(i).lstrip("\u2581") for i in range(3, 301))]
    assert ActionVocabulary.from_rare_pieces(WORDS, range(3), corpus).ids[:2] == (1, 2)
    with pytest.raises(ValueError, match="the corpus has no text"):
        ActionVocabulary.from_rare_pieces(WORDS, range(3), [])


def test_the_rare_route_takes_no_special_piece_and_no_single_character():
    everything = ActionVocabulary.from_rare_pieces(WORDS, range(300))
    assert sorted(everything.ids) == list(range(1, 301))
    with pytest.raises(ValueError, match="300 normal pieces of two or more .*301 are needed"):
        ActionVocabulary.from_rare_pieces(WORDS, range(301))


def test_the_rare_route_refuses_a_tokenizer_without_scores(monkeypatch):
    monkeypatch.setattr(WORDS, "score", lambda id: 0.0)
    with pytest.raises(ValueError, match="all pieces .* have the score 0.0, .*least used"):
        ActionVocabulary.from_rare_pieces(WORDS)


@pytest.mark.parametrize("shape", [(), (8,), (2, 1, 8)])
def test_integers_of_any_shape_become_ids_of_that_shape(shape):
    ids = VOCABULARY.to_ids(np.full(shape, 7))
    assert ids.shape == shape
    assert ids.dtype == np.int32
    assert (ids == VOCABULARY.ids[7]).all()


def test_every_integer_comes_back_from_its_token():
    integers = np.arange(256)
    assert (VOCABULARY.to_integers(VOCABULARY.to_ids(integers)) == integers).all()


def test_a_token_that_is_no_action_token_is_refused_by_id_piece_and_position():
    ids = [*INTEGERS.encode("1 128"), 0]
    with pytest.raises(ValueError, match=r"token 0 \('<pad>'\) at position 2 is no action token"):
        VOCABULARY.to_integers(ids, INTEGERS.id_to_piece)
    with pytest.raises(ValueError, match="token 0 at position 2 is no action token"):
        VOCABULARY.to_integers(np.array(ids))


def test_an_integer_without_a_token_is_refused():
    for integer in (-1, 256):
        with pytest.raises(ValueError, match=f"integer {integer} has no token: .* 0 to 255"):
            VOCABULARY.to_ids([0, integer])
    with pytest.raises(TypeError, match="maps integers, found dtype float64"):
        VOCABULARY.to_ids([0.5])


def test_another_tokenizer_is_refused():
    VOCABULARY.check_tokenizer(INTEGERS)
    with pytest.raises(ValueError, match="its token ids mean other pieces"):
        VOCABULARY.check_tokenizer(WordTokenizer(range(256)))


def test_a_vocabulary_comes_back_from_json_with_its_hash():
    signed = ActionVocabulary((7, 3, 5), range(-1, 2), "integer_pieces", "a")
    for vocabulary in (VOCABULARY, signed):
        back = ActionVocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
        assert back == vocabulary
        assert back.hash == vocabulary.hash
    with pytest.raises(KeyError, match="missing keys .*tokenizer_hash.*unknown keys .*offset"):
        ActionVocabulary.from_json({"ids": [1], "route": "integer_pieces", "offset": 3})


def test_the_hash_changes_with_ids_integers_route_and_tokenizer():
    vocabularies = [
        ActionVocabulary((1, 2), range(2), "integer_pieces", "a"),
        ActionVocabulary((2, 1), range(2), "integer_pieces", "a"),
        ActionVocabulary((1, 2), range(1, 3), "integer_pieces", "a"),
        ActionVocabulary((1, 2), range(2), "rare_pieces", "a"),
        ActionVocabulary((1, 2), range(2), "integer_pieces", "b"),
    ]
    assert len({vocabulary.hash for vocabulary in vocabularies}) == 5


@pytest.mark.parametrize(
    ("ids", "integers", "route", "message"),
    [
        ((4, 5, 4, 5, 6), range(5), "rare_pieces", r"distinct .* found 5 ids with \[4, 5\]"),
        ((-1, 3), range(2), "rare_pieces", "distinct token ids >= 0"),
        ((), range(0), "rare_pieces", "found 0 ids"),
        ((1, 2), range(3), "rare_pieces", r"each of its 2 ids, found range\(0, 3\)"),
        ((1, 2), range(0, 4, 2), "rare_pieces", r"consecutive .*found range\(0, 4, 2\)"),
        ((1, 2), range(2), "offset", r"'offset' is not one of \['integer_pieces', 'rare_pieces'"),
    ],
)
def test_a_wrong_table_is_refused(ids, integers, route, message):
    with pytest.raises(ValueError, match=message):
        ActionVocabulary(ids, integers, route, "hash")


def test_the_rare_route_with_real_vocabularies(shared_data):
    pytest.importorskip("sentencepiece")
    from rt2_jax.data.vocabulary.tokenizer import Tokenizer

    t5 = Tokenizer.from_file(shared_data / "tokenizers/t5_32k_rebuilt.model")
    ids = ActionVocabulary.from_rare_pieces(t5).ids
    assert sorted(ids) == list(range(31744, 32000))
    assert ids[:3] == (31999, 31998, 31997)
    gpt2 = Tokenizer.from_file(shared_data / "tokenizers/bigbird_gpt2_50k.model")
    with pytest.raises(ValueError, match="all pieces .* have the score 0.0"):
        ActionVocabulary.from_rare_pieces(gpt2)
