"""What the embedded engine keeps of what it has read, where, and for how long. Pure: no clock, no I/O.

    chain_of(seed, messages)    the prefixes of a prompt, to find out what two prompts share
    Pauses                      how long each tool has kept its process away from the model
    keep_more_s(...)            how much longer a slot should wait for its process
    choose(slots, want, ...)    the slot of a call, or how long to wait for one
    least_valuable(files, ...)  which files go when there are too many bytes

Seconds are those of one monotonic clock; only files, which outlive it, carry wall-clock times.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from mains.kernel.ports import Message

Chain = tuple[tuple[str, int], ...]
"""For each message of a prompt: a digest of all up to it, and about how many tokens these have."""

SAVE_READ_S = 0.5  # what is read again in less time than this is not worth a file
SHARED_TOKENS_MIN = 48  # fewer tokens in common are no reason to prefer a slot or to restore a file
KEEP_S_MAX = 30.0  # a process that stays away for longer never keeps others from its slot
PAUSES_MAX = 64  # of one tool: the newest
TOOLS_MAX = 256
FRESH_S = 600.0  # a file's value halves in this time after its last use, and so on (1 / age)
BYTES_PER_TOKEN = 4
_DIGEST_CHARS = 24


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot holds. `saved`: there is nothing to save, or no use in trying (again); `filed`: a file has it.

    `doubtful`: a call on it was broken off, so that nobody knows what it holds. `tool`: what its process went away for
    ("": it answered, and mostly does not come back).
    """

    slot: int
    tenant: int = 0
    process: int = 0
    chain: Chain = ()
    tokens: int = 0
    tool: str = ""
    used_s: float = 0.0
    saved: bool = True
    filed: bool = False
    doubtful: bool = False
    busy: bool = False


class Want(msgspec.Struct, frozen=True):
    """What a call needs. `filed_tokens`: how many tokens of its prompt the best file holds."""

    tenant: int
    process: int
    chain: Chain
    filed_tokens: int = 0


class Filed(msgspec.Struct, frozen=True):
    """A file of the store, as far as its value goes."""

    name: str
    bytes: int
    tokens: int
    used_at_s: float


def chain_of(seed: str, messages: Iterable[Message]) -> Chain:
    """The prefixes of a prompt. Two chains made with different seeds share nothing."""
    links: list[tuple[str, int]] = []
    digest, size_bytes = hashlib.sha256(seed.encode()), 0
    for message in messages:
        text = message.text.encode("utf-8", "surrogatepass")
        digest.update(f"{message.role} {len(text)} ".encode() + text)
        size_bytes += len(text)
        links.append((digest.hexdigest()[:_DIGEST_CHARS], -(-size_bytes // BYTES_PER_TOKEN)))
    return tuple(links)


def shared_tokens(one: Chain, other: Chain) -> int:
    """About how many tokens of their beginning two prompts have in common (whole messages only)."""
    tokens = 0
    for mine, its in zip(one, other, strict=False):
        if mine[0] != its[0]:
            break
        tokens = mine[1]
    return tokens


class Pauses:
    """The measured pauses of each tool: from a reply that calls it to the next call of the same process."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, tool: str, pause_s: float) -> None:
        """A process is back."""
        self._of.setdefault(tool, deque(maxlen=PAUSES_MAX)).append(max(0.0, pause_s))
        self._of.move_to_end(tool)
        if len(self._of) > TOOLS_MAX:
            self._of.popitem(last=False)

    def of(self, tool: str) -> Sequence[float]:
        """The newest pauses of a tool; none when it was never seen."""
        return self._of.get(tool, ())


def keep_more_s(pauses: Sequence[float], away_s: float, gain_s: float, price: float) -> float:
    """How much longer a slot should be kept for a process that has been away for `away_s`; 0: give it away.

    The rule of Continuum (Li et al. 2025, "Efficient and Robust Multi-Turn LLM Agent Scheduling with KV Cache
    Time-to-Live", arXiv:2511.02230): a time to live is worth the probability that the tool returns within it, times
    what the return then does not cost (to read the prefix again or to load it, and to queue for a slot: `gain_s`), less
    the time that the slot stands still meanwhile, for each of those who want it (`price`: how many). Of the times
    that can be best, the measured pauses, the best is taken; a process that is away is one whose pause is longer than
    `away_s`. A tool that was never measured gets the break-even time: waiting costs as much as what it may save, so
    the loss is at most twice what it would be with foresight (ski rental). Never more than `KEEP_S_MAX` altogether.
    """
    left_s = KEEP_S_MAX - away_s
    if left_s <= 0:
        return 0.0
    if price <= 0:
        return left_s
    if not pauses:
        return min(left_s, max(0.0, gain_s / price - away_s))
    rest = sorted(pause - away_s for pause in pauses if pause > away_s)
    best_s, best_value, waited = 0.0, 0.0, 0.0
    for at, more_s in enumerate(rest):
        waited += more_s
        stood_still = (waited + (len(rest) - at - 1) * more_s) / len(rest)
        value = (at + 1) / len(rest) * gain_s - price * stood_still
        if more_s <= left_s and value > best_value:
            best_s, best_value = more_s, value
    return best_s


def worth_saving(tokens: int, read_tokens_per_s: float) -> bool:
    """Whether reading these tokens again takes so long that a file pays."""
    return tokens >= SAVE_READ_S * read_tokens_per_s


def choose(slots: Sequence[Held], want: Want, keep_s: Callable[[Held], float]) -> tuple[int | None, float]:
    """The slot for a call; or None, and after how many seconds to look again (infinite: when one is given back).

    Its own slot; else one that nobody should be waited for (`keep_s` 0): first one that holds more of the prompt than
    any file does, then an empty one, then one that loses nothing, then of a process that has answered, then the oldest.
    """
    free = [held for held in slots if not held.busy]
    for held in free:
        if want.process and held.process == want.process and held.tenant == want.tenant and not held.doubtful:
            return held.slot, 0.0
    kept = {held.slot: keep_s(held) if held.process and not held.doubtful else 0.0 for held in free}
    given = [held for held in free if kept[held.slot] <= 0]
    if not given:
        return None, min(kept.values(), default=float("inf"))

    def rank(held: Held) -> tuple[bool, int, bool, bool, bool, float, int]:
        shared = shared_tokens(held.chain, want.chain) if held.tenant == want.tenant else 0
        useful = shared if shared >= max(SHARED_TOKENS_MIN, want.filed_tokens) else 0
        return (held.doubtful, -useful, held.tokens > 0, not held.saved, bool(held.tool), held.used_s, held.slot)

    return min(given, key=rank).slot, 0.0


def to_clear(slots: Sequence[Held], wanted_tokens: int, room_tokens: int) -> list[int]:
    """Idle slots to clear, least valuable first, so that `wanted_tokens` more fit beside the rest into the cache."""
    over = sum(held.tokens for held in slots if not held.busy) + wanted_tokens - room_tokens
    cleared: list[int] = []
    for held in sorted(slots, key=lambda held: (not held.doubtful, bool(held.tool), held.used_s, held.slot)):
        if over <= 0:
            break
        if not held.busy and held.tokens:
            cleared.append(held.slot)
            over -= held.tokens
    return cleared


def least_valuable(files: Iterable[Filed], need_bytes: int, bytes_max: int, now_s: float) -> list[str]:
    """The names of the files to remove, least valuable first, so that the rest and `need_bytes` fit into `bytes_max`.

    The value of a byte: the tokens that it saves from being read again, by its age since it was last used.
    """

    def value(file: Filed) -> tuple[float, str]:
        age_s = max(0.0, now_s - file.used_at_s)
        return file.tokens / max(1, file.bytes) / (1 + age_s / FRESH_S), file.name

    ranked = sorted(files, key=value)
    over = sum(file.bytes for file in ranked) + need_bytes - bytes_max
    gone: list[str] = []
    for file in ranked:
        if over <= 0:
            break
        gone.append(file.name)
        over -= file.bytes
    return gone
