# Two commands on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

.venv/oracles: .venv/installed tests/requirements-oracles.txt
	$(BIN)/pip install --quiet --requirement tests/requirements-oracles.txt
	$(BIN)/pip install --quiet --editable '.[eval]' || echo "PESQ needs a C compiler: it is left out of the tests"
	touch $@

demo: .venv/installed
	$(BIN)/neutok tokenize --corpus folder --input pipeline/sample --codec nano --output out/demo
	$(BIN)/neutok inspect out/demo
	$(BIN)/neutok decode out/demo --keys folder_ljspeech_LJ_1_wav --output out/demo-heard

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

test: .venv/oracles lint
	$(BIN)/python -m pytest

clean:
	rm -rf .venv out
