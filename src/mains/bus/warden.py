"""The warden: what confines each device of a home, and how that is told to people.

    cage_of(spec)     for a start; None: the device is not confined because its user said so
    check(spec)       before a device is added: a ConfigError when its command names what it may not touch
    word_of(spec)     landlock, bubblewrap or UNCONFINED, and why; what it may touch; what it names and may not touch

What this machine has is looked for once, when it is first needed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from mains.bus.confinement import Ground, Rules, closed_names, rules_of
from mains.bus.mechanism import UNCONFINED, Cage, Mechanism, find_mechanism
from mains.bus.spec import DeviceSpec
from mains.errors import ConfigError


class Confined(msgspec.Struct, frozen=True):
    """How a device is confined. `by`: empty for one that runs elsewhere. `closed`: named, and not to be touched."""

    by: str = ""
    why: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


class Warden:
    """See the module's header."""

    def __init__(self, home: Path, find: Callable[[], Mechanism] = find_mechanism) -> None:
        self._home = home
        self._find = find
        self._mechanism: Mechanism | None = None
        self._known: dict[str, tuple[DeviceSpec, Rules]] = {}

    @property
    def mechanism(self) -> Mechanism:
        """What this machine has."""
        if self._mechanism is None:
            self._mechanism = self._find()
        return self._mechanism

    def own_home(self, spec: DeviceSpec) -> Path | None:
        """The HOME of a device; None: that of its user."""
        return self._ground(spec).private[1] if spec.confined else None

    def cage_of(self, spec: DeviceSpec) -> Cage | None:
        """What a start of the device is confined to. Raises ConfigError."""
        if not spec.confined:
            return None
        ground = self._ground(spec)
        tmp = None if "TMPDIR" in spec.env else ground.private[2]
        return Cage(self.mechanism, self._rules(spec, fresh=True), ground.private, tmp, spec.local_sockets)

    def check(self, spec: DeviceSpec) -> None:
        """Raises ConfigError when a device could not work as it is meant, with what to say."""
        if not spec.confined or spec.url:
            return
        closed = closed_names(spec, self._rules(spec, fresh=True), self._ground(spec)) if self.mechanism.kind else []
        if closed:
            given = " ".join(
                dict.fromkeys(f"--write {shlex.quote(_to_open(path, self._ground(spec)))}" for path in closed)
            )
            raise ConfigError(
                f"device {spec.name}: its command names {', '.join(closed)}, which it may not touch",
                hint=f"say what it may do there: `{given}` to change, --read to read; --unconfined: all that you may",
            )

    def word_of(self, spec: DeviceSpec) -> Confined:
        """How it is confined, for people."""
        if spec.url:
            return Confined()
        if not spec.confined:
            return Confined(UNCONFINED, "`confined = false` in its table")
        if not self.mechanism.kind:
            return Confined(UNCONFINED, self.mechanism.weakness)
        try:
            rules = self._rules(spec, fresh=False)
        except ConfigError as error:  # then it does not start either, and says why
            return Confined(self.mechanism.kind, str(error))
        closed = tuple(closed_names(spec, rules, self._ground(spec)))
        return Confined(self.mechanism.kind, "", rules.given_read, rules.given_write, closed)

    def _ground(self, spec: DeviceSpec) -> Ground:
        return Ground.of(self._home, spec)

    def _rules(self, spec: DeviceSpec, *, fresh: bool) -> Rules:
        known = self._known.get(spec.name)
        if fresh or known is None or known[0] != spec:
            self._known[spec.name] = known = (spec, rules_of(spec, self._ground(spec)))
        return known[1]


def _to_open(path: str, ground: Ground) -> str:
    """The folder of a file, where that is not the whole home: who writes a file anew makes another beside it."""
    place = Path(path)
    return path if place.is_dir() or place.parent == ground.person else str(place.parent)
