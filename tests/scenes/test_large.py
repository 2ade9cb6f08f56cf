"""Data sets may have millions of rows: a few bytes are kept of each, and of those that are wrong the first, counted."""

import json
import os
import tracemalloc
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest

from vergence.chance import rng
from vergence.cli import main
from vergence.scenes import heads, refusals
from vergence.scenes.counted import Counted
from vergence.scenes.digests import Digests
from vergence.scenes.files import read, read_rows
from vergence.scenes.heads import Heads
from vergence.scenes.listing import writing_list
from vergence.scenes.picture import Head
from vergence.scenes.refusals import Refusals
from vergence.scenes.split import fingerprint
from vergence.scenes.spots import At, Spots, order_of
from vergence.scenes.tables import Refused
from vergence.scenes.tally import Tally
from vergence.types import UserError


def held(work):
    """Bytes that are held after it."""
    tracemalloc.start()
    try:
        kept = work()
        return tracemalloc.get_traced_memory()[0], kept
    finally:
        tracemalloc.stop()


def test_texts_are_counted_as_a_counter_would():
    for seed in range(5):
        texts = [str(number) for number in rng("large", seed).zipf(1.3, 1500)]
        tally, plain = Tally(most=150), Counter(texts)
        for text in texts:
            tally.add(text)
        assert tally.different() == len(plain) > 150
        assert list(tally.commonest(8).items()) == plain.most_common(8)
    tally = Tally(most=4)
    for number in range(100):
        tally.add(str(number))
    assert tally.commonest(2) == {"0": 1, "1": 1}  # of equals the first, whatever came after


def test_hashes_are_compared_as_a_dictionary_would():
    for seed in range(8):
        die = rng("hashes", seed)
        content = [sha256(bytes([one])).hexdigest() for one in die.integers(9, size=40)]
        whole = [f"{one:02x}" + "00" * 31 for one in die.integers(3, size=40)]  # they end in zero bytes
        contents, wholes = Digests(), Digests()
        first, found = {}, Counter()
        for one, other in zip(content, whole, strict=True):
            contents.add(one)
            wholes.add(other)
            if one in first:
                found["same" if first[one] == other else "other"] += 1
            first.setdefault(one, other)
        assert contents.repeats(wholes) == (found["same"], found["other"])
        assert wholes.fingerprint() == fingerprint(whole)
    assert Digests().repeats(Digests()) == (0, 0)


def test_many_digests_have_the_hash_of_their_list():
    digests, texts = Digests(), [sha256(str(at).encode()).hexdigest() for at in range(5000)]
    for one in texts:
        digests.add(one)
    assert digests.fingerprint() == fingerprint(texts)


def test_a_row_takes_a_few_bytes(monkeypatch):
    monkeypatch.setattr(refusals, "FIRST", 10)
    number = 2000

    def fill():
        spots, digests, tally, wrong = Spots(), Digests(), Tally(most=100), Refusals()
        for at in range(number):
            spots.add(At(0, at, 100 * at))
            digests.add(f"{at:064x}")
            tally.add(str(at))
            wrong.add(Refused("a.jsonl", at, "answer", f"there is no file '{at}.png'", "copy it", "line"))
        return spots, digests, tally, wrong

    taken, (spots, digests, tally, wrong) = held(fill)
    assert len(spots) == len(digests) == wrong.number == number
    assert tally.different() == number
    assert len(wrong.first) == 10
    assert wrong.reasons == {"answer: there is no file '...'": number}
    assert taken < 90 * number  # 24 + 32 + 8, what arrays have to spare, and what is kept of texts and refusals


def test_reasons_that_are_all_different_are_not_all_kept():
    wrong = Refusals()
    for at in range(1500):
        wrong.add(Refused("a", at, f"column {at}", f"reason {at}", "mend it"))
    assert len(wrong.reasons) == len(wrong.fields) == 1001
    assert wrong.reasons.total() == wrong.fields.total() == 1500


def test_spots_are_places_in_order():
    some = [At(part, number, 7 * number) for part in (0, 1) for number in range(5)]
    spots = Spots(some)
    assert list(spots) == some
    assert [spots[at] for at in range(-10, 10)] == some * 2
    assert spots[2:8:3] == Spots(some[2:8:3]) != Spots(some)
    assert spots.index(some[3]) == 3
    with pytest.raises(IndexError):
        spots[10]


def test_an_epoch_has_one_order_however_often_it_is_asked_for():
    order_of.cache_clear()
    for _ in range(2):
        for epoch in range(4):
            assert (order_of(3, epoch, 50) == rng("order", 3, epoch).permutation(50)).all()
    with pytest.raises(ValueError, match="read-only"):
        order_of(3, 0, 50)[0] = 1
    source = read_rows([{"question": f"How much is {at} + 1?", "answer": str(at + 1)} for at in range(30)])
    size = len(source.rows["train"])
    asked = [one.key for one in source.train(size - 3, 6, seed=3)]
    own = [int(at) for epoch in (0, 1) for at in rng("order", 3, epoch).permutation(size)]
    assert asked == [f"rows/{source.rows['train'][own[at]].number}" for at in range(size - 3, size + 3)]
    assert isinstance(own[0], int)
    assert not isinstance(source.rows["train"][0].number, np.integer)


def test_heads_of_pictures_make_room(monkeypatch, tmp_path):
    monkeypatch.setattr(heads, "MOST", 2)
    kept = Heads()
    for name in "abc":
        kept[tmp_path / name] = Head("PNG", "RGB", 1, 1, 1, name)
    assert [path.name for path in kept] == ["b", "c"]


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """Ten rows more than are kept, none of which can be used."""
    monkeypatch.setattr(refusals, "FIRST", 50)
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps({"question": f"How many? {at}"}) + "\n" for at in range(60)))
    return path


def test_all_refusals_are_counted_and_listed_and_the_first_are_kept(bad, tmp_path, capsys):
    files = read(bad)
    assert files.refusals.number == 60
    assert len(files.refused) == 50
    listed = tmp_path / "refused.jsonl"
    main(["data", "check", str(bad), "--refused", str(listed)])
    assert "60 rows, 0 of them sound" in capsys.readouterr().out
    rows = [json.loads(line)["row"] for line in listed.read_text().splitlines()]
    assert rows == list(range(1, 61))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "refused.jsonl"]


def test_a_list_that_was_not_finished_leaves_the_one_before(bad, tmp_path, monkeypatch):
    listed = tmp_path / "refused.jsonl"
    main(["data", "check", str(bad), "--refused", str(listed)])
    before = listed.read_bytes()

    def broken(self):
        raise UserError("the disk is gone")

    monkeypatch.setattr(Counted, "summary", broken)
    with pytest.raises(SystemExit):
        main(["data", "check", str(bad), "--refused", str(listed)])
    assert listed.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "refused.jsonl"]


def test_a_list_goes_where_a_link_or_a_pipe_leads(bad, tmp_path):
    link, behind = tmp_path / "link", tmp_path / "behind.jsonl"
    link.symlink_to(behind)
    main(["data", "check", str(bad), "--refused", str(link)])
    assert link.is_symlink()  # as /dev/stdout is one
    assert len(behind.read_text().splitlines()) == 60
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with writing_list(pipe) as write:
        write({"row": 1})
    assert os.read(reader, 100) == b'{"row": 1}\n'
    os.close(reader)
