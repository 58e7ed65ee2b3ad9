"""The file `secrets` of a home: which secrets there are, who may have them, and where each value is kept.

    {"format": 1, "id": HEX, "salt": BASE64, "check": BASE64,
     "secrets": {NAME: {"devices": [DEVICE or DEVICE.TOOL, ...], "kept": KIND, "text": TEXT}}}

KIND says where the value is:

- `keyring`: in the keyring of the operating system (the library `keyring`), as the service `mains ID`; TEXT is empty;
- `passphrase`: in TEXT, sealed with AES-256-GCM under a key that scrypt makes of a passphrase (RFC 7914, with
  N = 2^17, r = 8, p = 1). The name and the devices are sealed with it: who only writes the file names no others;
- `plaintext`: TEXT is the value.

One passphrase for all of a file, as long as anything is sealed with it: `check` is an empty text that was. The file has
mode 0600; one that others can read is refused. It changes in one step, by one process at a time. Nothing here prints a
value or puts it into an error.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from mains.errors import ConfigError, UsageError
from mains.tomlfile import alone, replace_file

FORMAT = 1
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
PASSPHRASE_VARIABLE = "MAINS_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_CHARS_MIN = 8
_BYTES_MAX = 64 * 1024 * 1024
_SCRYPT = {"n": 2**17, "r": 8, "p": 1, "maxmem": 256 * 1024 * 1024, "dklen": 32}
_KEYRING_S = 10.0

Kind = Literal["keyring", "passphrase", "plaintext"]


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret as the file has it. `devices`: who may have it; `text`: what the header says."""

    devices: tuple[str, ...]
    kept: Kind
    text: str = ""

    def __repr__(self) -> str:
        return f"Secret({self.kept})"


class Book(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the file holds."""

    format: int = FORMAT
    id: str = ""
    salt: str = ""
    check: str = ""
    secrets: dict[str, Secret] = {}

    def __repr__(self) -> str:
        return f"Book({len(self.secrets)} secrets)"


def read(path: Path) -> Book:
    """The book of a file; an empty one when there is none. Raises ConfigError."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise ConfigError(f"{path}: it is no plain file", hint="move it away, and set the secrets again")
            if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
                raise ConfigError(f"{path}: others than you can read it", hint=f"chmod 600 {path}")
            data = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return Book()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        book = msgspec.json.decode(data, type=Book)
    except msgspec.DecodeError:  # its text may quote what it found
        raise ConfigError(f"{path}: it is damaged", hint="move it away, and set the secrets again") from None
    if book.format != FORMAT:
        raise ConfigError(f"{path}: format {book.format}, this Mains reads {FORMAT}", hint="use a newer Mains")
    return book


@contextlib.contextmanager
def edited(path: Path) -> Iterator[Book]:
    """The book of a file, which is written at the end of the block; not when that raises. Raises ConfigError."""
    with alone(path):
        book = read(path)
        book.id = book.id or secrets.token_hex(8)
        yield book
        if all(secret.kept != "passphrase" for secret in book.secrets.values()):
            book.salt = book.check = ""  # the next one that is sealed may have another passphrase
        replace_file(path, msgspec.json.format(msgspec.json.encode(book)).decode())


# ------------------------------------------------------------------------------------------------- a passphrase


def key_of(book: Book, passphrase: str) -> bytes:
    """The key that a passphrase makes: some tenths of a second, 128 MiB. A new book gets its salt and its check here.

    Raises UsageError when the file has another passphrase, or a new one is too short.
    """
    if not book.check:
        if len(passphrase) < PASSPHRASE_CHARS_MIN:
            raise UsageError(f"a passphrase has at least {PASSPHRASE_CHARS_MIN} characters; several words are good")
        book.salt = base64.b64encode(secrets.token_bytes(16)).decode()
        key = _scrypt(book, passphrase)
        book.check = seal(key, "", "", ())
        return key
    key = _scrypt(book, passphrase)
    if not opens(book, key):
        hint = f"`mains secret rm` takes away those whose passphrase is lost; {PASSPHRASE_VARIABLE} may hold it"
        raise UsageError("this is not the passphrase of the secrets of this home", hint=hint)
    return key


def opens(book: Book, key: bytes) -> bool:
    """Whether a key is that of the book's passphrase."""
    try:
        unseal(key, "", book.check, ())
    except ConfigError:
        return False
    return True


def _scrypt(book: Book, passphrase: str) -> bytes:
    try:
        salt = base64.b64decode(book.salt, validate=True)
    except ValueError:
        raise ConfigError("the file of the secrets is damaged: its salt cannot be read") from None
    return hashlib.scrypt(passphrase.encode("utf-8", "surrogateescape"), salt=salt, **_SCRYPT)


def seal(key: bytes, name: str, value: str, devices: tuple[str, ...]) -> str:
    """A value that only `key` opens, for this name and these devices."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(12)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, value.encode(), _about(name, devices))).decode()


def unseal(key: bytes, name: str, text: str, devices: tuple[str, ...]) -> str:
    """What was sealed. Raises ConfigError when it was not sealed so."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = base64.b64decode(text, validate=True)
        return AESGCM(key).decrypt(data[:12], data[12:], _about(name, devices)).decode()
    except (InvalidTag, ValueError):
        hint = f"somebody changed the file; `mains secret set {name}` sets it again"
        raise ConfigError(f"the secret `{name}` does not open", hint=hint) from None


def _about(name: str, devices: tuple[str, ...]) -> bytes:
    return msgspec.json.encode(["mains secret", FORMAT, name, devices])


# --------------------------------------------------------------------------------------------------- a keyring


def keyring() -> Any | None:
    """The library of the operating system's keyring; None when it is not installed, or there is no keyring here."""
    try:
        import keyring as library
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        backend = library.get_keyring()
        return library if backend.priority > 0 else None
    except (KeyringError, RuntimeError, OSError):  # a backend says with a RuntimeError that it cannot work here
        return None


def put_in_keyring(book: Book, name: str, value: str, devices: tuple[str, ...]) -> None:
    """Keep a value in the keyring. Raises ConfigError."""
    _asked(lambda library: library.set_password(_service(book), name, _entry(value, devices)), "keeps nothing")


def from_keyring(book: Book, names: Sequence[str]) -> dict[str, str]:
    """The entries of these names that are there, in one go: there is one limit for all. Raises ConfigError."""
    service = _service(book)

    def ask(library: Any) -> dict[str, str]:
        found = ((name, library.get_password(service, name)) for name in names)
        return {name: text for name, text in found if text}

    entries: dict[str, str] = _asked(ask, "gives nothing")
    return entries


def value_of(name: str, entry: str, devices: tuple[str, ...]) -> str:
    """The value in an entry of the keyring that was made for these devices. Raises ConfigError."""
    try:
        value, whom = msgspec.json.decode(entry, type=tuple[str, tuple[str, ...]])
    except msgspec.DecodeError:
        hint = f"`mains secret set {name}` sets it again"
        raise ConfigError(f"the secret `{name}` is not in the keyring", hint=hint) from None
    if whom != devices:
        raise ConfigError(f"the secret `{name}` is for others than the file says", hint=f"`mains secret set {name}`")
    return value


def drop_from_keyring(book: Book, name: str) -> None:
    """Take a value out; one that is not there is no fault, nor is a keyring that is gone."""
    with contextlib.suppress(ConfigError):
        _asked(lambda library: library.delete_password(_service(book), name), "drops nothing")


def _service(book: Book) -> str:
    return f"mains {book.id}"


def _entry(value: str, devices: tuple[str, ...]) -> str:
    return msgspec.json.encode([value, devices]).decode()


def _asked(work: Any, what: str) -> Any:
    """What a keyring answers, in a thread that may be left behind: one that is locked may wait for its owner."""
    import threading

    library = keyring()
    if library is None:
        hint = "install `mains[keyring]`, or set the secret again with --passphrase"
        raise ConfigError("there is no keyring of the operating system here", hint=hint)
    from keyring.errors import KeyringError

    answers: list[Any] = []
    faults: list[str] = []

    def run() -> None:
        try:
            answers.append(work(library))
        except (KeyringError, RuntimeError, OSError, ValueError) as error:
            faults.append(type(error).__name__)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_KEYRING_S)
    if not answers:
        why = faults[0] if faults else f"no answer within {_KEYRING_S:g} s; is it locked?"
        raise ConfigError(f"the keyring of the operating system {what}: {why}")
    return answers[0]
