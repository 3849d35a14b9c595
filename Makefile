# make demo, make test, make fuzz MINUTES=10, make lint: each sets up .venv by itself, and quickly when it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

MINUTES ?= 10

.PHONY: demo test fuzz lint clean

demo: $(VENV)/.demo
	@$(BIN)/raremem demo $(ARGS)

test: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

fuzz: $(VENV)/.test
	@$(BIN)/python -m pytest reference/conformance --raremem-fuzz $(MINUTES) $(ARGS)

# mypy does not follow the finder of an editable install: give it the tree that a wheel would have, as links.
lint: $(VENV)/.test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@rm -rf build/typed && mkdir -p build/typed/raremem
	@ln -s $(CURDIR)/core/*.py $(CURDIR)/core/py.typed $(CURDIR)/adapters $(CURDIR)/reference $(CURDIR)/benchmarks build/typed/raremem/
	@cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p raremem

clean:
	rm -rf $(VENV) build dist out *.egg-info .*_cache .hypothesis

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
