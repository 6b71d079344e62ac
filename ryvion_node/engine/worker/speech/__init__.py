"""Takes an answer's text apart: what is said, what is thought, which tools are called."""
