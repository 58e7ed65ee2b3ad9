"""Limits and defaults, all in one place, each with its unit. Every queue, retry, fan-out, page and file has one.

`Settings` is frozen; the `[settings]` table of a home's `mains.toml` may change any field. An unknown key is an
error that names it (`load_settings`). Each field is described in `docs/settings.md` (a test compares them).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from mains.errors import ConfigError


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator may set. Units are the last word of each name."""

    # programs and their inputs
    program_bytes_max: int = 256 * 1024
    input_bytes_max: int = 8 * 1024 * 1024
    folder_files_max: int = 1_000
    programs_max: int = 64  # programs that one program may name, directly or through others
    models_max: int = 8  # models that one program may name, to be tried in order

    # turns
    output_tokens_max: int = 1_024  # the cap of one model call when the program names none
    output_tokens_min: int = 16  # less room than this opens the breaker instead of buying a stump
    turns_max: int = 200  # model calls of one process
    calls_per_turn_max: int = 64
    mends_max: int = 3  # malformed calls, empty replies or invalid results in a row that the model may mend
    model_attempts_max: int = 6  # tries of one model call (the one retry budget)
    refusals_max: int = 100  # of one model call, by a backend that has too much to do
    fallback_failures: int = 2  # failures of an engine after which a program's next model is taken
    fallback_return_s: float = 300.0  # after this time the first model is tried again
    device_attempts_max: int = 6  # tries of a call in doubt under `on_doubt: retry`
    retry_base_ms: int = 500  # first back-off; doubles up to retry_ceiling_ms
    retry_ceiling_ms: int = 60_000
    retry_after_ceiling_ms: int = 600_000  # a backend's Retry-After is honoured up to this
    model_timeout_s: float = 600.0
    breaker_failures: int = 5  # failures of an engine in a row after which it gets no call for a time
    breaker_calls: int = 20  # of an engine, the last ones, of which
    breaker_failed_percent: int = 50  # that many failed: the same
    breaker_open_ms: int = 1_000  # the first of those times; it doubles up to breaker_open_ceiling_ms
    breaker_open_ceiling_ms: int = 60_000
    first_byte_s: float = 300.0  # silence of an engine before its first output: long prompts take long to read
    stream_idle_s: float = 60.0  # silence of an engine after it
    device_timeout_s: float = 120.0
    result_bytes_max: int = 1024 * 1024  # of one tool result; the rest is cut, and said so
    halt_grace_s: float = 5.0  # how long an orderly halt waits for device calls in flight
    term_grace_s: float = 10.0  # from TERM to KILL for a process with a device call in flight

    # devices that speak MCP
    devices_max: int = 100  # in one home
    device_calls: int = 8  # in flight at one device
    device_queue_max: int = 1_000  # calls that wait for one device
    device_start_s: float = 60.0  # from the start of a device to its list of tools
    device_idle_s: float = 600.0  # after this time without a call a device is ended; the next call starts it again
    device_answer_s: float = 3_600.0  # how long a question of a device in the middle of a call waits for a person
    device_asks_max: int = 32  # questions of a device, and wishes for a model's answer, within one call
    device_health_s: float = 10.0  # a device that let a call time out has this long to answer a question
    device_backoff_ms: int = 250  # the first pause after a failure; it doubles up to device_backoff_ceiling_ms
    device_backoff_ceiling_ms: int = 60_000
    device_message_bytes_max: int = 16 * 1024 * 1024  # of one message of a device
    device_tools_max: int = 256  # of one device; further ones are left out
    device_schema_bytes_max: int = 64 * 1024  # of one tool's arguments; a tool with more is left out
    device_memory_mib_max: int = 2_048  # of each process of a device (RLIMIT_DATA)
    device_cpu_s_max: int = 3_600  # of processor time, of each process of a device (RLIMIT_CPU)

    # secrets
    secrets_max: int = 100  # in one home
    secret_bytes_max: int = 8 * 1024  # of one value; never more than 32 KiB

    # memory
    frame_tokens_max: int = 128_000  # of one model call, its answer and tools included
    frame_high_percent: int = 90  # of what fits: above it something leaves the frame
    frame_low_percent: int = 50  # down to it, in one step
    view_tokens_max: int = 1_024  # of a result or message that are shown at once; the rest stands in memory
    read_tokens_max: int = 8_192  # of what `read` or `recall` gives at once
    summary_tokens_max: int = 1_024  # of what stands for old turns
    note_bytes_max: int = 2 * 1024
    notes_max: int = 64  # of one owner: a process, a program on an account, an account
    notes_tokens_max: int = 2_048  # of all notes that a frame shows; the oldest are left out

    # shared segments
    segments_max: int = 1_000  # in one home
    segment_pages_max: int = 10_000  # of one segment
    segment_page_bytes_max: int = 8 * 1024  # of the text of one page
    process_segments_max: int = 16  # that one program maps, or one process by itself
    segment_turn_pages_max: int = 64  # of all its segments, that join a context before one model call
    segment_turn_tokens_max: int = 40_000  # the same

    # accounts
    accounts_max: int = 100_000  # named ones, and those of programs
    account_depth_max: int = 16  # accounts from the home down to a named one
    batch_wait_s: float = 86_400.0  # how long batch work waits for a cheaper hour

    # the built-in devices
    workspace_bytes_max: int = 1024 * 1024 * 1024  # of all files of a workspace
    workspace_files_max: int = 100_000  # files and folders of a workspace
    workspace_file_bytes_max: int = 4 * 1024 * 1024  # of one file
    versions_max: int = 1_000  # changes of one process that can be undone
    versions_bytes_max: int = 128 * 1024 * 1024  # of all of them
    web_timeout_s: float = 30.0  # one fetch, with all its redirects
    web_bytes_max: int = 4 * 1024 * 1024  # of one page, unpacked
    web_redirects_max: int = 5

    # processes
    depth_max: int = 8  # spawn below spawn
    children_max: int = 1_000  # of one process, alive or ended; of a schedule, alive
    processes_max: int = 1_000_000  # alive in one home
    mailbox_messages_max: int = 1_000  # unread, of one process
    message_bytes_max: int = 256 * 1024
    wakes_per_commit_max: int = 500
    catch_up_slots_max: int = 100  # missed slots of a schedule that `catch_up: all` runs; older ones are skipped
    schedule_grace_s: float = 60.0  # a slot that is later than this counts as missed (`catch_up: none` skips it)
    device_calls_max: int = 64  # in flight, all processes together

    # journal
    commits_queued_max: int = 100_000
    commits_per_batch_max: int = 256
    checkpoint_events: int = 50_000  # events between two checkpoints of the process table
    wal_pages: int = 4_000  # pages of the write-ahead log at which the writer checkpoints it
    disk_full_wait_s: float = 300.0  # how long a result waits for room before the kernel halts
    page_cache_bytes: int = 16 * 1024 * 1024  # of the writer's own SQLite cache
    frame_cache_bytes: int = 64 * 1024 * 1024

    # care
    retention_days: int = 30  # how long a process is kept after its end; then the daily prune removes it
    erase_rows_max: int = 100  # erased in one commit, so that none holds up the turns
    erase_pause_ms: int = 20  # between two such commits of the daily prune

    # what the embedded engine keeps
    kv_disk_bytes_max: int = 2 * 1024 * 1024 * 1024  # files with what it has read, of one engine

    # daemon and clients
    idle_s: float = 600.0  # a daemon started on demand ends after this time with nothing to do
    daemon_start_s: float = 20.0
    request_timeout_s: float = 30.0
    request_bytes_max: int = 32 * 1024 * 1024
    watchers_max: int = 256
    watcher_events_max: int = 10_000  # of one watcher's backlog; a slower one is cut off and told so
    survey_processes_max: int = 10_000  # of one look of `mains top`: those at work first, then the newest
    history_bytes_max: int = 1024 * 1024  # of what was typed in conversations; then the newest half stays
    log_bytes_max: int = 8 * 1024 * 1024  # of the daemon's log, an engine's, a device's; the older half is kept once


def load_settings(table: Mapping[str, object], where: str) -> Settings:
    """Settings from the `[settings]` table of `where`.

    Raises ConfigError that names an unknown key and the nearest known one, or a value of the wrong type or sign.
    """
    known = Settings.__struct_fields__
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "docs/settings.md lists every setting"
            raise ConfigError(f"{where}: unknown setting `{key}`", hint=hint)
    try:
        settings = msgspec.convert(dict(table), Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: [settings] {error}", hint="docs/settings.md gives each type") from error
    for key in known:
        if getattr(settings, key) <= 0:
            raise ConfigError(f"{where}: setting `{key}` must be above zero, not {getattr(settings, key)}")
    return settings
