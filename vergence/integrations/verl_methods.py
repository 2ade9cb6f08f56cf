"""Which methods verl can train, and with which of its settings its own loss is the method's base.

verl keeps its own loss, `ppo_loss`, for the surrogate and the KL to the reference. Written against verl 0.9.1, of which
nothing is imported here; docs/verl.md says what was run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from vergence.objectives import ALIASES, METHODS, method
from vergence.objectives.objective import reads_of_method
from vergence.types import Caption, Erase, Method, Read, Reword, Salient, Swap, Term, UserError

THEIRS = ("surrogate", "reference_kl")
"""The terms that verl's own loss computes."""
IMAGE = Read("image", "logp", when="grad")
MEANS = {"token": "token-mean", "sequence": "seq-mean-token-mean"}
KLS = {"k1": "k1", "k2": "k2", "k3": "low_var_kl"}


def looking(name: str, **options: Any) -> Method:
    """The method of that name, if verl as it is can train it.

    So its terms read log-probabilities of the sampled tokens alone: of the image with gradient, and of other views of
    the image under the weights that sampled, read once and stored.

    Raises:
        UserError: there is no such method or option, or it needs what is not stored; the message says what.

    >>> list(own_terms(looking("papo", gamma=0.01))), list(stored_views(looking("papo")))
    (['perception'], ['masked'])
    >>> looking("cppo")          # doctest: +ELLIPSIS
    Traceback (most recent call last):
    vergence.types.UserError: verl cannot train 'cppo': it reads the log-probabilities of the view 'kept' with...
    """
    if "+" in name:
        raise UserError(
            f"verl cannot train {name!r}: a control draws by the names of rollouts, which verl does not have"
        )
    made = method(name, **options)
    if why := _impossible(made):
        raise UserError(f"verl cannot train {name!r}: {why}; train it with `vergence train`, or inside TRL")
    return made


def _impossible(made: Method) -> str:
    """Why verl cannot train a method; empty if it can."""
    if made.ask != "answer" or made.sample_view != "image":
        return "the policy has to be asked for something other than the answer to what it sees"
    if made.fresh:
        return "its stored statistics are read anew before every step, and verl reads once for a batch"
    for read in reads_of_method(made):
        if read.quantity != "logp" or (read.when != "frozen" and read != IMAGE):
            what = {"logp": "log-probabilities", "entropy": "entropy"}.get(read.quantity, "divergence")
            when = {"frozen": "over the vocabulary", "live": "under today's weights", "grad": "with gradient"}
            said = f"it reads the {what} of the view {read.view!r} {when[read.when]}"
            return f"{said}, and verl has stored log-probabilities alone"
    for name, view in stored_views(made).items():
        text = isinstance(view.show, Caption | Swap | Reword | Salient)
        if text or view.gate or view.policy != "now" or (isinstance(view.show, Erase) and view.show.aligned):
            return f"the view {name!r} cannot be made from an image alone, for every rollout"
    return ""


def stored_views(made: Method) -> dict[str, View]:
    """The views that are read once and stored in a field of their own: all but the image and the reference."""
    return {name: view for name, view in made.views.items() if name not in ("image", "reference")}


def own_terms(made: Method) -> dict[str, Term]:
    """The terms that are added to verl's own loss."""
    return {name: term for name, term in made.objective.items() if name not in THEIRS}


def field_of(view: str) -> str:
    """The field of verl's batch in which the log-probabilities of a view are stored.

    >>> field_of("masked"), field_of("reference")
    ('masked_log_probs', 'ref_log_prob')
    """
    return {"image": "old_log_probs", "reference": "ref_log_prob"}.get(view, f"{view}_log_probs")


# ---------------------------------------------------------------------------------------------------- settings


def settings(name: str, **options: Any) -> dict[str, Any]:
    """verl's settings with which its own loss and advantages are this method's base, by their names in Hydra.

    verl always bounds the surrogate of a negative advantage: where the method does not, the bound is out of reach.

    Raises:
        UserError: an option is one that verl's loss cannot have.

    >>> found = settings("papo", beta=0.0)
    >>> found["actor_rollout_ref.actor.clip_ratio_high"], found["actor_rollout_ref.actor.use_kl_loss"]
    (0.3, False)
    """
    made = looking(name, **options)
    known = {one: p.default for one, p in signature(METHODS[ALIASES.get(name, name)]).parameters.items()}
    given = {**known, **{one: type(known[one])(value) for one, value in options.items()}}
    actor = {
        "clip_ratio_low": given["clip_low"],
        "clip_ratio_high": given["clip_high"],
        "clip_ratio_c": given["dual"] or 1e9,
        "loss_agg_mode": MEANS[given["mean"]] if "mean" in given else "seq-mean-token-sum-norm",
        "policy_loss.loss_mode": "vanilla",
        "entropy_coeff": 0,
        "use_kl_loss": given["beta"] != 0,
    }
    if "budget" in given:
        actor["loss_scale_factor"] = given["budget"]
    if given["beta"] != 0:
        if given["kl"] == "k3" and given["kl_cap"] != 10:
            raise UserError(f"verl holds its k3 to the reference to 10 nats: give {name!r} the option kl_cap=10")
        actor |= {"kl_loss_coef": given["beta"], "kl_loss_type": KLS[given["kl"]]}
    if given.get("eps", 1e-6) != 1e-6:
        raise UserError(f"verl adds 1e-6 to the standard deviation of a group: {name!r} cannot have eps={given['eps']}")
    algorithm = {
        "adv_estimator": "grpo",
        "norm_adv_by_std_in_grpo": "eps" in given,
        "use_kl_in_reward": False,
        "filter_groups.enable": made.keep is not None,
        "rollout_correction.bypass_mode": False,  # else `old_log_probs` are the sampler's, beside our views' by verl
    }
    return {f"actor_rollout_ref.actor.{one}": value for one, value in actor.items()} | {
        f"algorithm.{one}": value for one, value in algorithm.items()
    }


def refuse_others(wanted: Mapping[str, Any], selected: Callable[[str], Any]) -> None:
    """Raise if verl is set to minimise something else than the method.

    Args:
        wanted: what `settings` says.
        selected: the name of a setting -> its value in verl's configuration.

    Raises:
        UserError: a setting differs; the message has the overrides that make them equal.
    """
    differing = {name: value for name, value in wanted.items() if (selected(name) or False) != (value or False)}
    if differing:
        overrides = " ".join(f"{name}={str(value).lower()}" for name, value in differing.items())
        raise UserError(f"verl's settings are not those of the method: give {overrides}, or the method other options")
