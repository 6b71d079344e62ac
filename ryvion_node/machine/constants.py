"""Limits and timers of the sensors, each with its reason."""

from __future__ import annotations

from typing import Final

MAX_GPUS: Final = 64
"""More than one machine holds."""
SENSOR_TIMEOUT_S: Final = 10.0
"""A driver that answers later is treated as if it had no sensors: it may be resetting."""
