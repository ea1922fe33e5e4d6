# The project's vocabulary. Every target makes its own environment first: .venv, from pyproject.toml and constraints.txt.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check built handover campaign format bench pins clean

# The first Python on the PATH that is new enough; another one: make PYTHON=/path/to/python3 test
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile
	@echo "ARGS='...' goes to the command: make demo ARGS=--help, make test ARGS='-k bank'"

demo: $(READY)  ## Built-in benchmark: plain CAM and SFC, from training to scores and pictures
	$(BIN)/sfc demo $(ARGS)

# Two processes, a file of tests each: nearly all of them compute on one thread.
test: $(READY)  ## All tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)  ## Format, lint and types, without changing a file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

built: $(READY)  ## Build the wheel, install it in a fresh environment, and use it outside this folder
	rm -rf dist .venv-built
	$(BIN)/uv build --quiet --wheel || $(BIN)/python -m pip wheel --quiet --no-deps -w dist .
	"$(PYTHON)" -m venv .venv-built
	$(BIN)/uv pip install --quiet --python .venv-built/bin/python --compile-bytecode -c constraints.txt dist/*.whl \
		|| .venv-built/bin/python -m pip install --quiet -c constraints.txt dist/*.whl \
		|| .venv-built/bin/python -m pip install --quiet dist/*.whl
	.ci/use_built .venv-built/bin/sfc

handover: $(READY)  ## What `sfc export` writes, read by the programs that it is for, in an environment of their own
	"$(PYTHON)" -m venv --clear .venv-handover
	$(BIN)/uv pip install --quiet --python .venv-handover/bin/python -r .ci/handover/requirements.txt \
		|| .venv-handover/bin/python -m pip install --quiet -r .ci/handover/requirements.txt
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(BIN)/python .ci/handover/write.py "$$folder" \
		&& YOLO_CONFIG_DIR="$$folder" QT_QPA_PLATFORM=offscreen .venv-handover/bin/python .ci/handover/read.py "$$folder"

campaign: $(READY)  ## A small share of the kills and damaged files of docs/reliability.md
	$(BIN)/python benchmarks/campaign.py fuzz --count 360
	$(BIN)/python benchmarks/campaign.py kills --count 15

format: $(READY)  ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(READY)  ## Every benchmark, beside the figure it must reach
	$(BIN)/python benchmarks/run_all.py $(ARGS)

pins: $(READY)  ## Renew constraints.txt with the newest versions
	grep '^#' constraints.txt > constraints.new
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --no-annotate --no-header pyproject.toml >> constraints.new
	mv constraints.new constraints.txt

clean:  ## Remove the environment and caches (runs stay)
	rm -rf .venv .venv-built .venv-handover build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is the last thing made, so an interrupted installation starts again. uv is fast and compiles bytecode
# whatever the environment says; where it cannot be had, pip does the same work slowly; where the machine's own pip
# settings contradict the exact versions, pip resolves the floors of pyproject.toml instead.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: sfc needs Python 3.11 or newer and found none; name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is not Python 3.11 or newer" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || echo "make: uv cannot be had, going on with pip" >&2
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]' \
		|| $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' \
		|| $(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@
