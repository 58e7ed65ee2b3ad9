"""Sizes: how many tokens an engine takes in one call, for processes that do not know it. Pure.

    sized(route, p)     the record of a process to be, with the sizes of its engines

Without a size a frame grows up to `frame_tokens_max`, and a smaller engine refuses it. `route` is the world's: it gives
the route to an engine by its name. Live processes that an older Mains started learn it at boot (`recovery.learn`).
"""

from __future__ import annotations

from collections.abc import Callable

from mains.errors import MainsError
from mains.kernel.process import Process, Route, replace

RouteTo = Callable[[tuple[str, ...]], Route]


def sized(route: RouteTo, p: Process) -> Process:
    """`p` with what its engine, and the others that may serve it, take; as it is when that is known, or not to be."""
    if p.context_tokens:
        return p
    routes = tuple(_sized(route, each) for each in p.routes)
    size = routes[p.route].context_tokens if routes else _sized(route, Route(p.engine, p.model)).context_tokens
    return replace(p, context_tokens=size, routes=routes)


def _sized(route: RouteTo, of: Route) -> Route:
    try:
        found = route((of.engine,))
    except MainsError:  # configured wrongly: whoever makes a call is told
        return of
    size = next((each.context_tokens for each in (found, *found.then) if each.engine == of.engine), 0)
    return replace(of, context_tokens=of.context_tokens or size)
