# Each target sets up what it needs in .venv; only Python >= 3.11 and make have to be there.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test test-parity test-long lint clean

test: .venv/test
	$(BIN)/python -m pytest -n 2 -m "not parity and not long"

test-parity: .venv/peers
	$(BIN)/python -m pytest -m "parity and not long"

test-long: .venv/test
	$(BIN)/python -m pytest -n 2 -m "long and not parity"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "camjax needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/test: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[test]"
	touch $@

.venv/dev: .venv/test
	$(BIN)/python -m pip install -q -c requirements.txt -e ".[dev]"
	touch $@

# Other implementations to compare with. They are no extra of the package, because PyPI cannot install them
# cleanly beside JAX: a plain requirement on torch brings gigabytes of CUDA.
.venv/peers: .venv/test
	@echo "Installing the implementations that tests compare with: torch (CPU), efficientnet-lite-pytorch"
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q --no-deps efficientnet-lite-pytorch==0.1.0
	touch $@

clean:
	rm -rf .venv
