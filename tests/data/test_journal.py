"""Journals: whole records survive whatever happened to their writer."""

import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource

from rt2_jax.data.journal import Journal, JournalWriter, seal_journal

RECORDS = [b"one", b"", b"three" * 50]


@pytest.fixture
def path(tmp_path):
    writer = JournalWriter(tmp_path / "x.journal")
    for record in RECORDS:
        writer.append(record)
    writer.close()
    assert writer.size == writer.path.stat().st_size
    return writer.path


def test_whole_records_are_read_wherever_a_journal_is_cut_off(path):
    whole = path.read_bytes()
    ends = [15, 27, len(whole)]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        journal = Journal(path)
        count = sum(end <= length for end in ends)
        assert [journal[i] for i in range(len(journal))] == RECORDS[:count]
        assert journal.unreadable == length - ([0, *ends][count])


def test_a_damaged_record_ends_what_is_read(path):
    whole = path.read_bytes()
    for place in range(15, 27):  # the second record is its head alone
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert len(Journal(path)) == 1


def test_a_sealed_journal_is_an_array_record_file(path):
    final = seal_journal(path)
    source = ArrayRecordDataSource(str(final))
    assert [source[i] for i in range(len(source))] == RECORDS
    assert [file.name for file in final.parent.iterdir()] == ["x.array_record"]


def test_a_journal_that_cannot_be_sealed_stays(path):
    (path.parent / "x.array_record.unfinished").mkdir()
    with pytest.raises(OSError, match="x.array_record cannot be written .* stays"):
        seal_journal(path)
    assert len(Journal(path)) == 3


def test_a_journal_is_never_written_over(path):
    with pytest.raises(FileExistsError):
        JournalWriter(path)
