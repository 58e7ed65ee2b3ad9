"""Asks: how a model call of a process comes to be. Operations.

    ask(tx, world, p)    what is new joins the context, the frame is made to fit, a hold is taken, the intent recorded

What is new: pages of the shared segments that it maps, messages from the mailbox, and what they name of what has left
the frame (`mem:57` in a message brings that page back, at the end of the context).
"""

from __future__ import annotations

import re

import msgspec

from mains.kernel import cover, intents, mailbox, notes, pages, paging, segments, stubs
from mains.kernel.birth import World
from mains.kernel.calls import share_room
from mains.kernel.context import tokens_of
from mains.kernel.event import Asked, Joined
from mains.kernel.mailbox import Mail
from mains.kernel.ports import Message
from mains.kernel.process import Asking, Process
from mains.kernel.tx import Tx

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


def ask(tx: Tx, world: World, p: Process) -> Process | str | None:
    """The intent of the next model call of a READY process; None: it waits for room, an hour or a limit.

    A text: no frame can be made, and why (it names the pages). Raises ConfigError when no price is known and money is
    limited.
    """
    if notes.are_due(tx, p):
        p = paging.reminded(tx, world, p)
    new = _new(tx, world, p)
    if new.apart:
        p, new = _join(tx, p, new), _New([], (), 0, apart=False)
    room = paging.fit(tx, world, p, new.tokens)
    if room.misfit:
        return room.misfit
    p, old = room.process, room.summary
    if old is not None:
        new = _New([], (), 0, apart=False)  # the summary comes first, and they are read after it
    tokens = p.frame_tokens + new.tokens if old is None else room.tokens
    hold = intents.hold_for(tx, world, p, tokens + p.reserve_tokens)
    if hold is None:
        return None
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
    view = paging.view(world, p)
    shared = segments.Due()
    if p.segments:
        room = paging.shared_room(world, p), paging.shared_view(world, p)
        shared = segments.due(tx, p, world.settings, *room)
    mail = [] if p.reads_mail else mailbox.unread(tx, p, _MAIL_PER_TURN)
    if not mail:
        return _New([], shared.pages, shared.tokens, bool(shared.pages), shared.segments, shared.untrusted)
    messages = [_decode(pages.get(tx, each.page)) for each in mail]
    sizes = [tokens_of(message) for message in messages]
    count = paging.taken(world, p, sizes)  # the others are read in the next turn
    mail, messages, sizes = mail[:count], messages[:count], sizes[:count]
    recalled = _recalled(tx, world, p, messages) if p.covers or p.maps else []
    names = (*shared.pages, *(each.page for each in mail), *(pages.put_message(tx, each) for each in recalled))
    apart = bool(recalled or shared.pages) or max(sizes) > view
    tokens = shared.tokens + sum(sizes) + sum(map(tokens_of, recalled))
    return _New(mail, names, tokens, apart, shared.segments, shared.untrusted)


def _join(tx: Tx, p: Process, new: _New) -> Process:
    pages.extend(tx, p, new.pages)
    read = mailbox.consume(tx, new.mail)
    return tx.happen(
        p, Joined(pages=new.pages, tokens=new.tokens, messages=read, segments=new.segments, untrusted=new.untrusted)
    )


def _recalled(tx: Tx, world: World, p: Process, messages: list[Message]) -> list[Message]:
    """What these messages name of what has left the frame, as far as a view of it goes."""
    named = dict.fromkeys(int(found) for message in messages for found in _HANDLE.findall(message.text))
    if not named:
        return []
    gone = [part for part in cover.layout(pages.covers_of(tx.rows, p), cover.grown(p)) if isinstance(part, cover.Cover)]
    wanted = [each for each in named if any(part.first <= each < part.until for part in gone)][:_NAMED_MAX]
    places = [place for each in wanted for place in pages.span(tx.rows, p, each, each + 1)]
    most = paging.view(world, p) * 2 // max(2, len(places))  # together at most two views
    return [stubs.recalled(_decode(place.data), place.position, most) for place in places]
