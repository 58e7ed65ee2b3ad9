"""The verbs of accounts and of the meter, typed as people type them, on a real home with a real daemon."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.daemon_box import Box
from typer.testing import CliRunner

from mains.cli import app
from mains.cli.ending import more_room
from mains.errors import NotFoundError, UsageError
from mains.kernel.billing import Budget


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A home with the accounts acme > ann, on which nothing may change."""
    made = Box(tmp_path_factory.mktemp("accounts"))
    for words in ("account add acme", "account add ann --under acme", "budget set ann --tokens 10k/day"):
        assert made.run(*words.split()).returncode == 0
    yield made
    made.close()


def limits(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{limit['unit']}/{limit['window']}": limit for limit in view["limits"]}


# --------------------------------------------------------------------------------------------------- accounts


def test_accounts_are_a_tree(box: Box) -> None:
    made = box.json("account", "add", "acme", "--zone", "America/New_York")
    assert (made["name"], made["path"], made["kind"], made["unknown_price"]) == (
        "acme",
        "home/acme",
        "account",
        "refuse",
    )
    made = box.json("account", "add", "ann", "--under", "acme", "--unknown-price", "allow")
    assert (made["path"], made["parent"], made["zone"]) == ("home/acme/ann", "acme", "America/New_York")
    assert made["unknown_price"] == "allow"
    box.json("run", "say.md", "prompt=hello", "--account", "ann")
    views = box.json("account", "ls")
    assert [view["name"] for view in views] == ["home", "acme", "ann", "ann/say"]
    assert [view["posted_tokens"] for view in views] == [12, 12, 12, 12]
    told = box.run("account", "ls").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["ACCOUNT", "home", "acme", "ann", "ann/say"]
    assert told[4].startswith("      ann/say ")
    assert "account ann (home/acme/ann)" in box.run("account", "show", "ann").stdout
    assert box.json("account", "show", "1")["kind"] == "process"
    assert box.run("account", "show", "1").stdout.startswith("process 1 (below ann/say)")


def test_a_limit_is_set_shown_and_taken_away(box: Box) -> None:
    box.json("account", "add", "ann", "--zone", "Asia/Tokyo")
    view = box.json("budget", "set", "ann", "--tokens", "200k/day", "--tokens", "1.5m", "--money", "5usd/month")
    assert {name: limit["most"] for name, limit in limits(view).items()} == {
        "tokens/day": 200_000, "tokens/total": 1_500_000, "money/month": 5_000_000_000,
    }  # fmt: skip
    assert limits(view)["tokens/day"]["resets_at"].endswith("T00:00:00+09:00")
    assert limits(view)["tokens/total"]["resets_at"] == ""
    shown = box.run("account", "show", "ann").stdout
    assert re.search(r"tokens a day +200,000 +0 +0 +200,000 +0 %", shown)
    assert re.search(r"tokens in all +1,500,000 ", shown)
    assert re.search(r"usd a month +5 +0 +0 +5 +0 %", shown)
    assert "0 % of 200k tokens a day" in box.run("account", "ls").stdout
    view = box.json("budget", "set", "ann", "--tokens", "none/day", "--money", "7usd/month", "--tokens", "none")
    assert {name: limit["most"] for name, limit in limits(view).items()} == {"money/month": 7_000_000_000}
    assert "no limits" in box.run("budget", "set", "ann", "--money", "none/month").stdout


def test_a_top_up_wakes_who_was_stopped(box: Box) -> None:
    box.json("account", "add", "ann")
    box.json("budget", "set", "ann", "--tokens", "60/day", "--money", "1usd/day")
    assert box.json("run", "say.md", "prompt=first", "--account", "ann")["result"] == "first"
    done = box.run("run", "say.md", "prompt=" + "second " * 20, "--account", "ann")
    assert done.returncode == 3
    assert "STOPPED (breaker: the limit of account ann (60 tokens a day)" in done.stderr
    assert "hint: its budget is used up: mains topup ann --tokens N gives more, and it goes on" in done.stderr
    told = box.run("topup", "ann", "--tokens", "1k").stdout
    assert told.startswith("account ann has 1,000 tokens more")
    assert re.search(r"tokens a day +60 \+ 1,000 ", told)
    assert box.json("wait", "2")["result"] == ("second " * 20).strip()
    day = limits(box.json("topup", "ann", "--money", "0.25usd"))
    assert (day["money/day"]["most"], day["money/day"]["added"]) == (1_000_000_000, 250_000_000)
    assert day["tokens/day"]["used"] + day["tokens/day"]["left"] == 1_060
    assert box.run("ledger", "verify").returncode == 0


def test_a_process_has_an_account_too(box: Box) -> None:
    done = box.run("run", "say.md", "prompt=hello", "--budget", "20")
    assert "mains topup 1 --tokens N gives more" in done.stderr
    assert limits(box.json("topup", "1", "--tokens", "1k"))["tokens/total"]["left"] > 900
    assert box.json("wait", "1")["result"] == "hello"
    assert box.run("topup", "999", "--tokens", "1k").stderr.startswith("error: there is no process 999")


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("breaker: the limit of the home (60 tokens a day) has 0 left", "mains topup home --tokens N"),
        ("breaker: the limit of account ann/say (1,000 tokens) has 0 left", "mains topup ann/say --tokens N"),
        ("breaker: the limit of account ann (2.5 eur a month) has 0 left", "mains topup ann --money Neur"),
        ("breaker: the limit of process 12 (60 tokens) has 3 left", "mains topup 12 --tokens N"),
        ("breaker: something else", "mains account ls"),
    ],
)
def test_the_hint_names_the_limit(reason: str, command: str) -> None:
    assert command in more_room(reason)[0]


def test_who_pays_is_shown_where_it_is_not_the_home(box: Box) -> None:
    pid = box.json("run", "say.md", "prompt=hello", "--detach")["pid"]
    assert "ACCOUNT" not in box.run("ps", "--all").stdout
    assert "account:" not in box.run("show", str(pid)).stdout
    box.json("account", "add", "ann")
    other = box.json("run", "say.md", "prompt=forever", "--detach", "--account", "ann", "--band", "batch")["pid"]
    assert re.search(rf"{other} +say +ann +\w+ ", box.run("ps", "--all").stdout)
    assert re.search(rf"{pid} +say +home +\w+ ", box.run("ps", "--all").stdout)
    assert re.search(rf"{other} +say +ann +\w+ ", box.run("top").stdout)
    assert "account: ann" in box.run("show", str(other)).stdout
    view = next(view for view in box.json("ps") if view["pid"] == other)
    assert (view["account"], view["band"]) == ("ann", "batch")


def test_chat_pays_from_an_account(box: Box) -> None:
    box.json("account", "add", "ann")
    pid = box.client().spawn("say.md", {}, cwd=str(box.folder), conversation=True, account="ann", band="interactive")
    view = box.client().show(pid)
    assert (view["account"], view["band"]) == ("ann", "interactive")


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("account add ann", "there is an account `ann` already"),
        ("account add a --under a", "account a cannot be under itself"),
        ("account add bob --under nobody", "there is no account `nobody`"),
        ("account add home", "`home` is no name for an account"),
        ("account add Bob", "`Bob` is no name for an account"),
        ("account add 7", "`7` is no name for an account"),
        ("account add b/c", "`b/c` is no name for an account"),
        ("account add b\x1b[31m", "`b .31m` is no name for an account"),
        (f"account add {'b' * 41}", f"`{'b' * 41}` is no name for an account"),
        ("account add bob --zone Nowhere/City", "`Nowhere/City` is no time zone"),
        ("account add bob --unknown-price maybe", "unknown_price is `refuse` or `allow`"),
        ("account show nobody", "there is no account `nobody`"),
        ("account show 999", "there is no process 999"),
        ("budget set nobody --tokens 5", "there is no account `nobody`"),
        ("budget set ann", "there is no limit to set"),
        ("budget set ann --tokens -5", "--tokens: `-5` is not a number of tokens"),
        ("budget set ann --tokens 0/day", "--tokens: `0` is not a whole number of tokens"),
        ("budget set ann --tokens 5/fortnight", "--tokens: `5/fortnight`: `fortnight` is no window"),
        ("budget set ann --tokens 1k/day --tokens 2k/day", "--tokens: two limits for a day"),
        ("budget set ann --tokens 1k/week --money -1usd", "--money: `-1usd` is not an amount of money"),
        ("budget set ann --money 5", "--money: `5` names no currency: write 5usd"),
        ("budget set ann --money 5gbp/day", "--money: no rate says what 1 gbp is worth in usd"),
        ("topup ann", "give either --tokens or --money"),
        ("topup ann --tokens 5 --money 1usd", "give either --tokens or --money"),
        ("topup ann --tokens 0", "--tokens: `0` is not a whole number"),
        ("topup ann --money 2usd", "account ann has no limit of money"),
        ("topup acme --tokens 5k", "account acme has no limit of tokens"),
        ("topup nobody --tokens 5k", "there is no account `nobody`"),
        ("run say.md prompt=x --account nobody", "there is no account `nobody`"),
        ("run say.md prompt=x --account ann/say", "account ann/say is a program's|there is no account `ann/say`"),
        ("run say.md prompt=x --band system", "invalid value for '--band'"),
        ("meter --since tomorrow", "`tomorrow` is no time"),
        ("meter --by planet", "invalid value for '--by'"),
        ("meter --account nobody", "there is no account `nobody`"),
        ("meter --by day watch", "options come after `watch`"),
        ("meter watch --account nobody", "there is no account `nobody`"),
        ("statement nobody --month 2026-11", "there is no account `nobody`"),
        ("statement ann --month 2026-13", "`2026-13` is no month"),
        ("statement ann --month 11", "`11` is no month"),
        ("statement ann", "missing option '--month'"),
        (
            "statement ann --month 2026-11 --format xml",
            "invalid value for '--format': 'xml' is not one of",
        ),
        ("statement ann --month 2026-1", "`2026-1` is no month"),
        ("statement ann --month ", "`` is no month"),
        ("account show ", "there is no account ``"),
        ("account show \u0663", "there is no account `\u0663`"),
        ("account add bob --under ", "--under is empty"),
        ("run say.md prompt=x --account ", "--account is empty"),
        ("meter --account ", "--account is empty"),
        ("budget set ann/caf\xe9 --tokens 5", "`caf\xe9` is no program's name"),
        ("budget set ann --tokens 99999999999999999999", "--tokens: `9+` is not a whole number of tokens from 1 to"),
        ("topup ann --tokens 1000000000000000", "--tokens: `10+` is not a whole number of tokens from 1 to"),
        ("budget set ann --money 99999999999usd", "--money: `9+usd` is not from 1 nano-unit to 1,000,000,000 usd"),
    ],
)
def test_bad_input_is_one_clear_line_and_changes_nothing(shared: Box, words: str, told: str) -> None:
    before = shared.json("account", "ls")
    done = shared.run(*words.split(" "))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert re.match(f"error: (?:{told})", done.stderr) or done.stderr.startswith(f"error: {told}"), done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert "\x1b" not in done.stderr
    assert shared.json("account", "ls") == before
    assert shared.json("ps", "--all") == []


def test_a_currency_that_the_daemon_does_not_count_in_changes_nothing(box: Box) -> None:
    box.json("account", "add", "ann")  # the daemon has read mains.toml
    box.home.config.write_text('currency = "eur"\n' + box.home.config.read_text())
    done = box.run("budget", "set", "ann", "--money", "5eur/day")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the daemon counts in usd, and mains.toml says eur: nothing was changed")
    assert box.json("account", "show", "ann")["limits"] == []


def test_a_foreign_currency_by_its_rate(box: Box) -> None:
    text = box.home.config.read_text()
    box.home.config.write_text(f"{text}\n[rates]\neur = 1.07\n")
    box.json("account", "add", "ann")
    assert limits(box.json("budget", "set", "ann", "--money", "0.1eur"))["money/total"]["most"] == 107_000_000
    box.home.config.write_text(f"{text}\n[rates]\neur = -1\n")
    done = box.run("budget", "set", "ann", "--money", "0.1eur")
    assert (done.returncode, "[rates]" in done.stderr) == (2, True)


def test_a_process_shows_every_limit_that_it_stands_under(box: Box) -> None:
    box.json("account", "add", "ann", "--zone", "UTC")
    box.json("budget", "set", "ann", "--tokens", "10k/day", "--tokens", "50k", "--money", "2.5usd/month")
    box.json("topup", "ann", "--money", "0.25usd")
    pid = str(box.json("run", "say.md", "prompt=hello", "--account", "ann")["pid"])
    shown = box.json("show", pid)
    ann = next(each for each in shown["accounts"] if each["name"] == "ann")
    used = ann["posted"] + ann["overrun"]
    assert (shown["currency"], ann["tokens_max"], sorted(limits(ann))) == (
        "usd", 50_000, ["money/month", "tokens/day", "tokens/total"],
    )  # fmt: skip
    assert used and ann["limits"] == box.json("account", "show", "ann")["limits"]
    told = box.run("show", pid).stdout
    assert f"account of ann: limit 50,000, used {used:,}, held 0" in told
    assert (
        f"limit 10,000 tokens a day: used {used} tokens, held 0 tokens, left {10_000 - used:,} tokens, resets" in told
    )
    assert "limit 2.75 usd a month: used 0 usd, held 0 usd, left 2.75 usd, resets at " in told


# --------------------------------------------------------------------------------------------------- the meter


def test_the_meter_sums_and_filters(box: Box) -> None:
    for name in ("ann", "bob"):
        box.json("account", "add", name)
        box.json("run", "say.md", "prompt=hello", "--account", name)
    box.json("run", "number.md", "prompt=number", "--account", "bob")
    rows = box.json("meter")
    assert {(row["account"], row["program"], row["calls"]) for row in rows} == {
        ("ann", "say", 1), ("bob", "say", 1), ("bob", "number", 1),
    }  # fmt: skip
    wanted = {"account", "program", "model", "calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano"}
    assert all(wanted | {"currency"} <= row.keys() for row in rows)
    whole = sum(row["input_tokens"] + row["output_tokens"] for row in rows)
    assert whole == box.json("account", "show", "home")["posted_tokens"]
    for by, count in (("program", 2), ("user", 2), ("model", 1), ("day", 1)):
        summed = box.json("meter", "--by", by)
        assert len(summed) == count
        assert sum(row["input_tokens"] + row["output_tokens"] for row in summed) == whole
    assert [row["account"] for row in box.json("meter", "--account", "ann")] == ["ann"]
    assert [row["program"] for row in box.json("meter", "--account", "bob/number")] == ["number"]
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    assert box.json("meter", "--since", tomorrow) == []
    assert "nothing was metered since then" in box.run("meter", "--since", tomorrow).stderr
    assert len(box.json("meter", "--since", "1h")) == 3
    told = box.run("meter").stdout
    assert re.search(r"(?m)^bob +number +\S+ +1 ", told)
    assert re.search(r"(?m)^total +3 ", told)
    assert "cost 0 usd" in told
    assert re.search(r"(?m)^\(several\) +say +2 ", box.run("meter", "--by", "program").stdout)


def test_the_meter_has_help_of_its_own() -> None:
    told = CliRunner().invoke(app, ["meter", "--help"])
    assert told.exit_code == 0
    assert "mains meter" in told.output.partition("Example")[2]
    assert "watch" in told.output


def test_a_statement_as_csv_and_json(box: Box) -> None:
    box.json("account", "add", "ann", "--zone", "UTC")
    month = datetime.now(UTC).strftime("%Y-%m")
    for prompt in ("hello", "hello there"):
        box.json("run", "say.md", f"prompt={prompt}", "--account", "ann")
    found = box.json("statement", "ann", "--month", month)
    assert (found["account"], found["month"], found["zone"], found["calls"]) == ("ann", month, "UTC", 2)
    assert (found["currency"], found["open_holds"], found["adjustments_nano"]) == ("usd", 0, 0)
    assert json.loads(box.run("statement", "ann", "--month", month, "--format", "json").stdout) == found
    lines = list(csv.DictReader(io.StringIO(box.run("statement", "ann", "--month", month).stdout)))
    assert [line["day"] for line in lines] == [row["day"] for row in found["rows"]]
    assert sum(int(line["input_tokens"]) + int(line["output_tokens"]) for line in lines) == found["tokens"]
    assert {(line["account"], line["program"], line["currency"]) for line in lines} == {("ann", "say", "usd")}
    assert box.run("statement", "ann", "--month", "2001-01").stdout.count("\n") == 1


def test_the_ledger_is_verified_by_its_rows(box: Box) -> None:
    box.json("account", "add", "ann")
    box.json("run", "say.md", "prompt=hello", "--account", "ann")
    box.client().down()
    box.wait_until_free()
    connection = sqlite3.connect(box.home.database)
    connection.execute("UPDATE account SET posted = posted + 1 WHERE name = 'ann'")
    connection.commit()
    connection.close()
    done = box.run("ledger", "verify")
    assert done.returncode == 1
    assert re.search(r"error: account \d+ \(ann\): its counters of tokens", done.stderr)
    assert json.loads(box.run("ledger", "verify", "--json").stdout)["ok"] is False


# ------------------------------------------------------------------------------------------------- the client


def test_the_doors_through_the_client(box: Box) -> None:
    client = box.client()
    assert client.account_add("ann", zone="UTC")["zone"] == "UTC"
    with pytest.raises(UsageError, match="already"):
        client.account_add("ann")
    with pytest.raises(NotFoundError, match="nobody"):
        client.account("nobody")
    limit = Budget(unit="tokens", window="week", most=500)
    assert limits(client.budget_set("ann", [limit]))["tokens/week"]["most"] == 500
    assert limits(client.topup("ann", tokens=5))["tokens/week"]["added"] == 5
    assert limits(client.topup("ann", tokens=5, key="k")) == limits(client.topup("ann", tokens=5, key="k"))
    assert box.run("topup", "ann", "--tokens", "6", "--key", "k").stderr.startswith("error: the key `k` belongs to")
    assert limits(box.json("topup", "ann", "--tokens", "5", "--key", "k"))["tokens/week"]["added"] == 10
    assert client.meter(by="user") == []
    with pytest.raises(UsageError, match="`by` must be one of program, user, model, day"):
        client.meter(by="planet")
    with pytest.raises(UsageError, match="`from_ms` must be a whole number"):
        client.meter(from_ms=-1)
    with pytest.raises(UsageError, match="more than can be counted"):
        client.topup("ann", tokens=10**30)
    with pytest.raises(UsageError, match="more than can be counted"):
        client.budget_set("ann", [Budget(unit="tokens", window="day", most=2**63)])
    with pytest.raises(UsageError):
        client.budget_set("ann", [limit] * 9)
    with pytest.raises(UsageError, match="`` is no month"):
        client.statement("ann", "")
    assert [view["name"] for view in client.accounts()] == ["home", "ann"]


def test_many_top_ups_at_once_all_count(box: Box) -> None:
    box.json("account", "add", "ann")
    box.json("budget", "set", "ann", "--tokens", "100")
    threads = [threading.Thread(target=lambda: box.client().topup("ann", tokens=1)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limit = limits(box.json("account", "show", "ann"))["tokens/total"]
    assert limit["most"] + limit["added"] == 120


def test_money_is_counted_to_the_last_digit(tmp_path: Path) -> None:
    box = Box(tmp_path)
    try:
        price = "price = { input = 2, output = 8 }"
        box.home.config.write_text(f"{box.home.config.read_text()}{price}\n")
        box.json("account", "add", "ann", "--zone", "UTC")
        box.json("budget", "set", "ann", "--money", "1usd/month")
        for prompt in ("hello", "hello there, how are you?"):
            box.json("run", "say.md", f"prompt={prompt}", "--account", "ann")
        [row] = box.json("meter")
        assert row["cost_nano"] == 2_000 * row["input_tokens"] + 8_000 * row["output_tokens"]
        assert limits(box.json("account", "show", "ann"))["money/month"]["used"] == row["cost_nano"]
        cost = f"{row['cost_nano'] / 1e9:.9f}".rstrip("0")
        assert f"cost {cost} usd" in box.run("meter").stdout
        assert f"cost: {cost} usd, 0 held" in box.run("account", "show", "ann").stdout
        month = datetime.now(UTC).strftime("%Y-%m")
        found = box.json("statement", "ann", "--month", month)
        lines = list(csv.DictReader(io.StringIO(box.run("statement", "ann", "--month", month).stdout)))
        assert sum(Decimal(line["cost"]) for line in lines) * 10**9 == found["cost_nano"] == row["cost_nano"]
        assert f"cost {cost[:4]}" in box.run("show", "1").stdout
        box.json("budget", "set", "ann", "--money", "0.0002usd/month")
        done = box.run("run", "say.md", "prompt=more", "--account", "ann")
        assert done.returncode == 3
        assert "mains topup ann --money Nusd gives more" in done.stderr
        box.json("topup", "ann", "--money", "0.01usd")
        assert box.json("wait", "3")["result"] == "more"
    finally:
        box.close()


def test_a_run_that_uses_most_of_a_limit_says_so_once(box: Box) -> None:
    for words in ("account add acme", "account add ann --under acme", "budget set acme --tokens 60/day"):
        assert box.run(*words.split()).returncode == 0
    box.json("budget", "set", "home", "--money", "5usd")
    told = [box.run("run", "say.md", "prompt=Good morning", "--account", "ann") for _ in range(3)]
    assert [done.returncode for done in told] == [0, 0, 3]
    lines = [[line for line in done.stderr.splitlines() if line.startswith("warning")] for done in told]
    assert lines == [[], ["warning: 50 % of the limit of account acme is used: 32 of 60 tokens a day"], []]
    assert "warning" not in box.run("run", "say.md", "prompt=x").stderr
    assert "warning" not in box.run("run", "say.md", "prompt=Good morning", "--account", "ann", "--json").stderr
