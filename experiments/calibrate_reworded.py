"""How much stronger is PAPO's masked view than one that only disturbs the question? Once, on the warm start.

    python experiments/calibrate_reworded.py

Prints the mean k3 to both views over the seedling's own responses to held-out questions of the tune split, and their
ratio: the `strength` with which the control `+reworded` starts as strong as the method it controls.
"""

from statistics import fmean

from vergence.evaluate.interval import bootstrap
from vergence.evaluate.perception import divergences
from vergence.models.policy import load
from vergence.scenes.source import open_source
from vergence.types import Erase, Reword


def main() -> None:
    """Measure and print."""
    scenes = open_source("embedded", ("digits", "shapes", "bars", "geometry")).held_out("tune", 240, seed=0)
    found = divergences(load("seedling"), scenes, {"masked": Erase(0.6, 8), "reworded": Reword(0.3)})
    for view in ("masked", "reworded"):
        print(f"{view}: k3 {bootstrap(found[f'{view} k3'])}, KL {bootstrap(found[view])}")
    print(f"strength {fmean(found['masked k3'].values()) / fmean(found['reworded k3'].values()):.2f}")


if __name__ == "__main__":
    main()
