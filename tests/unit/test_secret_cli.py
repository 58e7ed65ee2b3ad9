"""`mains secret` and a whole home at work: real commands, a real daemon and real devices that tell all they know.

Then every file of the home, every answer of the command line and every trace is searched for the values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.bus.leaky_server import disguises
from tests.unit.daemon_box import COMMAND_S, Box

from mains.redaction import spellings
from mains.settings import Settings
from mains.vault import set_secret

SERVER = Path(__file__).with_name("bus") / "leaky_server.py"
TOKEN, KEY, WORD = 'cAn4ry"+/é&<x>~0123456789', 'kEy-0f-headers+/="&<>~', "w0rd.for.arguments%20+/"
PASSPHRASE = "four words are enough"

LEAK = "---\nname: leak\ndescription: Leaks.\ntools: [leaky.*, far.*, files.*, recall]\non_doubt: skip\n---\nDo it.\n"
SCRIPT = """
replies:
  - first: /Leak all/
    sequence:
      - calls:  # in one reply: once a process has read what devices say, a person is asked about each further call
          - {name: leaky.show, arguments: {}}
          - {name: far.show, arguments: {}}
          - {name: leaky.echo, arguments: {text: "{{secret:WORD}}"}}
          - {name: leaky.fail, arguments: {text: "{{secret:WORD}}"}}
          - {name: leaky.spill, arguments: {}}
          - {name: far.echo, arguments: {text: "{{secret:WORD}} {{secret:TOKEN}}"}}
          - {name: files.write, arguments: {path: a.txt, content: "{{secret:TOKEN}}"}}
      - text: all done
  - first: /Leak to death/
    sequence:
      - calls: [{name: leaky.die, arguments: {text: "{{secret:WORD}}"}}]
      - text: died
  - first: /Leak a fault/
    error: {text: 'no such key: %s', retryable: false, spent: nothing}
  - echo: true
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A home with a daemon of its own, and a passphrase in the environment."""
    box = Box(tmp_path)
    os.environ["MAINS_PASSPHRASE"] = PASSPHRASE
    yield box
    box.close()


def typed(box: Box, value: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that reads a value from standard input."""
    return subprocess.run(
        [sys.executable, "-m", "mains.cli", *words], input=value, text=True, capture_output=True, timeout=COMMAND_S
    )


def values_in(data: bytes) -> list[str]:
    """The values that stand there, however they are spelt."""
    found = []
    for name, value in (("TOKEN", TOKEN), ("KEY", KEY), ("WORD", WORD)):
        every = spellings(value) | {text.encode() for text in disguises(value).values() if "\n" not in text}
        found += [f"{name}: {spelling!r}" for spelling in every if spelling in data]
    return found


def serve(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """The leaky server over HTTP; its port."""
    env = {**os.environ, "GOT": str(folder / "got"), "TOKEN": ""}
    process = subprocess.Popen([sys.executable, str(SERVER), "http"], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.fixture
def far(tmp_path: Path) -> Iterator[int]:
    """A device elsewhere; its port."""
    process, port = serve(tmp_path)
    yield port
    process.kill()
    process.communicate()


def prepare(box: Box, port: int) -> subprocess.CompletedProcess[str]:
    """Devices, secrets, rules and a program."""
    got = box.folder / "got"
    got.touch()
    (box.folder / "script.yaml").write_text(SCRIPT % TOKEN.replace("'", "''"))
    (box.folder / "leak.md").write_text(LEAK)
    box.home.config.write_text(
        f'default_engine = "test"\n[engines.test]\nkind = "scripted"\npath = "{box.folder}/script.yaml"\n'
        '[[grants]]\nallow = "leaky.*"\n[[grants]]\nallow = "far.*"\n'
        f'[devices.leaky]\ncommand = "{sys.executable}"\nargs = ["{SERVER}"]\nwrite = ["{got}"]\n'
        f'env = {{TOKEN = "{{{{secret:TOKEN}}}}", GOT = "{got}"}}\n'
        f'[devices.far]\nurl = "http://127.0.0.1:{port}/mcp"\n'
        'headers = {Authorization = "Bearer {{secret:KEY}}"}\n'
    )
    settings = Settings()
    set_secret(box.home, settings, "TOKEN", TOKEN, ["leaky"], "passphrase", PASSPHRASE)
    set_secret(
        box.home, settings, "WORD", WORD, ["leaky.echo", "leaky.fail", "leaky.die", "far"], "passphrase", PASSPHRASE
    )
    return typed(box, KEY + "\n", "secret", "set", "KEY", "--for", "far", "--passphrase")


def test_no_value_is_anywhere_after_all(box: Box, far: int) -> None:
    done = [prepare(box, far)]
    assert done[0].returncode == 0, done[0].stderr
    done += [box.run("device", "tools", name) for name in ("leaky", "far")]
    done += [box.run("run", "leak.md", f"prompt=Leak {what}") for what in ("all", "to death", "a fault")]
    assert "all done" in done[3].stdout
    done.append(box.run("device", "call", "leaky", "echo", "text={{secret:WORD}}"))
    done.append(box.run("device", "call", "leaky", "die", "text={{secret:WORD}}"))
    done.append(box.run("device", "call", "leaky", "spill", "--json"))
    for words in ("secret ls", "secret ls --json", "ps --all", "device ls", "device ls --json", "doctor", "status"):
        done.append(box.run(*words.split()))
    for pid in ("1", "2", "3"):
        for words in ("show", "show --json", "logs", "logs --json", "mem"):
            done.append(box.run(*words.split(), pid))
    done += [box.run("journal", "export"), box.run("backup", "b.tar"), box.run("meter")]
    box.run("down")
    box.wait_until_free()

    got = [tuple(json.loads(line)) for line in (box.folder / "got").read_text().splitlines()]
    assert {("environment", TOKEN), ("headers", f"Bearer {KEY}"), ("argument", WORD)} <= {*got}
    assert ("argument", f"{WORD} {TOKEN}") not in got, "that one is not for it"
    for each in done:
        assert values_in((each.stdout + each.stderr).encode()) == [], each.args
    said = "".join(each.stdout + each.stderr for each in done)
    assert "[secret TOKEN]" in said
    assert "no such key: [secret TOKEN]" in said
    assert "the secret `TOKEN` is not for far.echo" in said
    for path in box.home.path.rglob("*"):
        assert not path.is_file() or values_in(path.read_bytes()) == [], path
    journal = b"".join(path.read_bytes() for path in box.home.path.glob("mains.db*"))
    assert b"{{secret:WORD}}" in journal, "the journal has the name"
    assert b"[secret TOKEN]" in journal
    with tarfile.open(box.folder / "b.tar") as tar:
        assert "secrets" not in tar.getnames()
    assert values_in((box.folder / "b.tar").read_bytes()) == []


def test_a_daemon_without_the_passphrase_is_told_it(box: Box, far: int) -> None:
    prepare(box, far)
    del os.environ["MAINS_PASSPHRASE"]
    failed = box.run("device", "restart", "leaky")
    assert failed.returncode == 1
    assert "the secret `TOKEN` is locked" in failed.stderr
    assert "mains secret unlock" in failed.stderr
    os.environ["MAINS_PASSPHRASE"] = "not the one"
    wrong = box.run("secret", "unlock")
    assert (wrong.returncode, "not the passphrase" in wrong.stderr) == (2, True)
    os.environ["MAINS_PASSPHRASE"] = PASSPHRASE
    assert box.json("secret", "unlock") == {"locked": []}
    assert box.run("device", "restart", "leaky").returncode == 0


def test_nothing_that_a_daemon_starts_inherits_the_passphrase(box: Box, far: int) -> None:
    prepare(box, far)
    state = box.json("device", "restart", "leaky")
    environment = Path(f"/proc/{state['pid']}/environ")
    if not environment.exists():
        pytest.skip("no /proc here")
    assert TOKEN.encode() in environment.read_bytes()
    assert PASSPHRASE.encode() not in environment.read_bytes()
    limits = Path(f"/proc/{state['pid']}/limits").read_text()
    box.home.config.write_text(box.home.config.read_text().replace("GOT =", 'P = "${MAINS_PASSPHRASE}", GOT ='))
    assert "the variable MAINS_PASSPHRASE is not set" in box.run("device", "restart", "leaky").stderr
    assert next(line.split()[4] for line in limits.splitlines() if line.startswith("Max core")) == "0"


def test_plaintext_is_called_so_and_never_chosen_silently(box: Box) -> None:
    del os.environ["MAINS_PASSPHRASE"]
    alone = [sys.executable, "-c", "import sys; from mains.cli import main; main(sys.argv[1:])", "secret", "set", "T"]
    refused = subprocess.run(
        alone, input=TOKEN, text=True, capture_output=True, timeout=COMMAND_S, start_new_session=True
    )  # a new session has no terminal
    assert refused.returncode == 2
    assert "MAINS_PASSPHRASE" in refused.stderr
    assert "--plaintext" in refused.stderr
    assert not box.home.secrets.exists()
    kept = typed(box, TOKEN, "secret", "set", "T", "--for", "files", "--plaintext")
    assert kept.returncode == 0, kept.stderr
    assert "PLAINTEXT" in kept.stdout
    assert "warning: PLAINTEXT" in kept.stderr
    assert TOKEN not in kept.stdout + kept.stderr
    assert TOKEN in json.loads(box.home.secrets.read_text())["secrets"]["T"]["text"]
    assert "PLAINTEXT" in box.run("secret", "ls").stdout
    assert box.json("secret", "ls") == [{"name": "T", "for": ["files"], "kept": "plaintext"}]
    assert "in PLAINTEXT: T" in box.run("doctor").stdout
    assert box.run("secret", "rm", "T").stdout == "secret T is gone\n"
    assert box.run("secret", "ls").stdout == "no secrets\n"


def test_who_may_have_it_is_kept_and_can_be_changed(box: Box) -> None:
    words = ("secret", "set", "T", "--passphrase")
    assert "nobody yet" in typed(box, TOKEN, *words).stdout
    first = typed(box, TOKEN, *words, "--for", "files.write, git.*", "--for", "git.push")
    assert "for files.write, git, git.push" in first.stdout
    assert "there is no device `git` yet" in first.stderr
    assert "for files.write, git, git.push" in typed(box, KEY, *words).stdout
    wrong = typed(box, KEY, *words, "--for", "a b")
    assert (wrong.returncode, "no device" in wrong.stderr) == (2, True)
    assert typed(box, "tiny", *words).returncode == 2


def test_doctor_and_backup_say_what_stands_in_plaintext_in_the_file(box: Box) -> None:
    box.home.config.write_text(
        box.home.config.read_text()
        + '[devices.git]\ncommand = "x"\nenv = {GIT_TOKEN = "abc", GIT_AUTHOR_NAME = "Ann", KEY = "{{secret:NONE}}"}\n'
    )
    said = box.run("doctor").stdout
    assert "in PLAINTEXT" in said
    assert "GIT_TOKEN" in said
    assert "GIT_AUTHOR_NAME" not in said
    assert "WRONG  device git: the secret NONE is not for it" in said
    box.run("run", "say.md", "prompt=x")
    typed(box, TOKEN, "secret", "set", "T", "--passphrase")
    told = box.run("backup", "b.tar").stderr
    assert "secrets are not in it" in told
    assert "git.GIT_TOKEN" in told
