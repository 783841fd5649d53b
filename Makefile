# Two commands do everything: `make demo` and `make test`. Both set up .venv first, when requirements.lock changed.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: setup demo run test lint types bench peers pictures clean

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "perpwatch needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

setup: .venv/.installed

demo: setup
	@$(BIN)/perpwatch demo $(ARGS)

run: setup
	@$(BIN)/perpwatch run $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest $(ARGS)

# Less than 15 minutes; the results are kept in benchmarks/RESULTS.md.
bench: setup peers
	$(BIN)/python benchmarks/run_all.py $(ARGS)

# Other programs that benchmarks/peers.py measures, in an environment of their own.
benchmarks/.peers/.installed: benchmarks/peers.txt
	$(PYTHON) -m venv benchmarks/.peers
	benchmarks/.peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

peers: benchmarks/.peers/.installed

# The pictures of docs/dashboard.md, from a running demonstration, and of docs/alerts.md, from a simulated market.
pictures: setup
	PICTURES_FOLDER=docs/pictures $(BIN)/pytest -n 0 tests/app/test_dashboard.py -k views
	PICTURES_FOLDER=docs/pictures $(BIN)/pytest -n 0 tests/scenarios/test_cards_live.py

clean:
	rm -rf .venv benchmarks/.peers .mypy_cache .pytest_cache .ruff_cache .hypothesis
