# `make demo` and `make test` do all set-up themselves. Nothing else is needed but Python >= 3.11, pip and a C library.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch where there is no GPU. On an index whose `torch` is the CUDA build, say for example
#   make demo TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= $(if $(shell nvidia-smi -L 2>/dev/null),torch>=2.8,torch==2.13.0)

# Idle threads sleep instead of spinning: with a busy neighbour, spinning makes torch tens of times slower.
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format test-slow test-soak test-minecraft docs clean setup
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml setup.cfg
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet "$(firstword $(TORCH))" $(wordlist 2,9,$(TORCH))
	@$(BIN)/pip install --quiet -e ".[dev]"
	@touch $@

demo: setup
	$(BIN)/worldpack demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy model/worldpack_model worldpack_env agents/worldpack_agents

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not soak"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

test-soak: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m soak

# The engine tests; they need Node and EGL, and download packages from npm the first time (docs/minecraft.md).
test-minecraft: setup
	$(BIN)/worldpack doctor minecraft --install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/worldpack_env/worlds/test_minecraft.py

docs: setup
	@$(BIN)/pip install --quiet -e ".[docs]"
	$(BIN)/sphinx-build -W -b html docs docs/_build

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache docs/_build
