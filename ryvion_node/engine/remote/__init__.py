"""Models behind an OpenAI-compatible server that the owner runs: vLLM, SGLang, llama-server, Ollama and their like."""
