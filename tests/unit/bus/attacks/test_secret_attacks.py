"""Attacks on secrets: values in disguises that mix ways to write them, and files that are not what they were.

Each case is one disguise; its name says which. Nothing of the value may be left.
"""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mains import secretfile
from mains.errors import ConfigError
from mains.home import Home
from mains.redaction import Redactor
from mains.settings import Settings
from mains.vault import Vault, set_secret

VALUE = "cAn4ry+0f/the=Test%&<é>~key"


def _in_json(text: str, escaped: str, upper: bool = False) -> str:
    form = "\\u{:04X}" if upper else "\\u{:04x}"
    return "".join(form.format(ord(char)) if char in escaped else char for char in text)


_B64 = base64.b64encode(f"user:{VALUE}".encode()).decode()
DISGUISES = {
    "every sign escaped for JSON": _in_json(VALUE, "+/=%&<>é~"),
    "every sign in upper case": _in_json(VALUE, "+/=%&<>é~", upper=True),
    "every character": _in_json(VALUE, VALUE),
    "letters escaped for JSON": _in_json(VALUE, "cry"),
    "escaped for JSON in JSON": json.dumps(_in_json(VALUE, "+/=%&<>é~")),
    "twice in JSON": json.dumps(json.dumps(_in_json(VALUE, "+%é"))),
    "letters escaped for a URL": quote(VALUE, safe="").replace("r", "%72").replace("y", "%79"),
    "some signs escaped for a URL": quote(VALUE, safe="+=&<"),
    "other signs escaped for a URL": quote(VALUE, safe="/~>"),
    "base64 in a URL": quote(_B64, safe=""),
    "base64 in JSON": json.dumps(_B64).replace("=", "\\u003d").replace("+", "\\u002b").replace("/", "\\/"),
    "decimal in HTML": "".join(f"&#{ord(char)};" for char in VALUE),
    "hexadecimal in HTML": "".join(f"&#x{ord(char):x};" for char in VALUE),
    "names in HTML": html.escape(VALUE).replace("+", "&plus;").replace("=", "&equals;").replace("é", "&eacute;"),
    "some letters in HTML": VALUE.replace("A", "&#65;").replace("y", "&#x79;"),
    "upper case": VALUE.upper(),
    "lower case": VALUE.lower(),
    "wrapped": "\n".join(VALUE[at : at + 5] for at in range(0, len(VALUE), 5)),
    "wrapped base64": "\r\n".join(_B64[at : at + 8] for at in range(0, len(_B64), 8)),
    "once plain and once escaped": f"{VALUE} {_in_json(VALUE, 'cry+')}",
    "among other escapes": f"%20%2F{quote(VALUE, safe='')}%20 \\u0020{_in_json(VALUE, '+')}\\u0020 &amp;{VALUE}&amp;",
}


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES)
def test_no_mixture_of_escapes_hides_a_value(text: str) -> None:
    found = Redactor([("K", VALUE)]).redact(f"before {text} behind")
    assert "[secret K]" in found
    plain = html.unescape(found.replace("\n", "").replace("\r", "")).lower()
    for part in (VALUE.lower(), VALUE.lower()[3:20], _B64.lower()[12:30], VALUE.encode().hex()[6:30]):
        assert part not in plain
    left = len(found) - len("before  behind") - len("[secret K]") * found.count("[secret K]")
    assert left <= len(text) * 2 // 3, "what stood around it, at most"


def test_what_is_no_value_stays_word_for_word() -> None:
    text = 'a%20b&amp;c\\u00e9 \\\\u0041 100% &nothing; {"x": 123456789}'
    assert Redactor([("K", VALUE)]).redact(text) == text


def test_a_value_of_digits_is_found_where_json_has_a_number() -> None:
    redactor = Redactor([("PIN", "90210417")])
    assert redactor.redact_json({"pin": 90210417, "n": 9, "yes": True}) == {"pin": "[secret PIN]", "n": 9, "yes": True}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.find(tmp_path / "home")
    home.prepare()
    set_secret(home, Settings(), "K", VALUE, ["git"], "plaintext")
    return home


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


SWAPS: dict[str, Any] = {
    "a link": _link,
    "a pipe, which nobody writes": _pipe,
    "a folder": _folder,
    "readable by others": lambda path: path.chmod(0o644),
    "writable by the group": lambda path: path.chmod(0o620),
    "no JSON": lambda path: path.write_text(VALUE),
    "unknown fields": lambda path: path.write_text('{"secrets": {}, "more": 1}'),
    "a newer format": lambda path: path.write_text('{"format": 2}'),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_a_file_that_is_not_what_it_was_gives_nothing_and_still_redacts(home: Home, swap: Any) -> None:
    vault = Vault(home)
    assert vault.value("K", "git") == VALUE
    swap(home.secrets)
    with pytest.raises(ConfigError) as said:
        secretfile.read(home.secrets)
    assert VALUE not in f"{said.value} {said.value.hint}"
    assert vault.redact(f"x {VALUE}") == "x [secret K]", "what was given away is still found"
    with pytest.raises(ConfigError):
        Vault(home).value("K", "git")


def test_times_that_were_set_back_hide_no_change(home: Home) -> None:
    vault = Vault(home)
    assert vault.value("K", "git") == VALUE
    info = home.secrets.stat()
    home.secrets.write_text(home.secrets.read_text().replace('"git"', '"web"'))
    os.utime(home.secrets, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(ConfigError, match="is not for git"):
        vault.value("K", "git")


def test_sealed_values_cannot_be_changed_round(home: Home) -> None:
    for name in ("A", "B"):
        set_secret(home, Settings(), name, f"{VALUE}-{name}", ["git"], "passphrase", "four words are enough")
    book = secretfile.read(home.secrets)
    texts = [book.secrets[name].text for name in ("A", "B")]
    assert len({*(base64.b64decode(text)[:12] for text in texts), base64.b64decode(book.check)[:12]}) == 3, "nonces"
    swapped = (
        home.secrets.read_text().replace(texts[0], "0").replace(texts[1], texts[0]).replace('"0"', f'"{texts[1]}"')
    )
    home.secrets.write_text(swapped)
    vault = Vault(home, "four words are enough")
    for name in ("A", "B"):
        with pytest.raises(ConfigError, match=f"the secret `{name}` does not open"):
            vault.value(name, "git")
