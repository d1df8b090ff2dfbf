# The two commands of README.md; make.py does the work. PYTHON=python3.12 names another Python, ARGS adds words.
PYTHON ?= python3

train test:
	@$(PYTHON) make.py $@ $(ARGS)

.PHONY: train test
