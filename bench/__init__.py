"""Benchmarks: one script a claim, each beside a baseline or a bare kernel of the same run. `docs/performance.md`."""
