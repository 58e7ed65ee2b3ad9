"""The vault: where values are kept, who may have them, and what happens when file or passphrase are not right."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mains import secretfile
from mains.errors import ConfigError, NotFoundError, UsageError
from mains.home import Home
from mains.settings import Settings
from mains.vault import Vault, read_entries, remove_secret, set_secret

VALUE, OTHER = "cAn4ry-0123456789", "An0ther-9876543210"
PASSPHRASE = "four words are enough"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home without secrets."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in a millisecond."""
    monkeypatch.setitem(secretfile._SCRYPT, "n", 2**4)


def test_a_secret_goes_to_whom_it_is_for_and_to_nobody_else(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git", "web.fetch"], "plaintext")
    vault = Vault(home)
    assert vault.value("TOKEN", "git") == VALUE
    assert vault.value("TOKEN", "git", "push") == VALUE
    assert vault.value("TOKEN", "web", "fetch") == VALUE
    for device, tool in (("web", ""), ("web", "search"), ("gi", "t"), ("", "git"), ("fetch", "web")):
        with pytest.raises(ConfigError, match="is not for"):
            vault.value("TOKEN", device, tool)
    with pytest.raises(ConfigError, match="there is no secret `token`"):
        vault.value("token", "git")


def test_a_value_that_changes_is_found_at_once_and_the_one_before_still(home: Home) -> None:
    vault = Vault(home)
    assert vault.redact(VALUE) == VALUE
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "plaintext")
    assert vault.redact(VALUE) == "[secret TOKEN]"
    set_secret(home, Settings(), "TOKEN", OTHER, None, "plaintext")
    assert vault.value("TOKEN", "git") == OTHER
    assert vault.redact(f"{VALUE} {OTHER}") == "[secret TOKEN] [secret TOKEN]"
    remove_secret(home, "TOKEN")
    assert vault.redact(f"{VALUE} {OTHER}") == "[secret TOKEN] [secret TOKEN]"
    assert Vault(home).redact(VALUE) == VALUE
    with pytest.raises(NotFoundError):
        remove_secret(home, "TOKEN")


def test_a_sealed_value_opens_with_the_passphrase_only(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "passphrase", PASSPHRASE)
    assert VALUE not in home.secrets.read_text()
    locked = Vault(home)
    assert locked.locked() == ["TOKEN"]
    with pytest.raises(ConfigError, match="locked") as caught:
        locked.value("TOKEN", "git")
    assert "secret unlock" in caught.value.hint
    with pytest.raises(UsageError, match="not the passphrase"):
        locked.key_of("something else")
    locked.unlock(locked.key_of(PASSPHRASE))
    assert locked.value("TOKEN", "git") == VALUE
    assert Vault(home, PASSPHRASE).redact(VALUE) == "[secret TOKEN]"
    assert Vault(home, "something else").locked() == ["TOKEN"]
    set_secret(home, Settings(), "OTHER", OTHER, ["git"], "passphrase", PASSPHRASE)
    assert locked.value("OTHER", "git") == OTHER
    with pytest.raises(UsageError, match="not the passphrase"):
        set_secret(home, Settings(), "THIRD", OTHER, ["git"], "passphrase", "something else")
    assert [entry.name for entry in read_entries(home)] == ["OTHER", "TOKEN"]


def test_when_nothing_is_sealed_any_more_another_passphrase_may_be_chosen(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "passphrase", PASSPHRASE)
    vault = Vault(home, PASSPHRASE)
    assert vault.value("TOKEN", "git") == VALUE
    remove_secret(home, "TOKEN")
    with pytest.raises(UsageError, match="at least 8 characters"):
        set_secret(home, Settings(), "TOKEN", OTHER, ["git"], "passphrase", "short")
    set_secret(home, Settings(), "TOKEN", OTHER, ["git"], "passphrase", "another passphrase")
    with pytest.raises(ConfigError, match="is locked"):
        vault.value("TOKEN", "git")
    vault.unlock(vault.key_of("another passphrase"))
    assert vault.value("TOKEN", "git") == OTHER


def test_who_only_writes_the_file_cannot_name_other_devices_or_swap_values(home: Home) -> None:
    set_secret(home, Settings(), "ONE", VALUE, ["git"], "passphrase", PASSPHRASE)
    set_secret(home, Settings(), "TWO", OTHER, ["web"], "passphrase", PASSPHRASE)
    book = json.loads(home.secrets.read_text())
    one, two = book["secrets"]["ONE"], book["secrets"]["TWO"]
    one["devices"] = ["git", "web"]
    home.secrets.write_text(json.dumps(book))
    with pytest.raises(ConfigError, match="does not open"):
        Vault(home, PASSPHRASE).value("ONE", "web")
    one["devices"] = ["git"]
    one["text"], two["text"] = two["text"], one["text"]
    home.secrets.write_text(json.dumps(book))
    assert Vault(home, PASSPHRASE).locked() == ["ONE", "TWO"]


def test_the_file_is_the_users_alone(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "plaintext")
    assert home.secrets.stat().st_mode & 0o777 == 0o600
    home.secrets.chmod(0o640)
    with pytest.raises(ConfigError, match="others than you can read it"):
        read_entries(home)
    with pytest.raises(ConfigError, match="others than you can read it"):
        Vault(home).value("TOKEN", "git")
    home.secrets.chmod(0o600)
    moved = home.path / "elsewhere"
    home.secrets.rename(moved)
    home.secrets.symlink_to(moved)
    with pytest.raises(ConfigError):
        read_entries(home)


def test_a_damaged_file_is_said_and_quoted_nowhere(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "plaintext")
    vault = Vault(home)
    assert vault.value("TOKEN", "git") == VALUE
    home.secrets.write_text(home.secrets.read_text().replace('"kept"', f'"{VALUE}"'))
    with pytest.raises(ConfigError) as caught:
        read_entries(home)
    assert VALUE not in str(caught.value) + caught.value.hint
    assert vault.redact(VALUE) == "[secret TOKEN]", "what was known stays"


def test_nothing_prints_a_value(home: Home) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "plaintext")
    vault = Vault(home)
    vault.look()
    book = secretfile.read(home.secrets)
    assert VALUE not in repr(vault) + repr(book) + repr(book.secrets) + repr(vault.entries()) + repr(
        vars(vault)["_book"]
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("short", "too short"),
        ("aaaaaaaaaaaa", "too short"),
        ("ababababab", "too short"),
        ("x" * 8_000 + VALUE * 20, "at most 8,192"),
        (f"{VALUE}\0", "no text"),
        (f"{VALUE}\udcff", "no text"),
        ("secret TOKEN", "a word of what stands in its place"),
    ],
)
def test_what_cannot_be_kept_is_refused(home: Home, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        set_secret(home, Settings(), "TOKEN", value, [], "plaintext")
    assert VALUE not in str(caught.value) + caught.value.hint
    assert not home.secrets.exists()


@pytest.mark.parametrize("name", ["", "1st", "a b", "a]", "x" * 65, "naïve", "a\n"])
def test_what_is_no_name_is_refused(home: Home, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a secret"):
        set_secret(home, Settings(), name, VALUE, [], "plaintext")


def test_there_are_so_many_and_no_more(home: Home) -> None:
    settings = Settings(secrets_max=2)
    for name in ("A", "B", "A"):
        set_secret(home, settings, name, VALUE, [], "plaintext")
    with pytest.raises(UsageError, match="secrets_max"):
        set_secret(home, settings, "C", VALUE, [], "plaintext")


def test_two_who_set_secrets_at_once_lose_none(home: Home) -> None:
    def set_some(letter: str) -> None:
        for number in range(20):
            set_secret(home, Settings(), f"{letter}{number}", f"{VALUE}{letter}{number}", [], "plaintext")

    threads = [threading.Thread(target=set_some, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(read_entries(home)) == 40


# ---------------------------------------------------------------------------------------------------- a keyring


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """The library with a keyring in memory; where it is not installed, something that answers as it does."""
    kept: dict[tuple[str, str], str] = {}
    answers = {
        "priority": 5,
        "set_password": lambda _, service, name, value: kept.__setitem__((service, name), value),
        "get_password": lambda _, service, name: kept.get((service, name)),
        "delete_password": lambda _, service, name: kept.__delitem__((service, name)),
    }
    try:
        library: Any = importlib.import_module("keyring")
        ours = type("InMemory", (importlib.import_module("keyring.backend").KeyringBackend,), answers)()
    except ImportError:
        library = types.ModuleType("keyring")
        faults: Any = types.ModuleType("keyring.errors")
        faults.KeyringError = type("KeyringError", (Exception,), {})
        ours = type("InMemory", (), answers)()
        for name in ("set_password", "get_password", "delete_password"):
            setattr(library, name, getattr(ours, name))
        library.get_keyring, library.set_keyring = lambda: ours, lambda _: None
        monkeypatch.setitem(sys.modules, "keyring", library)
        monkeypatch.setitem(sys.modules, "keyring.errors", faults)
    before = library.get_keyring()
    library.set_keyring(ours)
    yield kept
    library.set_keyring(before)


def test_a_value_in_the_keyring_is_not_in_the_home(home: Home, keys: dict[tuple[str, str], str]) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "keyring")
    assert VALUE not in home.secrets.read_text()
    assert [VALUE in kept for kept in keys.values()] == [True]
    assert Vault(home).value("TOKEN", "git") == VALUE
    book = json.loads(home.secrets.read_text())
    book["secrets"]["TOKEN"]["devices"] = ["git", "web"]
    home.secrets.write_text(json.dumps(book))
    with pytest.raises(ConfigError, match="for others than the file says"):
        Vault(home).value("TOKEN", "web")
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "plaintext")
    assert keys == {}, "it is kept in one place"
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "keyring")
    remove_secret(home, "TOKEN")
    assert keys == {}


def test_a_keyring_that_lost_the_value_or_is_gone_is_said(home: Home, keys: dict[tuple[str, str], str]) -> None:
    set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "keyring")
    keys.clear()
    with pytest.raises(ConfigError, match="not in the keyring"):
        Vault(home).value("TOKEN", "git")


def test_a_keyring_that_does_not_answer_holds_up_nobody_for_long(
    home: Home, keys: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B", "C"):
        set_secret(home, Settings(), name, VALUE, ["git"], "keyring")
    free, asked = threading.Event(), threading.Semaphore(0)

    def hang(*_: object) -> None:
        asked.release()
        free.wait(30)

    library: Any = importlib.import_module("keyring")
    monkeypatch.setattr(library, "get_password", hang)
    monkeypatch.setattr(secretfile, "_KEYRING_S", 0.05)
    vault = Vault(home)
    with pytest.raises(ConfigError, match="is it locked"):
        vault.value("B", "git")
    assert vault.locked() == ["A", "B", "C"]
    assert asked.acquire(timeout=5)
    assert not asked.acquire(blocking=False), "it is asked once, not once for each"
    free.set()


def test_without_a_keyring_nothing_pretends_that_there_is_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert secretfile.keyring() is None
    with pytest.raises(ConfigError, match="no keyring"):
        set_secret(home, Settings(), "TOKEN", VALUE, ["git"], "keyring")
    assert not home.secrets.exists()
