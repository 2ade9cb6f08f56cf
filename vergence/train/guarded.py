"""A run under its guards: what they see is told, and what is to be done about it is done."""

from __future__ import annotations

from collections.abc import Callable

from vergence import objectives
from vergence.guards.catalogue import Raised, Watchman
from vergence.guards.updates import not_finite
from vergence.train.backend import first
from vergence.train.checkpoint import Standing, marks_of, name_of
from vergence.train.course import Course
from vergence.train.interventions import Intervention, Stopped, effective, goes_back, interventions
from vergence.train.opening import left_at
from vergence.train.rollback import decide, put_aside, record
from vergence.train.run import read_lines
from vergence.types import Metrics


class Guarded:
    """The guards of a run. Of several processes the first watches and decides, and all do what it says.

    Args:
        tell: told what is raised, and what is done.
    """

    def __init__(self, at: Course, tell: Callable[[str], None] = lambda _: None) -> None:
        self.at, self.tell = at, tell
        self._look_back()

    def see(self, metrics: Metrics) -> None:
        """Take a step's line, which is logged: a line to `tell` for whatever goes wrong, each once in a run."""
        for warning in self.watchman(metrics):
            self.tell(warning.told())

    def prepare(self) -> None:
        """Save the start, where a guard may send the run back to it. What stopped the run here is told once more: who
        was killed before the message came, or resumes without having read it, learns of it now."""
        for one in interventions(self.at.run.path):
            if one.action == "stop" and one.step == self.at.stands.step:
                self.tell(f"this run was {one.told()}. It goes on all the same")
        if goes_back(self.at.parts.config) and not self.at.stands.step and not self.at.is_saved:
            self.at.save()

    def act(self) -> bool:
        """Do what is to be done about what was raised, if anything; whether the run has gone back.

        Raises:
            Stopped: a guard ends the run, which is saved.
        """
        at = self.at
        doing = first(at.parts.backend, self._decided)
        if doing is None:
            return False
        if doing.action == "stop":
            if not at.is_saved:
                at.save()
            at.stop.calm()  # whatever is asked from here on, it ends by its guard
            first(at.parts.backend, lambda: record(at.run.path, doing))
            raise Stopped(
                f"{doing.told()}. The run is saved. --resume goes on all the same; with --guard '{doing.guard}=warn' "
                f"it is only told of"
            )
        with at.stop.settling():
            at.stop.hold()
            self._go_back(doing)
        self.tell(doing.told())
        return True

    def _decided(self) -> Intervention | None:
        config, raised, past = self.at.parts.config, self.watchman.raised, self.watchman.past
        again = not_finite(past)  # a step that is not taken is no news the second time, and is not to be passed over
        found = [*raised, *([Raised(past.step, "not finite", again.said, again.since)] if again else [])]
        doing = decide(self.at.run, found, raised, config)
        if doing is not None and doing.to is not None:
            put_aside(self.at.run, len(interventions(self.at.run.path)) + 1, doing.to)
        return doing

    def _go_back(self, doing: Intervention) -> None:
        """Have weights, optimizer, logs and what is asked next as they were, and the config with what is lowered."""
        at, peers = self.at, self.at.parts.backend
        to = at.run.checkpoints / name_of(doing.to)
        first(peers, lambda: record(at.run.path, doing))
        at.saved, at.stands = to, Standing(doing.to, 0, None, marks_of(to))  # whatever happens now, nothing is saved
        if at.parts.ahead:
            at.parts.ahead.forget()
        peers.let_go()
        config = effective(at.parts.config, [doing])
        at.parts = at.parts._replace(config=config, method=objectives.method(config.method, **config.options))
        at.saved, at.stands = left_at(at.parts, at.run, self.tell)
        self._look_back()

    def _look_back(self) -> None:
        first_alone = self.at.parts.backend.rank == 0
        self.watchman = Watchman(read_lines(self.at.run.path / "metrics.jsonl") if first_alone else ())
