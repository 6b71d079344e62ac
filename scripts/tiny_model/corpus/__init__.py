"""The training text, written by this project: fixed questions and answers, and tasks made up on the spot."""
