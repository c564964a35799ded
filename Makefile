# Two commands for people: `make demo` and `make test`.  Both set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint faults fuzz bench lock audit pictures clean

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

faults: $(VENV)/tested ## The long round of faults; takes hours, and stops by itself (FAULTS="--kills 1000 --seed 2 --write faults.md").
	$(BIN)/python -m tests.faults $(FAULTS)

fuzz: $(VENV)/tested ## Millions of hostile inputs; takes an hour, and stops by itself (FUZZ="--tar 1000000 --seed 2").
	$(BIN)/python -m tests.fuzz $(FUZZ)

bench: $(VENV)/benched ## Measure beside the original and the machine; takes hours (BENCH="--rows 1,3 --rounds 3").
	$(BIN)/python -m benchmarks $(BENCH)

lock: $(VENV)/audited ## Write anew which release of each package is known to work: requirements.lock.
	$(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 --all-extras \
	    --generate-hashes --custom-compile-command 'make lock' --output-file requirements.lock

audit: $(VENV)/audited ## Ask whether a locked package has a known vulnerability (AUDIT="--may-be-silent").
	$(BIN)/python tools/audit.py $(AUDIT)

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

$(VENV)/audited: $(VENV)/tested
	@$(BIN)/pip install --quiet --group audit
	@touch $@

$(VENV)/benched: $(VENV)/tested
	@sh tools/install-nginx.sh
	@$(BIN)/pip install --quiet --group bench
	@touch $@
