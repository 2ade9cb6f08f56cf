"""What changes while a run trains: the last step that is finished, and the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vergence.train import checkpoint
from vergence.train.backend import first
from vergence.train.checkpoint import Standing, number_of
from vergence.train.keeping import prune
from vergence.train.memory import HalfUpdated, during
from vergence.train.parts import Parts
from vergence.train.rollback import kept_to_go_back
from vergence.train.run import RunFolder
from vergence.train.stopping import Stop
from vergence.types import Metrics, UserError


class Course:
    """Where a run is. At any instant `stands` can be saved, with the weights and the optimizer as they are: it changes
    when a step is finished, and a round that is given up before has changed nothing but the ends of the logs.

    Args:
        saved: the checkpoint that the run goes on from.
        stop: is not in the way of a save.
    """

    def __init__(self, parts: Parts, run: RunFolder, stands: Standing, saved: Path | None, stop: Stop) -> None:
        self.parts, self.run, self.stands, self.saved, self.stop = parts, run, stands, saved, stop

    def take(self, now: Standing, metrics: Metrics) -> None:
        """A step was taken on where the round stands `now`; its metrics are to be logged when it is evaluated."""
        config, ahead = self.parts.config, self.parts.ahead
        self.stands = now.after_a_step(config.steps_per_batch, metrics, self.run.marks())
        if ahead:
            ahead.done_with(now.step // config.steps_per_batch)

    def log(self, metrics: Metrics) -> None:
        """Log the step: with that it is finished."""
        self.run.append("metrics.jsonl", [metrics])
        self.stands = self.stands.logged(self.run.marks())

    def asked_to_stop(self) -> bool:
        """Whether any process of the run was asked to stop, and if by SIGTERM, all of them know."""
        said = self.parts.backend.exchange((self.stop.asked, self.stop.terminated))
        if any(terminated for _, terminated in said):  # no `|=`: a signal may come while it is worked out
            self.stop.terminated = True
        return any(asked for asked, _ in said)

    @property
    def is_saved(self) -> bool:
        """Whether there is a checkpoint of where the run stands, read or written by this process."""
        return self.saved is not None and number_of(self.saved) == self.stands.step

    def save(self) -> None:
        """Write the checkpoint of where the run stands, and take away those that are not to be kept."""
        if self.parts.ahead:
            self.parts.ahead.wait(checkpoint.following(self.parts.config, self.stands))
        self._write()

    def save_at_once(self) -> None:
        """The same where a round was given up, unless it is saved: nothing that is sampled ahead is waited for."""
        self.run.cut(self.stands.marks)
        if not self.is_saved:
            self._write()

    def keep(self) -> None:
        """The same where something has gone wrong, if the run has got anywhere."""
        self.run.cut(self.stands.marks)
        if self.stands.step and not self.is_saved:
            self.save()

    def _write(self) -> None:
        run, config, step = self.run, self.parts.config, self.stands.step
        with self.stop.saving():
            self.saved = checkpoint.save(run, self.parts, self.stands)
            first(self.parts.backend, lambda: prune(run, config, step, also=kept_to_go_back(run, step, config)))


@contextmanager
def keeping_what_is_finished(save: Callable[[], None]) -> Iterator[None]:
    """A run that has to end because scenes, captions, a reasoner or memory cannot be had is saved first."""
    try:
        yield
    except HalfUpdated:
        raise
    except UserError:
        with suppress(UserError), during("saving"):  # no space to save: what is told is why the run ends
            save()
        raise
