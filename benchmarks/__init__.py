"""One question a script, peers side by side in one run; the answers stand in RESULTS.md.

    .venv/bin/python -m benchmarks.text_throughput [--quick]

`--quick` is a smoke run: little data, one round, and nothing is written.
"""
