"""Fallback: what follows when a model call of a program with several models (`model: [a, b]`) has failed. Pure.

    after_failure(p, error, settings)   AGAIN on this engine, or the next Route to take, or None: nothing is left
    after_absence(p)                    the next route when the engine could not even be asked
    rerouted(...)                       the event that changes the engine
    is_due_back(p, now_ms)              time to try the first engine again
    told(p, why)                        why nothing is left, engine by engine

Rules. Every try counts in the one retry budget (`model_attempts_max`), which is kept for those who have not been tried:
each engine of the chain gets at least one try in a turn. That a backend had too much to do is no try: a crowd must not
end those in it. Such refusals have a budget of their own (`refusals_max`). A failure of the request itself stays: the
next engine would refuse it, too, unless it is too long and the next has a larger context. A failure of the engine goes
to the next one at once when trying again makes no sense, else after `fallback_failures`, or when the backend asks for a
longer wait than a back-off may be. Within a turn no engine is taken twice; the next turn starts where this one ended,
and returns to the first engine when `fallback_return_s` have passed.
"""

from __future__ import annotations

from typing import Final, Literal

from mains.errors import Blame, EngineError, Spent
from mains.kernel.event import Rerouted
from mains.kernel.process import Process
from mains.settings import Settings

AGAIN: Final = "again"


def after_failure(p: Process, error: EngineError, settings: Settings) -> int | Literal["again"] | None:
    """What to do about a call of `p` that failed now: AGAIN, the index of the route to take, or None."""
    if error.blame is Blame.LENGTH:
        return next(iter(roomier(p)), None)
    if error.blame is Blame.REQUEST:
        return AGAIN if error.retryable and _left(p, settings) > 0 else None
    others = untried(p)
    if not others:
        left = settings.refusals_max - p.refusals - 1 if is_refusal(error) else _left(p, settings)
        return AGAIN if error.retryable and left > 0 else None
    enough = p.failures_here + 1 >= settings.fallback_failures or _left(p, settings) <= len(others)
    if not error.retryable or enough or error.retry_after_s * 1_000 > settings.retry_ceiling_ms:
        return others[0]
    return AGAIN


def is_refusal(error: EngineError) -> bool:
    """Whether the backend had too much to do, or asked to wait, and took nothing."""
    return error.spent is Spent.NOTHING and (error.throttled or error.retry_after_s > 0)


def backoff_ms(failures: int, settings: Settings, chance: float) -> int:
    """Exponential back-off, of which up to half is left to chance (0 to 1)."""
    return round(min(settings.retry_ceiling_ms, settings.retry_base_ms << failures) * (0.5 + chance / 2))


def wish_ms(error: EngineError, settings: Settings) -> int:
    """How long the backend asked everybody to wait, as far as it is honoured; 0: it did not."""
    return max(0, min(round(error.retry_after_s * 1_000), settings.retry_after_ceiling_ms))


def after_absence(p: Process) -> int | None:
    """The index of the next route when the engine of this one is not there."""
    others = untried(p)
    return others[0] if others else None


def rerouted(p: Process, index: int, now_ms: int, settings: Settings, why: str = "", wait_s: float = 0.0) -> Rerouted:
    """The event. `why` this engine is left (empty: to try the first one again); `wait_s` what its backend asked for."""
    back_ms = now_ms + round(max(settings.fallback_return_s, wait_s) * 1_000) if index else 0
    return Rerouted(index=index, engine=p.routes[index].engine, reason=why, return_ms=back_ms)


def placed(p: Process, index: int) -> Rerouted:
    """The event when a route that serves as well takes the call. When the first one is tried again stays as it was."""
    return Rerouted(index=index, engine=p.routes[index].engine, return_ms=p.return_ms)


def is_due_back(p: Process, now_ms: int) -> bool:
    """Whether a turn that has not been tried yet starts on the first engine again."""
    if p.route == 0 or p.failures or p.refusals or p.given_up or p.return_ms > now_ms:
        return False
    group = p.routes[p.route].group
    return not group or group != p.routes[0].group


def told(p: Process, why: str) -> str:
    """Why nothing is left to try: each engine's failure of this turn, in the order of the tries."""
    return "; ".join([*(gone.why for gone in p.given_up), why])


def _left(p: Process, settings: Settings) -> int:
    """Tries left in the budget, after the one that has just failed."""
    return settings.model_attempts_max - p.failures - 1


def roomier(p: Process) -> list[int]:
    """Those of the routes that were not taken in this turn that take larger frames than the one in use."""
    return [index for index in untried(p) if p.routes[index].context_tokens > p.routes[p.route].context_tokens]


def untried(p: Process) -> list[int]:
    """The routes that were not taken in this turn, in the order of the chain."""
    if len(p.routes) < 2:
        return []
    taken = {p.route, *(gone.route for gone in p.given_up)}
    return [index for index in range(len(p.routes)) if index not in taken]
