# Few verbs; CI calls the same ones. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup demo test faults fuzz coverage audit mutants minimal newest dist docs lint format clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: setup  ## generate scenes, learn their classes without labels, show masks beside the truth
	$(BIN)/contextseg demo -o demo

test: setup lint  ## everything that CI checks, but for the pages of `make docs`
	$(BIN)/python -m pytest -n auto --maxprocesses 4

faults: setup  ## kill 60 runs at random places, and tell where; the suite kills a few
	$(BIN)/python -m pytest tests/faults --kills 60 -rP

fuzz: setup  ## more than 100,000 damaged inputs; the suite looks at a few
	CONTEXTSEG_INPUTS=7000 $(BIN)/python -m pytest tests/fuzz

coverage: setup  ## the suite again, and which lines and branches no test reaches
	$(BIN)/python -m pip install --quiet "pytest-cov>=6" "coverage>=7.10"
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --cov --cov-report=term-missing:skip-covered

audit: setup  ## ask whether what is installed has known weaknesses
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

mutants: setup  ## change views, clustering and evaluation in small ways, and tell which changes no test finds
	$(BIN)/python -m pip install --quiet "mutmut>=3.8"
	$(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results

minimal newest: setup  ## the tests with the oldest, or the newest, versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear .venv-$@
	$(BIN)/uv pip install --quiet --python .venv-$@ --resolution $(RESOLUTION_$@) --editable ".[dev]"
	.venv-$@/bin/python -m pytest -n auto --maxprocesses 4 $(WARNINGS_$@)

RESOLUTION_minimal := lowest-direct
RESOLUTION_newest := highest
# old versions of one library use what another has deprecated since
WARNINGS_minimal := -W ignore::DeprecationWarning -W ignore::FutureWarning

dist: setup  ## wheel and sdist, and a fit from the wheel in an environment of its own
	rm -rf dist .venv-dist
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet dist/*.whl
	cd dist && ../.venv-dist/bin/contextseg --help
	cd dist && ../.venv-dist/bin/contextseg demo -o demo --images 24

docs: setup  ## the documentation as pages in site/
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/mkdocs build --strict

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell src tests docs benchmarks examples recipes *.md

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-minimal $(VENV)-newest $(VENV)-dist demo dist site mutants .mypy_cache .pytest_cache .ruff_cache
