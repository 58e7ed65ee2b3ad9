"""The vault: the secrets of a home, while it runs and for those who set them.

    vault.value("TOKEN", "git")            its value, when it is for the device `git`
    vault.redact(...)                      a text without any value that the vault holds
    set_secret, remove_secret              what people do (the command line; a daemon sees the file change)

The file is read again when it changes. Values are in memory while a kernel runs, in one place: this object, for handing
them out and for finding them in texts. What was a secret's value until a moment ago is still found, until the kernel
ends: a device that was started with it may still say it. Sealed values need the passphrase: from the variable
MAINS_PASSPHRASE when the kernel boots, or by `unlock`; until then they are given to nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mains import secretfile
from mains.errors import ConfigError, NotFoundError, UsageError
from mains.home import Home
from mains.redaction import CHARS_MIN, Redactor
from mains.secretfile import Book, Kind, Secret
from mains.settings import Settings
from mains.tomlfile import stamp_of

_SIGNS_MIN = 4  # different characters of a value
_BYTES_MAX = 32 * 1024  # whatever the setting says: logs hold back as much as the longest spelling of a value
_DEVICES_MAX = 100
_FORMER_MAX = 200


class Entry(NamedTuple):
    """A secret as people see it."""

    name: str
    devices: tuple[str, ...]
    kept: Kind


class Vault:
    """See the module's header. Making one reads nothing; `look` does, and whoever asks for something."""

    def __init__(self, home: Home, passphrase: str = "") -> None:
        self._path = home.secrets
        self._passphrase = passphrase
        self._key = b""
        self._stamp: tuple[int, ...] | None = ()  # nothing was read yet
        self._book = Book()
        self._values: dict[str, str] = {}
        self._faults: dict[str, ConfigError] = {}
        self._fault: ConfigError | None = None  # of the whole file
        self._former: list[tuple[str, str]] = []
        self._redactor = Redactor(())

    def __repr__(self) -> str:
        return f"Vault({len(self._book.secrets)} secrets)"

    def value(self, name: str, device: str, tool: str = "") -> str:
        """The value of a secret for a device, or one tool of it. Raises ConfigError, whose text a model can read."""
        self.look()
        secret = self._book.secrets.get(name)
        if secret is None and self._fault is not None:
            raise ConfigError(str(self._fault), hint=self._fault.hint)
        if secret is None:
            hint = f"`mains secret set {name} --for {device}` sets it" if secretfile.NAME.fullmatch(name) else ""
            raise ConfigError(f"there is no secret `{name[:64]}`", hint=hint)
        if device not in secret.devices and not (tool and f"{device}.{tool}" in secret.devices):
            hint = f"`mains secret set {name} --for ...` says who may have it"
            raise ConfigError(f"the secret `{name}` is not for {device}{f'.{tool}' if tool else ''}", hint=hint)
        if name in self._faults:
            raise ConfigError(str(self._faults[name]), hint=self._faults[name].hint)
        return self._values[name]

    def redact(self, text: str) -> str:
        """The text, with each value as `[secret NAME]`."""
        self.look()
        return self._redactor.redact(text)

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for bytes."""
        self.look()
        return self._redactor.redact_bytes(data)

    def redact_json(self, value: Any) -> Any:
        """The same for every text in plain JSON."""
        self.look()
        return self._redactor.redact_json(value)

    def entries(self) -> list[Entry]:
        """The secrets by name."""
        self.look()
        return entries_of(self._book)

    def locked(self) -> list[str]:
        """The names of those that are given to nobody: their value cannot be had."""
        self.look()
        return sorted(self._faults)

    def key_of(self, passphrase: str) -> bytes:
        """What `unlock` needs; it takes some tenths of a second. Raises UsageError: that is not it; ConfigError."""
        book = secretfile.read(self._path)
        if not book.check:
            raise UsageError("no secret of this home has a passphrase", hint="`mains secret ls` says where they are")
        return secretfile.key_of(book, passphrase)

    def unlock(self, key: bytes) -> None:
        """Open what is sealed."""
        self._key, self._stamp = key, ()
        self.look()

    def look(self) -> None:
        """Read the file when it has changed. While it cannot be read, what was known of it stays."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        try:
            self._take(secretfile.read(self._path))
            self._fault = None
        except ConfigError as error:  # `mains secret ls` and `mains doctor` say it, too
            self._fault = error
        self._stamp = stamp

    def _take(self, book: Book) -> None:
        values: dict[str, str] = {}
        faults: dict[str, ConfigError] = {}
        entries, fault = _entries(book)
        if self._key and book.check and not secretfile.opens(book, self._key):
            self._key = b""  # there is another passphrase now
        for name, secret in book.secrets.items():
            try:
                if secret.kept == "keyring" and fault is not None:
                    raise ConfigError(f"the secret `{name}`: {fault}", hint=fault.hint)
                values[name] = self._open(book, name, secret, entries)
            except ConfigError as error:
                faults[name] = error
        gone = [(name, value) for name, value in self._values.items() if values.get(name) != value]
        self._former = [*self._former, *gone][-_FORMER_MAX:]
        self._book, self._values, self._faults = book, values, faults
        self._redactor = Redactor([*values.items(), *self._former], self._redactor)

    def _open(self, book: Book, name: str, secret: Secret, entries: Mapping[str, str]) -> str:
        if secret.kept == "plaintext":
            return secret.text
        if secret.kept == "keyring":
            return secretfile.value_of(name, entries.get(name, ""), secret.devices)
        if not self._key and self._passphrase:
            with contextlib.suppress(UsageError):
                self._key = secretfile.key_of(book, self._passphrase)
            self._passphrase = ""
        if not self._key:
            hint = f"`mains secret unlock` opens it; or start the daemon with {secretfile.PASSPHRASE_VARIABLE}"
            raise ConfigError(f"the secret `{name}` is locked: its passphrase is not known here", hint=hint)
        return secretfile.unseal(self._key, name, secret.text, secret.devices)


def _entries(book: Book) -> tuple[dict[str, str], ConfigError | None]:
    """What the keyring has for a book; or why it gives nothing."""
    names = [name for name, secret in book.secrets.items() if secret.kept == "keyring"]
    try:
        return (secretfile.from_keyring(book, names) if names else {}), None
    except ConfigError as error:
        return {}, error


def entries_of(book: Book) -> list[Entry]:
    """The secrets of a book by name."""
    return [Entry(name, secret.devices, secret.kept) for name, secret in sorted(book.secrets.items())]


def read_entries(home: Home) -> list[Entry]:
    """The secrets of a home, without opening one. Raises ConfigError."""
    return entries_of(secretfile.read(home.secrets))


def check_secret(name: str, value: str, devices: Sequence[str], settings: Settings) -> None:
    """Raises UsageError for what cannot be kept; no text of it holds any of the value."""
    check_name(name)
    size, most = len(value.encode("utf-8", "surrogatepass")), min(settings.secret_bytes_max, _BYTES_MAX)
    if len(value) < CHARS_MIN or len({*value}) < _SIGNS_MIN:
        text = f"the value is too short: at least {CHARS_MIN} characters, {_SIGNS_MIN} of them different"
        raise UsageError(text, hint="a shorter one stands in many texts by chance and cannot be redacted")
    if size > most:
        raise UsageError(f"the value has {size:,} bytes, at most {most:,} (secret_bytes_max)")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError("the value is no text: it holds a zero byte, or bytes that are no UTF-8")
    if value in f"[secret {name}]":
        raise UsageError("the value is a word of what stands in its place", hint="it is no secret")
    if len(devices) > _DEVICES_MAX:
        raise UsageError(f"{len(devices)} devices, at most {_DEVICES_MAX}")


def check_name(name: str) -> None:
    """Raises UsageError for what is no name."""
    if not secretfile.NAME.fullmatch(name):
        hint = "a letter first, then letters, digits, - and _, at most 64"
        raise UsageError(f"`{name[:64]}` is no name for a secret", hint=hint)


def set_secret(
    home: Home,
    settings: Settings,
    name: str,
    value: str,
    devices: Sequence[str] | None,
    kept: Kind,
    passphrase: str = "",
) -> Entry:
    """Keep a value, in place of the one before. `devices` None: those of before. Raises UsageError, ConfigError."""
    check_secret(name, value, devices or (), settings)
    home.prepare()
    with secretfile.edited(home.secrets) as book:
        before = book.secrets.get(name)
        if before is None and len(book.secrets) >= settings.secrets_max:
            raise UsageError(f"there are {len(book.secrets)} secrets (secrets_max)", hint="`mains secret rm NAME`")
        whom = tuple(sorted({*devices})) if devices is not None else before.devices if before else ()
        if kept == "keyring":
            secretfile.put_in_keyring(book, name, value, whom)
            text = ""
        elif kept == "passphrase":
            text = secretfile.seal(secretfile.key_of(book, passphrase), name, value, whom)
        else:
            text = value
        if before is not None and before.kept == "keyring" and kept != "keyring":
            secretfile.drop_from_keyring(book, name)
        book.secrets[name] = Secret(whom, kept, text)
    return Entry(name, whom, kept)


def remove_secret(home: Home, name: str) -> Entry:
    """Forget a secret. Raises NotFoundError, ConfigError."""
    with secretfile.edited(home.secrets) as book:
        secret = book.secrets.pop(name, None)
        if secret is None:
            raise NotFoundError(f"there is no secret `{name[:64]}`", hint="`mains secret ls` lists them")
        if secret.kept == "keyring":
            secretfile.drop_from_keyring(book, name)
    return Entry(name, secret.devices, secret.kept)
