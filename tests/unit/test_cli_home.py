"""The verbs about a home: up, down, status, doctor, engine, journal, ledger. Each test has a home of its own."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.daemon_box import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_down_and_status_start_nothing(box: Box) -> None:
    assert box.run("down").stdout == "no daemon runs\n"
    done = box.run("status", "--json")
    assert (done.returncode, json.loads(done.stdout)["pid"]) == (1, None)
    box.spawn("forever")
    shown = box.json("status")
    assert (list(shown["processes"].values()), shown["busy"]) == ([1], True)
    assert set(shown["processes"]) <= {"READY", "RUNNING"}  # its first turn has perhaps not begun yet
    assert box.run("status").returncode == 0
    assert box.json("down")["pid"] == shown["pid"]
    assert not box.home.held()


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(box: Box) -> None:
    box.spawn("hello")
    pid = box.json("status")["pid"]
    done = box.run("up")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: a daemon serves this home already: process {pid}\n")


def test_a_home_held_by_another_kernel_is_said(box: Box) -> None:
    with box.home.lock():
        up, down = box.run("up"), box.run("down")
    assert up.returncode == 2
    assert f"process {os.getpid()}" in up.stderr
    assert down.returncode == 2


def test_a_broken_mains_toml_is_told_by_the_daemon(box: Box) -> None:
    box.home.config.write_text('default_engine = "gone"\n')
    done = box.run("ps")
    assert done.returncode == 2
    assert "there is no engine `gone`" in done.stderr
    assert "daemon.log" not in done.stderr  # mains.toml is what must be looked at
    assert box.run("up").returncode == 2
    assert box.run("engine", "ls").returncode == 2
    assert "WRONG" in box.run("doctor").stdout


def test_engines_are_added_and_listed(box: Box) -> None:
    before = box.home.config.read_text()
    done = box.run("engine", "add", "dashscope", "--model", "qwen-plus")
    assert done.returncode == 0
    assert "DASHSCOPE_API_KEY is not set here" in done.stderr
    assert box.home.config.read_text().startswith(before.rstrip())
    added = box.json("engine", "add", "local", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--slots", "3")
    assert added == {"name": "local", "kind": "openai", "model": "m", "default": False, "daemon": "none"}
    listed = {row["name"]: row for row in box.json("engine", "ls")}
    assert set(listed) == {"llama", "test", "dashscope", "local"}
    assert [name for name, row in listed.items() if row["default"]] == ["test"]
    assert (listed["local"]["slots"], listed["dashscope"]["key_set"]) == (3, False)
    assert "test *" in box.run("engine", "ls").stdout


def test_an_idle_daemon_makes_room_for_one_with_the_new_engine(box: Box) -> None:
    (box.folder / "other.yaml").write_text("replies: [other]\n")
    assert box.json("run", "say.md", "prompt=hello")["result"] == "hello"
    added = box.json("engine", "add", "other", "--path", "other.yaml", "--default")
    assert (added["daemon"], added["default"]) == ("restarted", True)
    assert box.json("run", "say.md", "prompt=hello")["result"] == "other"


def test_a_busy_daemon_is_left_alone(box: Box) -> None:
    (box.folder / "other.yaml").write_text("replies: [other]\n")
    box.spawn("forever")
    pid = box.json("status")["pid"]
    done = box.run("engine", "add", "other", "--path", "other.yaml")
    assert "from its next start: mains down" in done.stderr
    assert box.json("status")["pid"] == pid


def test_audits_work_with_and_without_a_daemon(box: Box) -> None:
    assert box.run("journal", "verify").returncode == 2  # there is none yet
    box.json("run", "say.md", "prompt=hello")
    online = box.run("journal", "export").stdout.splitlines()
    box.run("down")
    offline = box.run("journal", "export").stdout.splitlines()
    assert offline[: len(online)] == online
    assert json.loads(offline[-1])["event"] == {"kind": "noted", "text": "halt"}
    assert box.run("journal", "verify").stdout == "journal: all is well\n"
    assert box.json("ledger", "verify") == {"ok": True, "faults": []}
    assert not box.home.held()


def test_a_damaged_journal_is_told_though_no_kernel_boots(box: Box) -> None:
    pid = box.json("run", "say.md", "prompt=hello")["pid"]
    box.run("down")
    with sqlite3.connect(box.home.database) as database:
        change = "UPDATE event SET at_ms = at_ms + 1 WHERE pid = ?"
        database.execute(change, (pid,))
    database.close()
    done = box.run("journal", "verify")
    assert done.returncode == 1
    assert "its checksum does not fit" in done.stderr
    started = box.run("ps")
    assert started.returncode == 1
    assert "mains journal verify" in started.stderr


def test_doctor(box: Box) -> None:
    done = box.run("doctor")
    assert done.returncode == 0, done.stdout
    assert not box.home.held()
    box.home.path.chmod(0o755)
    box.home.config.write_text(
        'default_engine = "x"\n[engines.x]\nkind="openai"\nurl="http://h/v1"\nmodel="m"\nkey_env="NO_X"\n'
    )
    wrong = [finding for finding in json.loads(box.run("doctor", "--json").stdout) if not finding["ok"]]
    assert [finding["what"] for finding in wrong] == ["home", "engine x (default)"]
    assert "chmod 700" in wrong[0]["told"]
    assert "NO_X" in wrong[1]["told"]
    box.home.path.chmod(0o700)


def test_restart_exec_and_groups(box: Box) -> None:
    folder = box.folder
    pids = [box.json("run", "say.md", "prompt=forever", "--detach", "--group", "team")["pid"] for _ in range(2)]
    assert [each["pid"] for each in box.json("ps", "--group", "team")] == pids
    assert box.json("restart", str(pids[0])) == {"pid": pids[0], "changed": False}
    text = (folder / "say.md").read_text()
    (folder / "say.md").write_text(text + "\nSay it well.\n")
    assert box.run("restart", str(pids[0])).stdout == f"process {pids[0]} takes the new version at its next turn\n"
    (folder / "other.md").write_text(text.replace("name: say", "name: other"))
    assert box.json("exec", str(pids[1]), "other.md", "prompt=now")["changed"] is True
    assert box.json("show", str(pids[1]))["next_program"] == "other"
    both = box.run("kill", str(pids[0]), "--group", "team")
    assert (both.returncode, both.stderr.splitlines()[0]) == (2, "error: name one process, or a group with --group")
    assert box.json("kill", "--group", "team", "--signal", "KILL") == {"group": "team", "changed": pids}
    assert box.run("kill", "--group", "team").returncode == 2


def test_a_program_with_a_schedule_is_put_on_it(box: Box) -> None:
    text = (box.folder / "say.md").read_text().replace("---\n", "---\nschedule: {cron: 0 7 * * *, timezone: UTC}\n", 1)
    (box.folder / "daily.md").write_text(text)
    assert "schedule: 0 7 * * * (UTC), next 2" in box.run("check", "daily.md").stdout
    told = box.run("run", "daily.md", "prompt=hello").stdout
    assert "is a schedule: 0 7 * * * (UTC), next run 2" in told
    assert [(each["state"], each["reason"][:15]) for each in box.json("ps")] == [("WAITING", "timer: next run")]
    assert box.run("run", "daily.md", "prompt=hello", "--now").stdout == "hello\n"
