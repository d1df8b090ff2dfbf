# The commands of README.md, and the documentation site; make.py does the work. PYTHON=python3.12 names another Python, ARGS adds words.
PYTHON ?= python3

train test docs:
	@$(PYTHON) make.py $@ $(ARGS)

.PHONY: train test docs
