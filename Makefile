# Every target makes the virtual environment it needs, once. A stamp file in .venv remembers what is installed; it is
# renewed when pyproject.toml or constraints.txt change. A fresh machine needs Python 3.11-3.13, git and make.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check format bench docs clean distclean

help:
	@echo "make demo      distil three of the shipped teachers into one student, evaluate it, write the report"
	@echo "make test      run the tests (WORKERS=$(WORKERS) processes)"
	@echo "make check     formatting, lint and types"
	@echo "make format    apply the formatting and the safe lint fixes"
	@echo "make bench     run the benchmarks, write benchmarks/latest.json (ONLY=\"doom teach\": these alone)"
	@echo "make docs      build the documentation into docs/_build/html"
	@echo "make clean     remove caches and built documentation (distclean: the virtual environment too)"

demo: $(VENV)/.stamp-demo
	$(BIN)/polydistill distill demo --out runs/demo --overwrite

test: $(VENV)/.stamp-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

check: $(VENV)/.stamp-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.stamp-bench
	$(BIN)/python -m benchmarks $(ONLY)

docs: $(VENV)/.stamp-docs
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 14); sys.exit(0 if ok else "polydistill needs Python 3.11 to 3.13; this is %s. Name another one: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-demo: $(VENV)/pyvenv.cfg $(SOURCES)
	$(INSTALL) '.[analyze,atari,track,video]'
	@touch $@

# The tests play real Atari and write real videos, so this holds everything that the demo needs.
$(VENV)/.stamp-dev: $(VENV)/pyvenv.cfg $(SOURCES)
	$(INSTALL) '.[analyze,atari,doom,track,video,dev]'
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-bench: $(VENV)/pyvenv.cfg $(SOURCES)
	$(INSTALL) '.[atari,bench,doom]'
	@touch $@

$(VENV)/.stamp-docs: $(VENV)/pyvenv.cfg $(SOURCES)
	$(INSTALL) '.[docs]'
	@touch $@
