# Two commands for people: `make demo` and `make test`.  Both set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint faults pictures clean

help: ## Say what there is.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 16

demo: $(VENV)/installed ## Start the service, upload a bundle, show where it went, stop.
	@$(BIN)/pacifica-ingest-cmd demo $(FOLDER)

test: $(VENV)/tested lint ## Everything: style, types, floors, and all tests against real servers.
	$(BIN)/pytest --numprocesses 2 --dist worksteal $(TESTS)

lint: $(VENV)/tested ## Style, types and floors only.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

faults: $(VENV)/tested ## The long round of faults; takes hours, and stops by itself (FAULTS="--kills 1000 --seed 2").
	$(BIN)/python -m tests.faults $(FAULTS)

pictures: $(VENV)/tested ## Draw the pictures of the documentation anew.
	$(BIN)/python tools/draw.py docs/pictures

clean: ## Remove what the commands above made here.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/pip:
	@sh tools/make-venv.sh $(PYTHON) $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/installed: $(VENV)/pip pyproject.toml
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/tested: $(VENV)/pip pyproject.toml
	@sh tools/install-servers.sh $(PYTHON)
	@$(BIN)/pip install --quiet --editable '.[mysql,postgresql,redis]' --group test
	@touch $@
