# Everything a fresh machine needs is python3 and make; `make help` lists what there is.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SPARK  := $(VENV)/.spark
BOTTLE := $(VENV)/bottlecrm
DEMO   ?= .demo
REPORT ?=
# BottleCRM needs a newer Python than the rest may run on; a name on the PATH that does not run (a shim) is passed over.
BOTTLECRM_PYTHON ?= $(shell for name in python3.12 python3.13; do "$$name" -c "" 2> /dev/null && echo "$$name" && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-spark test-crm test-bottlecrm slow real lint types floors bare check bench lock clean docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The environment is made once and made anew when the lock or the project file changes.
$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned dependencies into $(VENV) (once) ..."
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## simulate a book, train, score, plan, and print the top tasks with their reasons
	@$(BIN)/churnkit demo $(DEMO)

test: $(READY) ## the tests (minutes); slow and real-data suites have targets of their own
	@$(BIN)/python -m pytest -n auto --dist loadfile

test-spark: $(READY) ## features on Spark against DuckDB, registered models by spark_udf against ours (installs pyspark once; skips where there is no Java)
	@if command -v java > /dev/null || test -x "$${JAVA_HOME:-/nowhere}/bin/java"; then $(MAKE) --no-print-directory $(SPARK); fi
	@$(BIN)/python -m pytest -m spark -rs tests/signals/test_engines.py tests/learning/test_scorer.py

# Apart from the rest: pyspark is 400 MB, and who works on one machine needs none of it.
$(SPARK): requirements-spark.lock $(READY)
	@echo "Installing Spark into $(VENV) (once) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-spark.lock
	@touch $@

test-crm: $(READY) ## the suite of every connector on SQLite and PostgreSQL, in every form, with hundreds of kills
	@$(BIN)/python -m pytest -m "not slow" -rs -n auto --dist worksteal tests/crm

test-bottlecrm: $(READY) ## the example connector against the real BottleCRM, end to end (installs it once; skips without Python 3.12 or PostgreSQL)
	@if test -n "$(BOTTLECRM_PYTHON)"; then $(MAKE) --no-print-directory $(BOTTLE)/.ready; fi
	@$(BIN)/python -m pytest -m bottlecrm -rs tests/bottlecrm

# An environment of its own: BottleCRM wants other versions than churnkit, and Python 3.12. The first test run then
# migrates a database, which takes minutes, and keeps it on the server as churnkit_bottlecrm_<hash of the lock>: later
# runs copy it. DROP DATABASE is all it takes to be rid of it.
$(BOTTLE)/.ready: requirements-bottlecrm.lock | $(READY)
	@test -x $(BOTTLE)/bin/python || $(BOTTLECRM_PYTHON) -m venv --without-pip $(BOTTLE)
	@echo "Installing BottleCRM into $(BOTTLE) (once) ..."
	@$(BIN)/uv pip install --quiet --python $(BOTTLE)/bin/python --require-hashes -r requirements-bottlecrm.lock
	@touch $@

slow: $(READY) ## the slow tests: label shuffles, random kills, the wheel in an empty environment
	@$(BIN)/python -m pytest -m slow

real: $(READY) ## the main job on third-party data (CHURNKIT_REAL_DATA); skips where it is absent
	@$(BIN)/python -m pytest -m realdata -rs -s tests/realdata

lint: $(READY) types floors ## ruff, mypy --strict, and the floors of the house
	@$(BIN)/ruff check .

types: $(READY)
	@$(BIN)/mypy

floors: $(READY)
	@$(BIN)/lint-imports

bare: $(READY) ## the import lists: the face is lazy, a CRM job imports nothing heavy
	@$(BIN)/python -m pytest tests/test_house.py

check: lint bare test ## all that must hold before a change lands

docs: $(READY) ## write docs/features.md anew from the definitions
	@$(BIN)/python -m churnkit.jobs.definitions docs/features.md

bench: $(READY) ## every benchmark, small, each against a named peer
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script --small; done

lock: $(READY) ## resolve the dependencies anew (for 3.11, 3.12 and 3.13 at once)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --quiet -o requirements.lock
	@$(BIN)/python -c 'import tomllib; from pathlib import Path; print(*tomllib.loads(Path("pyproject.toml").read_text()) \
	    ["project"]["optional-dependencies"]["spark"], sep="\n")' | \
	    $(BIN)/uv pip compile - --constraints requirements.lock --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --quiet -o requirements-spark.lock
	@echo django-crm==1.35.0 | $(BIN)/uv pip compile - --universal --python-version 3.12 --generate-hashes \
	    --no-header --no-annotate --no-emit-index-url --quiet -o requirements-bottlecrm.lock

clean: ## remove what make made
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
