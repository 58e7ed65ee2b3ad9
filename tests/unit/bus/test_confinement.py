"""What a device may touch, going by its table, its command and the files around it: nothing is restricted here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mains.bus.confinement import Ground, Rules, advice, closed_names, rules_of, within
from mains.bus.importing import opened, read_servers
from mains.bus.mechanism import Mechanism, bubblewrap, find_mechanism
from mains.bus.spec import DeviceSpec, checked_spec
from mains.bus.warden import Warden
from mains.errors import ConfigError


class House:
    """A person's home with the usual things in it, and a home of Mains in its usual place."""

    def __init__(self, folder: Path) -> None:
        self.person = folder / "ann"
        self.mains = self.person / ".local" / "share" / "mains"
        for name in (".ssh", ".aws", "notes", "bin", "desk/sub"):
            (self.person / name).mkdir(parents=True)
        (self.mains / "devices" / "box").mkdir(parents=True)
        (self.mains / "workspaces" / "site").mkdir(parents=True)
        (self.mains / "mains.db").touch()

    def file(self, name: str, text: str = "", *, runs: bool = False) -> str:
        """A file of the person."""
        path = self.person / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if runs else 0o644)
        return str(path)

    def spec(self, command: str = "true", *args: str, **more: Any) -> DeviceSpec:
        """A device."""
        return checked_spec("box", {"command": command, "args": list(args), **more}, "here")

    def ground(self, path: str = "/usr/bin:/bin") -> Ground:
        """Where its things are."""
        return Ground(self.mains, self.mains / "devices" / "box", self.person, path)

    def rules(self, command: str = "true", *args: str, path: str = "/usr/bin:/bin", **more: Any) -> Rules:
        """Its rules."""
        return rules_of(self.spec(command, *args, **more), self.ground(path))


@pytest.fixture
def house(tmp_path: Path) -> House:
    """See `House`."""
    return House(Path(os.path.realpath(tmp_path)))


def test_a_device_reads_the_system_and_writes_what_is_its_own(house: House) -> None:
    rules = house.rules()
    own = house.ground().own
    assert rules.write == (str(own / "work"), str(own / "home"), str(own / "tmp"))
    assert rules.covers("/usr/bin/true")
    assert rules.covers("/etc/hosts")
    assert (rules.given_read, rules.given_write) == ((), ())
    for closed in (".ssh", ".aws/credentials", "notes", ".bashrc", ".local/share/mains/mains.db", ""):
        assert not rules.covers(str(house.person / closed)), closed
    for other in (own / "tools.json", own.parent / "other" / "work", Path("/tmp"), Path("/"), Path("/dev/sda")):
        assert not rules.covers(str(other)), other


def test_what_its_table_names_is_opened(house: House) -> None:
    rules = house.rules(read=[str(house.person / "notes")], write=["~/desk"])
    assert rules.given_read == (str(house.person / "notes"),)
    assert rules.given_write == (str(house.person / "desk"),)
    assert house.rules(folder=str(house.person / "desk")).given_write == (str(house.person / "desk"),)
    assert house.rules(read=["~/.ssh/", "~/.aws"]).covers(str(house.person / ".ssh/id"))  # by its own name


@pytest.mark.parametrize(
    ("key", "path", "said"),
    [
        ("write", "/", "opens the home of Mains"),
        ("read", "~/", "opens the home of Mains"),
        ("read", "~/.local", "opens the home of Mains"),
        ("read", "~/.local/share/mains", "opens the home of Mains"),
        ("read", "~/.local/share/mains/mains.db", "opens the home of Mains"),
        ("write", "~/.local/share/mains/workspaces", "opens the home of Mains"),
        ("read", "~/notes/../.local/share/mains/devices", "opens the home of Mains"),
        ("read", "~/nowhere", "is not there"),
    ],
)
def test_what_would_open_too_much_is_refused(house: House, key: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rules_of(house.spec(read=[path]) if key == "read" else house.spec(write=[path]), house.ground())


def test_a_folder_around_keys_is_refused_and_a_workspace_by_name_is_not(house: House, tmp_path: Path) -> None:
    away = Ground(tmp_path / "mains", tmp_path / "mains" / "devices" / "box", house.person, "/bin")
    with pytest.raises(ConfigError, match=r"which holds .*/\.ssh"):
        rules_of(house.spec(read=["~/"]), away)
    assert house.rules(write=[str(house.mains / "workspaces" / "site")]).given_write
    with pytest.raises(ConfigError, match="opens the home of Mains"):
        house.rules(folder=str(house.mains))
    with pytest.raises(ConfigError, match="opens the home of Mains"):
        house.rules(folder="devices")  # of the home of Mains


def test_a_link_that_the_device_can_change_leads_nowhere(house: House) -> None:
    (house.person / "desk" / "inner").symlink_to(house.person / ".aws")
    with pytest.raises(ConfigError, match="a link that the device itself can change"):
        house.rules(write=["~/desk"], read=["~/desk/inner"])
    (house.person / "short").symlink_to(house.person / "notes")
    assert house.rules(read=["~/short"]).given_read == (str(house.person / "notes"),)


def test_a_link_to_the_home_of_mains_is_seen_through(house: House) -> None:
    (house.person / "short").symlink_to(house.mains)
    with pytest.raises(ConfigError, match="opens the home of Mains"):
        house.rules(read=["~/short"])


# ------------------------------------------------------------------------------------------------------------- code


def test_a_virtual_environment_and_its_python_are_read(house: House) -> None:
    original = house.file("pythons/3.11/bin/python3.11", runs=True)
    venv = house.person / "srv" / ".venv"
    python = venv / "bin" / "python"
    house.file("srv/.venv/pyvenv.cfg", f"home = {Path(original).parent}\nversion = 3.11\n")
    (house.person / "pythons/3.11/lib/python3.11").mkdir(parents=True)
    house.file("srv/.venv/bin/server", f"#!{python}\n", runs=True)
    python.symlink_to(original)
    for command in (str(python), str(venv / "bin" / "server")):
        rules = house.rules(command)
        assert rules.covers(str(venv / "lib" / "x.py")), command
        assert rules.covers(str(house.person / "pythons/3.11/lib/python3.11/os.py"))
        assert not rules.covers(str(house.person / "srv" / "data"))


def test_a_node_of_a_version_manager_and_its_npx_are_read(house: House) -> None:
    npx = house.file(".nvm/versions/v24/lib/node_modules/npm/bin/npx-cli.js", "#!/usr/bin/env node\n", runs=True)
    house.file(".nvm/versions/v24/bin/node", runs=True)
    (house.person / ".nvm/versions/v24/bin/npx").symlink_to(npx)
    rules = house.rules("npx", "-y", "server", path=f"{house.person}/.nvm/versions/v24/bin:/usr/bin")
    assert rules.given_read == (str(house.person / ".nvm"),)


def test_a_script_brings_its_package_and_nothing_beside_it(house: House) -> None:
    house.file("srv/package.json", "{}")
    script = house.file("srv/dist/index.js")
    house.file("bin/node", runs=True)
    rules = house.rules(str(house.person / "bin/node"), script)
    assert rules.covers(str(house.person / "srv/node_modules/x"))
    module = house.file("app/node_modules/a/node_modules/b/cli.js")
    assert house.rules("node", module, path=str(house.person / "bin")).covers(str(house.person / "app/node_modules/c"))
    loose = house.file("loose.py")  # in the person's home itself: only the file
    house.file("bin/python3", runs=True)
    rules = house.rules(str(house.person / "bin/python3"), "-u", loose)
    assert rules.covers(loose)
    assert not rules.covers(str(house.person / "notes"))
    assert not house.rules(str(house.person / "bin/python3"), "-c", loose).covers(loose)


def test_a_tool_of_the_person_is_read_and_what_lies_beside_it_is_not(house: House) -> None:
    target = house.file(".local/share/uv/tools/git/bin/server", runs=True)
    (house.person / ".local/bin").mkdir()
    (house.person / ".local/bin/server").symlink_to(target)
    house.file(".local/lib/x")
    rules = house.rules("server", path=f"{house.person}/.local/bin")
    assert rules.covers(target)
    assert rules.covers(str(house.person / ".local/share/uv/python"))
    assert not rules.covers(str(house.mains))
    assert not rules.covers(str(house.person / ".local/share/keyrings/x"))


def test_what_a_device_can_write_chooses_nothing_that_it_may_read(house: House) -> None:
    """A link, a first line and a pyvenv.cfg in a folder that the device may write."""
    away = house.file("private/bin/tool", runs=True)
    (house.person / "private/lib/python3.11").mkdir(parents=True)
    python = house.person / "desk" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(away)
    assert house.rules(str(python)).covers(away)
    assert not house.rules(str(python), write=["~/desk"]).covers(away)
    script = house.file("desk/bin/run", f"#!{away}\n", runs=True)
    assert house.rules(script).covers(away)
    assert not house.rules(script, write=["~/desk"]).covers(away)
    house.file("desk/pyvenv.cfg", f"home = {Path(away).parent}\n")
    plain = house.file("desk/bin/plain", runs=True)
    assert house.rules(plain).covers(away)
    assert not house.rules(plain, write=["~/desk"]).covers(away)


def test_a_home_below_a_system_folder_is_left_out_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    system = house.person / "opt"
    for name in ("other/x", "srv/mains/devices", "srv/lib"):
        (system / name).mkdir(parents=True)
    monkeypatch.setattr("mains.bus.confinement.SYSTEM", ("/usr", str(system)))
    home = system / "srv" / "mains"
    rules = rules_of(house.spec(), Ground(home, home / "devices" / "box", house.person, "/bin"))
    assert rules.covers(str(system / "other" / "x"))
    assert rules.covers(str(system / "srv" / "lib"))
    assert not rules.covers(str(home))
    assert str(system) not in rules.read


# ------------------------------------------------------------------------------------------------ what people are told


def test_what_a_command_names_and_may_not_touch_is_named(house: House) -> None:
    notes, new = str(house.person / "notes"), str(house.person / "desk" / "new.db")
    spec = house.spec("true", "-y", "@scope/server", notes, f"--db={new}", "/mcp", "https://h/x", "/usr/share")
    assert closed_names(spec, house.rules(), house.ground()) == [notes, new]
    spec = house.spec(env={"FILE": new, "PATHS": f"/usr/lib:{notes}", "T": "${HOME}/x", "S": "{{secret:t}}"})
    assert closed_names(spec, house.rules(), house.ground()) == [new, notes]
    assert closed_names(house.spec("true", "~/notes"), house.rules(), house.ground()) == [notes]
    rules = house.rules(write=[notes], read=[str(house.person / "desk")])
    assert closed_names(house.spec("true", notes, new), rules, house.ground()) == []


def test_a_device_is_not_added_before_somebody_has_decided(house: House) -> None:
    notes = str(house.person / "notes")
    warden = Warden(house.mains, lambda: Mechanism("landlock", 7))
    with pytest.raises(ConfigError, match=r"its command names .*/notes, which it may not touch") as caught:
        warden.check(house.spec("true", notes))
    assert f"--write {notes}" in caught.value.hint
    with pytest.raises(ConfigError) as caught:  # a file is written anew beside itself
        warden.check(house.spec(env={"FILE": f"{notes}/memory.json"}))
    assert f"`--write {notes}`" in caught.value.hint
    warden.check(house.spec("true", notes, write=[notes]))
    warden.check(house.spec("true", notes, confined=False))
    Warden(house.mains, lambda: Mechanism("")).check(house.spec("true", notes))  # nothing is closed there


def test_unconfined_is_said_and_why(house: House) -> None:
    strong, weak = Warden(house.mains, lambda: Mechanism("landlock", 7)), Warden(house.mains, lambda: Mechanism(""))
    assert strong.word_of(house.spec()).by == "landlock"
    told = strong.word_of(house.spec(confined=False))
    assert (told.by, told.why) == ("UNCONFINED", "`confined = false` in its table")
    assert weak.word_of(house.spec()).by == "UNCONFINED"
    assert "neither Landlock nor" in weak.word_of(house.spec()).why
    assert strong.word_of(checked_spec("far", {"url": "http://h/mcp"}, "here")).by == ""
    assert strong.own_home(house.spec(confined=False)) is None


@pytest.mark.parametrize(
    "line",
    [
        "Error: EACCES: permission denied, open 'PATH'",
        "PermissionError: [Errno 13] Permission denied: 'PATH'",
        "bash: PATH: Permission denied",
        "fatal: unable to access 'PATH': Permission denied",
        "cannot open PATH.",
    ],
)
def test_a_device_that_ends_says_what_it_lacked(house: House, line: str) -> None:
    path = str(house.person / "notes" / "a.db")
    said = advice(f"begin\n{line.replace('PATH', path)}\n    at Object.open (node:fs:562:18)\n", house.rules(), "box")
    assert said == f'it may not touch {path}; `read = ["{path}"]` or `write = ["{path}"]` in [devices.box] opens it'


def test_no_advice_is_made_up(house: House) -> None:
    for text in (
        "",
        "failed: /no/such/place/at/all",
        "failed to read /etc/passwd",
        f"all is well in {house.person}/notes",
    ):
        assert advice(text, house.rules(), "box") == "", text


def test_what_is_opened_at_an_import_goes_to_who_names_it(house: House) -> None:
    notes, desk = str(house.person / "notes"), str(house.person / "desk")
    data = (
        '{"mcpServers": {"a": {"command": "x", "args": ["%s/sub"]}, "b": {"command": "y"}, "c": {"url": "http://h/m"}}}'
    )
    a, b, c = (opened(each, [notes], [desk]) for each in read_servers((data % desk).encode(), "f").specs)
    assert (a.read, a.write) == ((), (desk,))
    assert (b.read, b.write) == ((), ())
    assert c.confined
    assert not opened(b, [], [], unconfined=True).confined


# --------------------------------------------------------------------------------------------------------- bubblewrap


def test_bubblewrap_shows_what_the_rules_name_and_nothing_else(house: House) -> None:
    rules = house.rules(read=["~/desk"], write=["~/desk/sub"])
    words = bubblewrap("/usr/bin/bwrap", rules, str(house.ground().work), ["server", "-x"])
    assert words[-3:] == ["--", "server", "-x"]
    binds = [(words[at], words[at + 1]) for at, word in enumerate(words) if word.endswith("bind-try")]
    assert ("--ro-bind-try", str(house.person / "desk")) in binds
    assert ("--bind-try", str(house.ground().work)) in binds
    order = [path for _, path in binds]
    assert order.index(str(house.person / "desk")) < order.index(str(house.person / "desk" / "sub"))
    assert not any(within(str(house.mains / "mains.db"), path) for path in order)
    assert "/" not in order
    assert {"--die-with-parent", "--unshare-pid", "--proc"} <= {*words}
    assert words.index("--tmpfs") < words.index(binds[0][0])


def test_landlock_comes_first_and_what_does_not_work_does_not_count(tmp_path: Path) -> None:
    broken, works = tmp_path / "broken", tmp_path / "works"
    broken.write_text("#!/bin/sh\nexit 1\n")
    works.write_text("#!/bin/sh\nexit 0\n")
    for each in (broken, works):
        each.chmod(0o755)
    assert find_mechanism(lambda: 4, lambda _: str(works)) == Mechanism("landlock", 4)
    assert find_mechanism(lambda: 0, lambda _: str(works)) == Mechanism("bubblewrap", program=str(works))
    assert find_mechanism(lambda: 0, lambda _: str(broken)) == Mechanism("")
    assert find_mechanism(lambda: 0, lambda _: None) == Mechanism("")
    assert "signal" in Mechanism("landlock", 5).weakness
    assert Mechanism("landlock", 6).weakness == ""
