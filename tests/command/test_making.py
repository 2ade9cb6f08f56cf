"""`vergence seedling` and `vergence reasoners`: what they pass on and print. The raising itself is tested elsewhere."""

from pathlib import Path

import pytest

from vergence.cli import main
from vergence.train import reasoners, warm_start


def test_reasoners_are_raised_from_the_seed(capsys, monkeypatch, tmp_path):
    given = []

    def raised(out: Path, seed: int, watch) -> None:
        given.append((out, seed))
        for step in (99, 100):
            watch("weak", step, 0.5)

    monkeypatch.setattr(reasoners, "raise_reasoners", raised)
    main(["reasoners", "--out", str(tmp_path / "new"), "--seed", "3", "--threads", "1"])
    out, error = capsys.readouterr()
    assert given == [(tmp_path / "new", 3)]
    assert out == f"{tmp_path / 'new'}\n"
    assert error == "weak: step   100  loss 0.500\n"


def test_reasoners_do_not_overwrite(capsys, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(SystemExit) as end:
        main(["reasoners", "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_seedling_is_raised_from_the_seed(capsys, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(warm_start, "raise_and_save", lambda settings, out, watch: given.append((settings.seed, out)))
    main(["seedling", "--out", str(tmp_path), "--seed", "5", "--threads", "1"])
    assert given == [(5, tmp_path)]
    assert capsys.readouterr().out == f"{tmp_path}\n"
