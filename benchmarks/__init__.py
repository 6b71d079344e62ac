"""Measurements, run by hand: `python -m benchmarks.overhead --quick`. Each prints ratios against a named reference."""

import sys
from pathlib import Path

# The models that are measured on are made by the project's own model scripts.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
