"""Walls around child processes that read what strangers made: models and documents."""
