"""Hypothesis on a machine that other work slows down: no deadline per example, the test's own timeout is enough."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("protocol", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("protocol")
