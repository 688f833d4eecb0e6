# make demo and make test do all the set-up; they need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
TESTS ?= tests
AS_USERS_TYPE := tests/typed $(wildcard examples)

.PHONY: demo test check browser docs format clean

$(BIN)/maekit: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "maekit needs Python 3.11 or newer; name one with PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast]'
	@touch $@

$(VENV)/dev-installed: pyproject.toml $(BIN)/maekit
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(BIN)/maekit
	$(BIN)/maekit demo --out runs/demo --overwrite

test: $(VENV)/dev-installed
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(TESTS)

check: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file= --strict --cache-dir .mypy_cache/users $(AS_USERS_TYPE)
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# What the tests of the page need beside Python: a Chromium, and the rules of axe-core.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 install --no-install-recommends chromium > /dev/null; \
	else echo "no Chromium is installed, and only root can install one by apt-get: do so by hand" >&2; exit 1; fi
	@test -d node_modules/axe-core || npm install --silent --no-save --no-package-lock --ignore-scripts --no-audit \
	  --no-fund axe-core@4 || { echo "axe-core could not be installed by npm: do so by hand" >&2; exit 1; }

# site/index.html; its search needs a server: python -m http.server -d site
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

$(VENV)/docs-installed: pyproject.toml $(BIN)/maekit
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

format: $(VENV)/dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs site
