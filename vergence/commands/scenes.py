"""Commands about scenes."""

from pathlib import Path

import tyro

Positional = tyro.conf.Positional


def data_check(source: Positional[str], out: Path = Path("data-check.png"), number: int = 400) -> None:
    """Say what a source of scenes holds, split by split, and draw a picture sheet of samples.

    Example: vergence data check embedded --out sheet.png

    Args:
        source: "embedded", or a .jsonl file.
        out: Where to write the sheet.
        number: Scenes of each split that are looked at.
    """
    from vergence.scenes.check import check_splits, samples, sheet
    from vergence.scenes.embedded import WORLDS
    from vergence.scenes.source import open_source

    opened = open_source(source, tuple(WORLDS))
    print(check_splits(opened, number=number))
    sheet(samples() if source == "embedded" else opened.train(0, 12, seed=0), out)
    print(f"Samples: {out}")
