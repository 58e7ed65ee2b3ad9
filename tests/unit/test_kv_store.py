"""The files of the embedded engine: what is damaged, half, foreign or too much is never used."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mains.engines import kv_store
from mains.engines.kv_policy import Chain, chain_of
from mains.engines.kv_store import Entry, Store
from mains.kernel.ports import Message

SETTINGS: dict[str, object] = {"context_tokens": 4_096}


def chain(process: int = 1, tenant: int = 1) -> Chain:
    return chain_of(f"{tenant}", [Message("system", "s" * 400), Message("user", f"{process}" * 400)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def make(tmp_path: Path, model: Path) -> Callable[..., Store]:
    def make(bytes_max: int = 10_000, at_s: float = 1_000.0, settings: dict[str, object] = SETTINGS) -> Store:
        store = Store(tmp_path / "kv" / "llama", bytes_max, lambda: at_s)
        store.open(model, settings)
        return store

    return make


def put(store: Store, process: int = 1, tenant: int = 1, size: int = 1_000) -> Entry:
    """A file as the engine makes it."""
    name = store.begin(tenant, process, 200)
    assert name is not None
    (store.folder / f"{name}.new").write_bytes(bytes([process % 256]) * size)
    entry = store.seal(name, tenant, process, 200, chain(process, tenant))
    assert entry is not None
    store.add(entry)
    return entry


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if path.name != "model.json")


def test_a_file_is_found_again_after_a_restart(make: Callable[..., Store]) -> None:
    entry = put(make())
    store = make()
    found, tokens = store.find(1, 1, chain())
    assert found == entry
    assert tokens == 200
    assert store.sound(entry)
    assert store.bytes == 1_000


def test_only_its_owner_may_read_a_file(make: Callable[..., Store]) -> None:
    store = make()
    entry = put(store)
    for suffix in (".kv", ".json"):
        assert stat.S_IMODE((store.folder / f"{entry.name}{suffix}").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_nothing_is_shared_between_tenants(make: Callable[..., Store]) -> None:
    store = make()
    put(store)
    assert store.find(2, 1, chain()) == (None, 0)
    assert store.find(1, 7, chain())[0] is not None, "another process of the tenant may"


def test_the_longest_prefix_wins(make: Callable[..., Store]) -> None:
    store = make()
    put(store, 1)
    mine = put(store, 2)
    assert store.find(1, 9, chain(2)) == (mine, 200)
    assert store.find(1, 9, chain(3))[1] == 100, "the first message is the same"
    assert store.find(1, 1, (("other", 100),)) == (None, 0)


@pytest.mark.parametrize("suffix", [".kv", ".json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_damaged_file_is_never_used(make: Callable[..., Store], suffix: str, harm: str) -> None:
    store = make()
    entry = put(store)
    path = store.folder / f"{entry.name}{suffix}"
    data = path.read_bytes()
    middle = len(data) // 2
    if harm == "gone":
        path.unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"flip": flipped, "cut": data[:-1], "empty": b""}[harm])
    if suffix == ".kv":
        assert not store.sound(entry)
    store = make()
    found, _ = store.find(1, 1, chain())
    assert found is None or not store.sound(found)
    if found is None:
        assert files(store) == []


@pytest.mark.parametrize("change", ["model", "settings"])
def test_what_was_made_with_another_model_or_other_settings_is_removed(
    make: Callable[..., Store], model: Path, change: str
) -> None:
    put(make())
    if change == "model":
        model.write_bytes(b"other weights")
    store = make(settings={"context_tokens": 8_192} if change == "settings" else SETTINGS)
    assert store.find(1, 1, chain()) == (None, 0)
    assert files(store) == []


class Killed(BaseException):
    """The program ends here."""


@pytest.mark.parametrize("dies_at", [0, 1])
def test_a_kill_leaves_nothing_half_that_is_used(
    make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    store = make()
    renames = 0

    def rename(path: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames > dies_at:
            raise Killed
        path.replace(target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", rename)
        put(store)
    assert files(store), "something half is there"
    store = make()
    assert store.find(1, 1, chain()) == (None, 0)
    assert files(store) == []


def test_the_newest_file_of_a_process_replaces_the_others(make: Callable[..., Store]) -> None:
    store = make()
    put(store)
    newest = put(store)
    assert files(store) == [f"{newest.name}.json", f"{newest.name}.kv"]


def test_the_files_never_have_more_bytes_than_they_may(make: Callable[..., Store]) -> None:
    store = make(bytes_max=3_500)
    for process in range(1, 9):
        put(store, process)
        assert store.bytes <= 3_500
    assert {entry.process for entry in map(store._read, store.folder.glob("*-*.json")) if entry} <= set(range(1, 9))
    assert len(files(store)) == 6
    assert store.begin(1, 9, 10_000) is None, "one alone has no room"
    assert make(bytes_max=1_000).bytes <= 1_000, "a lowered limit holds at the next start"


def test_room_is_made_before_a_file_is_written(make: Callable[..., Store]) -> None:
    store = make(bytes_max=3_000)
    for process in range(1, 4):
        put(store, process)
    assert store.begin(1, 9, 200) is not None
    assert store.bytes + 1_000 <= 3_000


def test_the_oldest_goes_first_also_after_a_restart(make: Callable[..., Store]) -> None:
    import os

    store = make()
    old, new = put(store, 1), put(store, 2)
    os.utime(store.folder / f"{old.name}.json", (100, 100))
    os.utime(store.folder / f"{new.name}.json", (900, 900))
    assert make(bytes_max=1_500).find(1, 2, chain(2))[0] == new


def test_a_disk_without_room_to_spare_gets_no_file(make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    usage = shutil.disk_usage(store.folder)
    free = kv_store.DISK_SPARE_BYTES - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    assert store.begin(1, 1, 200) is None


def test_a_folder_that_cannot_be_made_only_costs_the_speed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "kv").write_text("a file")
    store = Store(tmp_path / "kv" / "llama", 10_000, lambda: 0.0)
    store.open(model, SETTINGS)
    assert store.key == ""
    assert store.begin(1, 1, 200) is None
    assert store.find(1, 1, chain()) == (None, 0)


def test_a_file_that_cannot_be_sealed_is_given_up(make: Callable[..., Store]) -> None:
    store = make()
    name = store.begin(1, 1, 200)
    assert name is not None
    assert store.seal(name, 1, 1, 200, chain()) is None, "the engine wrote nothing"
    late = store.folder / f"{name}.new"
    late.write_bytes(b"the engine was late")
    assert store.begin(1, 1, 200) is not None
    assert not late.exists()


def test_what_the_engine_writes_long_after_it_was_given_up_goes_too(make: Callable[..., Store]) -> None:
    store = make()
    late = store.begin(1, 1, 200)
    assert late is not None
    store.abandon(late)
    put(store, 2)
    (store.folder / f"{late}.new").write_bytes(b"late")
    put(store, 3)
    assert not (store.folder / f"{late}.new").exists()


def test_a_removed_process_leaves_nothing(make: Callable[..., Store]) -> None:
    store = make()
    put(store, 1)
    other = put(store, 12)
    store.forget({1})
    assert files(store) == [f"{other.name}.json", f"{other.name}.kv"]
    put(store, 1)
    kv_store.forget(store.folder.parent, {1})
    assert files(store) == [f"{other.name}.json", f"{other.name}.kv"]
    assert make().find(1, 1, chain(1))[1] == 100, "the program's part is in the other's file"


def test_nothing_is_known_before_all_is_found(make: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    put(store, 1), put(store, 2)
    again = Store(store.folder, 10_000, lambda: 1_000.0)
    model = store.folder.parents[1] / "model.gguf"
    read, seen = Store._read, []

    def look(self: Store, path: Path) -> Entry | None:
        seen.append((self.bytes, self.find(1, 1, chain())))
        self.forget([3])  # the event loop goes on while the files are looked at
        return read(self, path)

    monkeypatch.setattr(Store, "_read", look)
    again.open(model, SETTINGS)
    assert seen == [(0, (None, 0))] * 2
    assert again.bytes == 2_000


def test_the_model_is_read_once(make: Callable[..., Store], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make().key
    monkeypatch.setattr(kv_store, "sha256_of", lambda *_: pytest.fail("read again"))
    assert make().key == key
    monkeypatch.undo()
    model.write_bytes(b"another")
    assert make().key not in ("", key)


def test_a_closed_store_does_nothing(make: Callable[..., Store]) -> None:
    store = make()
    put(store)
    store.close()
    assert store.find(1, 1, chain()) == (None, 0)
    assert store.begin(1, 1, 200) is None
