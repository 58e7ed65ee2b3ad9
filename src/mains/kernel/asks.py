"""Asks: how a model call of a process comes to be. Operations.

    ask(tx, world, p)    what is new joins the context, the frame is made to fit, a hold is taken, the intent recorded

What is new: pages of the shared segments that it maps, messages from the mailbox, and what they or the program's text
name of what has left the frame (`mem:57` brings that page back, at the end of the context).
"""

from __future__ import annotations

import re

import msgspec

from mains.kernel import cover, intents, mailbox, notes, pages, paging, segments, stubs
from mains.kernel.calls import share_room
from mains.kernel.context import tokens_of
from mains.kernel.event import Asked, Joined, Tidied
from mains.kernel.ledger import Hold
from mains.kernel.mailbox import Mail
from mains.kernel.ports import Message
from mains.kernel.process import Asking, Process, Stretch
from mains.kernel.tx import Tx
from mains.kernel.world import World

_MAIL_PER_TURN = 32
_NAMED_MAX = 8  # handles that the messages of one turn may bring back
_HANDLE = re.compile(r"\bmem:(\d{1,9})\b")
_decode = msgspec.json.Decoder(Message).decode


class _New(msgspec.Struct, frozen=True):
    """What joins the context: pages, their tokens, and the messages that are read with it."""

    mail: list[Mail]
    pages: tuple[str, ...]
    tokens: int
    apart: bool  # it joins before the call is planned: it may be too large to be shown whole
    segments: tuple[tuple[int, int], ...] = ()  # up to which page each is read with it
    untrusted: str = ""


_NOTHING = _New([], (), 0, apart=False)


def ask(tx: Tx, world: World, p: Process) -> Process | str | None:
    """The intent of the next model call of a READY process; None: it waits for room, an hour or a limit.

    A text: no frame can be made, and why (it names the pages). Raises ConfigError when no price is known and money is
    limited.
    """
    if p.idle:
        return _tidied(tx, world, p)
    if notes.are_due(tx, p):
        p = paging.reminded(tx, world, p)
    new = _new(tx, world, p)
    if new.apart:
        p, new = _join(tx, p, new), _NOTHING
    room = paging.fit(tx, world, p, new.tokens)
    if room.misfit:
        return room.misfit
    p, old = room.process, room.summary
    if old is not None:
        new = _NOTHING  # the summary comes first, and they are read after it
        if intents.is_hopeless(tx, world, p, room.tokens + p.reserve_tokens):
            return ask(tx, world, paging.extracted(tx, world, p, old))  # which costs nothing
    tokens = p.frame_tokens + new.tokens if old is None else room.tokens
    hold = intents.hold_for(tx, world, p, tokens + p.reserve_tokens)
    return None if hold is None else _asked(tx, p, hold, new, old)


def _tidied(tx: Tx, world: World, p: Process) -> Process | None:
    """What leaves the frame of a conversation at rest: results at once, old turns by a summary, for which nobody waits.

    None: nothing is asked for, now or at all.
    """
    room = paging.fit(tx, world, p, 0)
    p = room.process
    if room.summary is not None:
        hold = intents.spare_hold(tx, world, p, room.tokens + p.reserve_tokens)
        if hold is not None:
            return _asked(tx, p, hold, _NOTHING, room.summary)
        p = tx.process(p.pid) or p
    if p.tidy and not p.retry_ms:
        tx.happen(p, Tidied())
    return None


def _asked(tx: Tx, p: Process, hold: Hold, new: _New, old: Stretch | None) -> Process:
    asking = Asking(
        hold.id, hold.tokens, hold.output_tokens_max, p.engine, p.attempts + 1,
        nano=hold.nano, tariff=hold.tariff, summary=old,
    )  # fmt: skip
    if new.mail:
        pages.extend(tx, p, new.pages)
    frame = cover.chain(pages.known_frame(tx, p), new.pages)
    read = mailbox.consume(tx, new.mail)
    after = tx.happen(p, Asked(asking=asking, pages=new.pages, tokens=new.tokens, messages=read, frame=frame))
    share_room(tx, p.accounts)
    return after


def _new(tx: Tx, world: World, p: Process) -> _New:
    """What is new in segments, the mail that a process reads by itself, and what that names."""
    if not (p.mail or p.segments or p.covers or p.maps):
        return _NOTHING
    view = paging.view(world, p)
    shared = segments.Due()
    if p.segments:
        room = paging.shared_room(world, p), paging.shared_view(world, p)
        shared = segments.due(tx, p, world.settings, *room)
    mail = [] if p.reads_mail else mailbox.unread(tx, p, _MAIL_PER_TURN)
    messages = [_decode(pages.get(tx, each.page)) for each in mail]
    sizes = [tokens_of(message) for message in messages]
    count = paging.taken(world, p, sizes) if mail else 0  # the others are read in the next turn
    mail, messages, sizes = mail[:count], messages[:count], sizes[:count]
    recalled = _recalled(tx, world, p, messages) if p.covers or p.maps else []
    names = (*shared.pages, *(each.page for each in mail), *(pages.put_message(tx, each) for each in recalled))
    apart = bool(recalled or shared.pages) or max(sizes, default=0) > view
    tokens = shared.tokens + sum(sizes) + sum(map(tokens_of, recalled))
    return _New(mail, names, tokens, apart, shared.segments, shared.untrusted)


def _join(tx: Tx, p: Process, new: _New) -> Process:
    pages.extend(tx, p, new.pages)
    read = mailbox.consume(tx, new.mail)
    joined = Joined(pages=new.pages, tokens=new.tokens, messages=read, segments=new.segments, untrusted=new.untrusted)
    return tx.happen(p, joined)


def _recalled(tx: Tx, world: World, p: Process, messages: list[Message]) -> list[Message]:
    """What these messages name of what has left the frame, as far as a view of it goes; and what the program's text
    names of it, as long as that does not stand there again."""
    by_program = _named([_decode(pages.get(tx, page)) for page in pages.opening_of(tx.rows, p)[:1]])
    by_message = _named(messages)
    named = [*dict.fromkeys((*by_message, *by_program))]
    if not named:
        return []
    gone = [part for part in cover.layout(pages.covers_of(tx.rows, p), cover.grown(p)) if isinstance(part, cover.Cover)]
    wanted = [each for each in named if any(part.first <= each < part.until for part in gone)]
    if not set(by_message).issuperset(wanted):
        again = {stubs.position_again(_decode(place.data)) for place in pages.frame(tx.rows, p)}
        wanted = [each for each in wanted if each in by_message or each not in again]
    places = [place for each in wanted[:_NAMED_MAX] for place in pages.span(tx.rows, p, each, each + 1)]
    most = paging.view(world, p) * 2 // max(2, len(places))  # together at most two views
    return [stubs.recalled(_decode(place.data), place.position, most) for place in places]


def _named(messages: list[Message]) -> list[int]:
    """The positions whose handles these messages name, in order."""
    return [int(found) for message in messages for found in _HANDLE.findall(message.text)]
