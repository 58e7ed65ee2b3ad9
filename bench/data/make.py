"""Make the figures that the benches ship out of the public traces: `python bench/data/make.py FOLDER`.

FOLDER holds the traces as `bench/data/README.md` names them. Writes `agents.json`, `tenants.json` and `tools.json`
beside this file; the same traces give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
CHARS_A_TOKEN = 4  # the traces' own README
WINDOW_S = 600  # ServeGen's rates stand for ten minutes each

# Latency of tools, measured on real coding agents by uw-syfi/TraceLab (CC-BY-4.0), as the traces' README gives them.
TOOLS = {
    "mean_s": 16.8,
    "median_s": [0.13, 0.63],
    "long_s": 60,
    "long_share_of_calls": [0.03, 0.05],
    "long_share_of_time": [0.61, 0.92],
}


def agents(file: TextIO) -> list[dict[str, Any]]:
    """A record a session: its suite, and of each call the input, what of it the call before had, and the output."""
    sessions: dict[tuple[str, str], list[list[int]]] = defaultdict(list)
    for row in csv.DictReader(file):
        sizes = [int(row[field]) for field in ("input_chars", "lcp_prev_chars", "output_chars")]
        sessions[row["suite"], row["session"]].append([round(size / CHARS_A_TOKEN) for size in sizes])
    return [{"suite": suite, "calls": calls} for (suite, _), calls in sessions.items()]


def tenants(rates: TextIO, lengths: TextIO) -> dict[str, Any]:
    """Of the ten minutes with most clients of known rate and lengths: each client's rate, burstiness and quantiles."""
    quantiles: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(dict)
    for row in csv.DictReader(lengths):
        shown = {at: float(row[at]) for at in ("p50", "p90", "p99")}
        quantiles[row["client"], row["window_start_s"]][row["field"]] = shown
    rows = [row for row in csv.DictReader(rates) if len(quantiles.get((row["client"], row["window_start_s"]), {})) == 2]
    (window, _), *_ = Counter(row["window_start_s"] for row in rows).most_common(1)
    clients = [
        {
            "client": int(row["client"]),
            "rate_rps": round(float(row["rate_rps"]), 4),
            "cv": round(float(row["cv"]), 3),
            **quantiles[row["client"], window],
        }
        for row in rows
        if row["window_start_s"] == window
    ]
    return {"window_start_s": int(window), "window_s": WINDOW_S, "clients": sorted(clients, key=lambda c: c["client"])}


def main() -> None:
    """Read the traces, write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, help="the folder of the traces")
    folder: Path = parser.parse_args().traces
    with (folder / "agent_calls_derived.csv").open(newline="") as file:
        sessions = agents(file)
    with (
        gzip.open(folder / "servegen_m-small_rates.csv.gz", "rt", newline="") as rates,
        gzip.open(folder / "servegen_m-small_lengths.csv.gz", "rt", newline="") as lengths,
    ):
        clients = tenants(rates, lengths)
    rows = ",\n".join(json.dumps(session, separators=(",", ":")) for session in sessions)
    (HERE / "agents.json").write_text(f"[\n{rows}\n]\n")
    (HERE / "tenants.json").write_text(json.dumps(clients, indent=1) + "\n")
    (HERE / "tools.json").write_text(json.dumps(TOOLS, indent=1) + "\n")


if __name__ == "__main__":
    main()
