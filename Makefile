# make demo, make test, make docs, make fuzz MINUTES=10, make lint: each sets up .venv by itself, and quickly when it is there.
# make floors: the lowest versions that pyproject.toml declares, in .venv-floors.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MINUTES ?= 10

# The lowest versions, best on the oldest Python. An old PyTorch of PyPI is one for CUDA, of 6 GB with what it needs; with
# TORCH_INDEX=https://download.pytorch.org/whl/cpu it is one for the CPU, of 200 MB.
FLOORS := .venv-floors
FLOORS_PYTHON ?= $(shell command -v python3.10 >/dev/null && python3.10 -c '' 2>/dev/null && echo python3.10 || echo $(PYTHON))
TORCH_INDEX ?=

.PHONY: demo test docs fuzz floors lint clean

demo: $(VENV)/.demo
	@$(BIN)/raremem demo $(ARGS)

test: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(ARGS)

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo build/site/index.html

fuzz: $(VENV)/.test
	@$(BIN)/python -m pytest reference/conformance --raremem-fuzz $(MINUTES) $(ARGS)

floors: $(FLOORS)/.ready
	@OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -o addopts=--import-mode=importlib -o pythonpath=tests/floors \
		tests/floors/smoke.py reference/conformance --raremem-backend numpy --raremem-examples 3 $(ARGS)

# mypy does not follow the finder of an editable install: give it the tree that a wheel would have, as links.
lint: $(VENV)/.test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@rm -rf build/typed && mkdir -p build/typed/raremem
	@ln -s $(filter-out %__pycache__,$(wildcard $(CURDIR)/core/*)) $(CURDIR)/adapters $(CURDIR)/reference $(CURDIR)/benchmarks build/typed/raremem/
	@cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p raremem

clean:
	rm -rf $(VENV) $(FLOORS) build dist out *.egg-info .*_cache .hypothesis

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "raremem needs Python 3.10 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PIP) pip setuptools wheel
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing what the demo needs (PyTorch and JAX: some hundred MB the first time) ..."
	@$(PIP) --editable '.[torch,jax,bench]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
		{ echo "no C++ compiler, which the package annoy and torch.compile need; on Debian and Ubuntu: apt install g++" >&2; exit 1; }
	@echo "installing what the tests need ..."
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.docs: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing what the site needs ..."
	@$(PIP) --editable '.[docs]'
	@touch $@

$(FLOORS)/.ready: pyproject.toml tests/floors/lowest.py
	@echo "installing the lowest versions in $(FLOORS) ($$($(FLOORS_PYTHON) --version)) ..."
	@rm -rf $(FLOORS) && $(FLOORS_PYTHON) -m venv $(FLOORS)
	@$(FLOORS)/bin/python tests/floors/lowest.py > $(FLOORS)/lowest.txt
	@$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint $(FLOORS)/lowest.txt pip setuptools wheel
	@$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(FLOORS)/lowest.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--editable '.[conformance,torch,jax,annoy,faiss,hnswlib,bench]' flax equinox orbax-checkpoint
	@$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
