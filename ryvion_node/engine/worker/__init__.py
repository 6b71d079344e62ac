"""The child process that runs one model; the only code that imports llama_cpp, numpy and jinja2."""
