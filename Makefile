# One-liners over deploy/bootstrap.py, which also runs without make.
# make setup [EXTRAS=cli]   make demo [DEMO=exit]   make test [T=unit] [ARGS="-k name"]
PYTHON ?= python3
COMMANDS := setup demo up down test chaos referees check screenshots secrets vendor clean

.PHONY: $(COMMANDS)
$(COMMANDS):
	@$(PYTHON) deploy/bootstrap.py $@ -- $(ARGS)
