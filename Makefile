# make demo   set up, render the demo data, train teacher and student, print their tables, draw heat maps
# make compare  the demo's student beside four published methods, in one table
# make test   set up if needed, then the fast tests
# make test-slow  the others: whole runs, several processes, killed runs, compiled networks
# make fuzz   10,000 faulty options files, 2,000 damaged pictures, 1,000 damaged tables: minutes
# make report-check  the pages in headless Chromium, at 1280 and 390 pixels (needs playwright and chromium)
# make check  format, lint, types, all tests: what CI runs

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Some tests write files whose names are not ASCII; a locale such as C has no names for them.
export PYTHONUTF8 = 1

.PHONY: demo compare test test-slow fuzz check lint docs report-check

demo: $(VENV)/.installed
	$(RUN) -m demo
	$(RUN) run.py options/demo.yaml
	$(RUN) test.py options/demo.yaml
	$(RUN) visualize.py options/demo.yaml

compare: $(VENV)/.installed
	$(RUN) -m demo
	$(RUN) compare.py options/comparison/demo.yaml --train

test: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist worksteal -c .ci/pytest.ini --rootdir .

test-slow: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist worksteal -m "slow and not gpu" -c .ci/pytest.ini --rootdir .

fuzz: $(VENV)/.installed
	FUZZ=100 $(RUN) -m pytest -n 2 --dist worksteal -c .ci/pytest.ini --rootdir . tests/faults

report-check: $(VENV)/.installed
	$(RUN) -m pytest -m slow -rs -c .ci/pytest.ini --rootdir . tests/e2e/test_pages.py

check: lint test test-slow

lint: $(VENV)/.installed
	$(RUN) -m ruff format --config .ci/ruff.toml --check .
	$(RUN) -m ruff check --config .ci/ruff.toml .
	$(RUN) -m mypy --config-file .ci/mypy.ini utils datasets models options jobs demo benchmarks $(wildcard *.py)

docs: $(VENV)/.installed
	$(RUN) -m options.document
	$(RUN) docs/fig2.py docs/fig2.png

$(VENV)/.installed: requirements.txt .ci/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements.txt -r .ci/requirements.txt
	touch $@
