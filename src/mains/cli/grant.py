"""The verbs of grants: ls, add, rm. They change mains.toml; a daemon reads it again by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mains.cli.app import app
from mains.cli.options import HomeOption, JsonOption, find_home
from mains.cli.render import console, say, say_json, table
from mains.errors import UsageError

if TYPE_CHECKING:
    from mains.kernel.grants import Effect, Rule

grant_app = typer.Typer(help="Grants: what processes may do with devices.", rich_markup_mode=None)
app.add_typer(grant_app, name="grant")


@grant_app.command("ls", epilog="Example: mains grant ls")
def grant_ls(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List your rules. A call also needs a grant of its program; deny goes before ask, ask before allow.

    Without a rule, built-in devices may be used, and a person is asked about any other.
    """
    from mains.rulebook import read_rules

    place = find_home(home)
    rules = read_rules(place.document(), str(place.config))
    if as_json:
        say_json([_view(rule) for rule in rules])
        return
    if not rules:
        say("no rules: built-in devices may be used, a person is asked about any other")
        return
    rows = [
        (str(rule.number), rule.effect, str(rule.grant), rule.program or "*", rule.account or "*") for rule in rules
    ]
    out = console()
    out.print(table(("NO", "EFFECT", "TOOLS", "PROGRAM", "ACCOUNT"), rows, give=("TOOLS",), width=out.width))


@grant_app.command("add", epilog="Example: mains grant add 'git.*' --program reviewer")
def grant_add(
    tools: Annotated[str, typer.Argument(metavar="TOOLS", help="git.push, git.*, web.fetch(host=*.example.org).")],
    deny: Annotated[bool, typer.Option("--deny", help="Never; this goes before all other rules.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="A person decides each time.")] = False,
    program: Annotated[str, typer.Option("--program", metavar="NAME", help="Only for this program.")] = "",
    account: Annotated[str, typer.Option("--account", metavar="NAME", help="Only for what this account pays.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let processes use tools, without asking you each time; or forbid them, or be asked.

    A process needs a grant of its program as well: this widens no program.
    """
    from mains.rulebook import add_rule

    if deny and ask:
        raise UsageError("--deny and --ask say different things: give one of them")
    effect: Effect = "deny" if deny else "ask" if ask else "allow"
    added = add_rule(find_home(home), effect, tools, program, account)
    if as_json:
        say_json({"effect": effect, "tools": tools, "program": program, "account": account, "added": added})
    else:
        whom = f" for {program}" if program else ""
        say(f"{effect} {tools}{whom}" if added else f"{effect} {tools}{whom} stands already")


@grant_app.command("rm", epilog="Example: mains grant rm 2")
def grant_rm(
    number: Annotated[int, typer.Argument(metavar="NO", min=1, help="Its number in `mains grant ls`.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a rule away. Those behind it get other numbers."""
    from mains.rulebook import remove_rule

    rule = remove_rule(find_home(home), number)
    if as_json:
        say_json(_view(rule))
    else:
        say(f"{rule.effect} {rule.grant} is gone")


def _view(rule: Rule) -> dict[str, str | int]:
    return {
        "number": rule.number,
        "effect": rule.effect,
        "tools": str(rule.grant),
        "program": rule.program,
        "account": rule.account,
    }
