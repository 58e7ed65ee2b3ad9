"""The child process of the embedded engine: llama.cpp's own HTTP server on a loopback port, and nothing else.

    python -m mains.engines.llama_child

Standard input: one line, a `ChildConfig` as JSON (the key is in it, so that no process list shows it); then nothing.
Standard output: one line, `{"url": ..., "load_s": ...}` when calls can be made, or `{"error": ...}`.
Standard error: what llama.cpp says.

It dies with its parent, also when that is killed: at the end of its standard input everywhere, and by PDEATHSIG on
Linux. Linux sends that signal when the *thread* that started the child ends (prctl(2)), so the parent must start it
from a thread that lives as long as the engine does: the one of its event loop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

import msgspec

PR_SET_PDEATHSIG = 1  # linux/prctl.h
BATCH_TOKENS = 512  # of one step over prompts: a long prompt lets the other slots on after that many tokens
HTTP_THREADS_SPARE = 4  # for health checks beside one call in each slot


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the child serves. `parent` is the process it belongs to."""

    model: str
    alias: str
    key: str
    parent: int
    slots: int
    context_tokens: int
    threads: int
    cache_ram_mib: int
    kv_folder: str = ""  # where slots are saved; empty: they cannot be


class Ready(msgspec.Struct, frozen=True):
    """The child's one line: `url` when it serves, else `error`."""

    url: str = ""
    load_s: float = 0.0
    error: str = ""


def main() -> None:
    config = msgspec.json.decode(_first_line(), type=ChildConfig)
    _die_with(config.parent)
    parent_pipe = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints joins the log
    begun = time.monotonic()
    try:
        url, _server = _serve(config)  # kept, or llama.cpp's server would be freed
    except (RuntimeError, ValueError, OSError, ImportError) as error:  # xllamacpp's; C++ exceptions are RuntimeError
        os.write(parent_pipe, msgspec.json.encode(Ready(error=str(error) or type(error).__name__)) + b"\n")
        os._exit(1)
    os.write(parent_pipe, msgspec.json.encode(Ready(url, round(time.monotonic() - begun, 3))) + b"\n")
    threading.Event().wait()  # the server has threads of its own; the end comes from outside


def _first_line() -> bytes:
    """One line from standard input, without reading a byte past it."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return bytes(line)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()


def _wait_for_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _serve(config: ChildConfig) -> tuple[str, Any]:
    """Load the model and listen; the server's URL, and the server. Blocks until calls can be made."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = config.model
    p.model_alias = {config.alias}
    p.api_keys = [config.key]
    p.hostnames, p.port = ["127.0.0.1"], 0
    p.n_parallel, p.n_ctx = config.slots, config.context_tokens
    p.kv_unified = True  # the slots share one cache: a single call may use all of it
    p.n_batch = p.n_ubatch = BATCH_TOKENS
    p.cont_batching = p.cache_prompt = True
    p.cache_ram_mib = config.cache_ram_mib
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = config.threads
    if config.kv_folder:
        os.umask(0o077)  # it makes no other files
        p.slot_save_path = config.kv_folder.rstrip("/") + "/"
        p.cache_idle_slots = False  # a slot keeps what it has until we take it away
    p.n_threads_http = config.slots + HTTP_THREADS_SPARE
    p.endpoint_metrics, p.endpoint_slots, p.endpoint_props = True, True, False
    p.ui, p.offline, p.verbosity = False, True, 1
    server = xllamacpp.Server(p)
    address: str = server.listening_address
    return address if address.startswith("http") else f"http://{address}", server


if __name__ == "__main__":
    main()
