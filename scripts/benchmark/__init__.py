"""The parts of ``scripts/benchmark.py``: one kind of measurement a file."""
