# make setup | demo | test | coverage | test-page | slow | lint : each does all its own set-up in .venv
PYTHON ?= python3
VENV ?= .venv
READY = $(VENV)/.ready
DECIDING = vergence/objectives vergence/views vergence/rewards

.PHONY: setup demo test coverage test-page slow lint clean

setup: $(READY)

# torch first and alone, at the pinned version: otherwise the resolver may pick another build of it
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(READY)

demo: setup
	$(VENV)/bin/vergence demo

test: setup
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

# which lines of the parts that decide what is learned their own tests run
coverage: setup
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile $(DECIDING) tests/laws tests/oracles tests/views tests/rewards tests/command/test_verifying.py \
		$(DECIDING:%=--cov=%) --cov-report=term --cov-fail-under=95

# the pages in a real browser: needs Chromium, which is the system's own (Debian: apt-get install chromium)
test-page: setup
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[page]'
	$(VENV)/bin/python -m pytest -m page tests/page

slow: setup
	$(VENV)/bin/python -m pytest -m slow

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
