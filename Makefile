# `make demo` and `make test` do all set-up themselves; a second run sets up nothing.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lock clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv with every locked package (the others do it when needed)
	@scripts/setup

demo: setup ## Watch the marketplace do its job; ARGS="--keep" leaves it running
	@.venv/bin/ryvion-node demo $(ARGS)

test: check ## Format, lint, types, import contracts, then every test; ARGS="-k name" picks tests
	@scripts/client_envs
	@.venv/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

check: setup ## Only format, lint, types and import contracts
	@scripts/check

NPM_LOCK = npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund
UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

lock: ## Resolve what is wanted into locks/ (needs uv, npm and network); ARGS=--upgrade moves to newer versions
	$(UV_COMPILE) $(ARGS) --group bootstrap -o locks/pip.txt
	$(UV_COMPILE) $(ARGS) --group build -o locks/build.txt
	$(UV_COMPILE) $(ARGS) --all-extras --group dev -o locks/dev.txt pyproject.toml
	$(UV_COMPILE) $(ARGS) --group clients -o locks/clients/python.txt
	$(UV_COMPILE) $(ARGS) --group litellm-proxy -o locks/clients/litellm-proxy.txt
	cd locks/clients/node && $(if $(findstring --upgrade,$(ARGS)),,cp lock.json package-lock.json &&) \
	    $(NPM_LOCK) && mv package-lock.json lock.json

clean: ## Remove the environment, caches and build outputs (pip keeps its compiled packages)
	rm -rf .venv .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
