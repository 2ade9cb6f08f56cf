"""A sampler with weights of its own, as an engine has them: ours, on a copy of the policy."""

import threading
import time
from hashlib import blake2b

import vergence.train.parts as parts_module
from vergence.models.policy import load
from vergence.rollout.decode import Decode
from vergence.types import UserError


def fingerprint(policy) -> str:
    """Of all weights."""
    held = blake2b(digest_size=8)
    for weight in policy.model.state_dict().values():
        held.update(weight.numpy().tobytes())
    return held.hexdigest()


class Down(UserError):
    """The engine is dead."""


class Follower:
    """Follows, samples and closes; refuses what no engine would bear: to be given weights while it samples.

    Args:
        slow: seconds that each call takes besides.
        fails: the calls, from 1, that end in `Down`.
        off: what is added to each log-probability: other pixels, other precision, whatever.
    """

    def __init__(self, policy, *, slow=0.0, fails=(), off=0.0):
        self.slow, self.fails, self.off = slow, fails, off
        self.copy = load("seedling")
        self.decode = Decode(self.copy)
        self.heard, self.sampled, self.threads, self.rests, self.closed = [], [], [], 0, 0
        self._busy, self._stop, self.calling = threading.Lock(), threading.Event(), threading.Event()

    def follow(self, policy):
        assert self._busy.acquire(blocking=False), "weights were pushed while a batch was sampled"
        self.copy.model.load_state_dict(policy.model.state_dict())
        self.heard.append(fingerprint(self.copy))
        self._busy.release()

    def __call__(self, asked, *, temperature, max_tokens):
        with self._busy:
            self.calling.set()
            self.threads.append(threading.current_thread())
            self.sampled.append(fingerprint(self.copy))
            if self._stop.wait(self.slow):
                raise Down("closed while it sampled")
            if len(self.sampled) in self.fails:
                raise Down("the engine is dead")
            drawn = self.decode(asked, temperature=temperature, max_tokens=max_tokens)
        return [one._replace(logp=tuple(logp + self.off for logp in one.logp)) for one in drawn]

    def rest(self):
        self.rests += 1

    def close(self):
        self.closed += 1
        self._stop.set()


def followed_by(monkeypatch, **how) -> list[Follower]:
    """From now on every run that does not sample itself has a `Follower` of its own; they are listed."""
    made, own = [], parts_module._sampler

    def sampler(config, policy, *more):
        if config.sampler == "own":
            return own(config, policy, *more)
        made.append(Follower(policy, **how))
        return made[-1]

    monkeypatch.setattr(parts_module, "_sampler", sampler)
    return made


def no_thread_is_left() -> bool:
    """Whether no round is being sampled any more."""
    for _ in range(200):
        if not any(thread.name.startswith("round ") for thread in threading.enumerate()):
            return True
        time.sleep(0.01)
    return False
