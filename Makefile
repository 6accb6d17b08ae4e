# Beamdesk. Two commands: `make up` starts it, `make test` tests it. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PREFIX ?= /opt/beamdesk
VENV := .venv
PYTHON ?= /usr/bin/python3
# Settings from the environment survive sudo; of nothing else is that said.
KEPT := $(shell env | sed -n 's/^\(BEAMDESK_[A-Z_]*\)=.*/\1/p' | paste -sd, -)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo $(if $(KEPT),--preserve-env=$(KEPT)))
RUN := $(VENV)/bin/
VM_DISK ?= /var/cache/beamdesk/vm/general.qcow2
# `sudo` brings another home: name the clouds.yaml that openstacksdk would find for the caller.
CLOUDS_YAML ?= $(or $(OS_CLIENT_CONFIG_FILE),$(firstword $(wildcard clouds.yaml $(HOME)/.config/openstack/clouds.yaml /etc/openstack/clouds.yaml)))
IN_CLOUD = BEAMDESK_CLOUD=openstack BEAMDESK_OPENSTACK__CLOUD='$(CLOUD)' $(if $(CLOUDS_YAML),OS_CLIENT_CONFIG_FILE='$(abspath $(CLOUDS_YAML))')
# What `make test` runs on a real OpenStack: the driver's contract and a desktop's whole life. The rest is `make test-openstack`.
OPENSTACK_FIRST := tests/contract tests/openstack/test_controlplane.py tests/openstack/test_driver_life.py
# All of it. The scheduler's tests have a cloud of their own and come first: two at once would share the machine.
OPENSTACK_LANE := tests/nova tests/contract tests/openstack tests/openstack_ops
# What is left of it after `make test`.
OPENSTACK_REST := $(filter-out $(OPENSTACK_FIRST),$(OPENSTACK_LANE)) $(addprefix --ignore=,$(OPENSTACK_FIRST))
REAL := root or postgres or browser or desktop or openstack

.PHONY: help up down status dev check static format test test-openstack test-openstack-vm vm-image cloud-up cloud-down bench bench-openstack clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## install what is missing (root once), start Beamdesk, print the address; CLOUD=name: desktops on that cloud of clouds.yaml
	@$(SUDO) env BEAMDESK_PREFIX=$(PREFIX) deploy/setup $(if $(CLOUD),cloud,runtime)
	@$(SUDO) $(if $(CLOUD),env $(IN_CLOUD)) $(PREFIX)/venv/bin/beamdesk up --detach

down: ## stop everything that `make up` started
	@$(SUDO) $(PREFIX)/venv/bin/beamdesk down

status: ## tell what runs
	@$(PREFIX)/venv/bin/beamdesk status

dev: $(VENV)/installed ## make the development environment in .venv

$(VENV)/installed: pyproject.toml requirements.lock requirements-dev.lock deploy/uv.txt
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: run deploy/setup packages as root"; exit 1; }
	@[ -x $(RUN)pip ] || $(PYTHON) -m venv $(VENV)
	@$(RUN)python -m pip install -q --disable-pip-version-check --root-user-action=ignore -r deploy/uv.txt
	@$(RUN)uv pip install -q --python $(RUN)python -r requirements-dev.lock
	@$(RUN)uv pip install -q --python $(RUN)python --no-deps -e .
	@touch $@

check: static ## format, lint, types, imports, unit tests and contracts on fakes: two minutes or three
	@$(RUN)pytest tests/unit tests/contract tests/nova -n 3 --dist worksteal -m "not ($(REAL) or heavy or slow)" --hypothesis-profile=quick

static: dev
	@$(RUN)ruff format --check -q . && $(RUN)ruff check -q .
	@$(RUN)mypy --no-error-summary
	@output=$$($(RUN)lint-imports --no-cache 2>&1) || { echo "$$output"; exit 1; }

format: dev ## format and mend what can be mended
	@$(RUN)ruff format -q . && $(RUN)ruff check -q --fix .

test: ## everything that this machine can run, real parts included
	@$(SUDO) deploy/setup packages
	@$(MAKE) --no-print-directory static
	@$(RUN)pytest tests/unit tests/contract tests/nova -n 2 --dist worksteal -m "not ($(REAL) or slow)"
	@$(SUDO) env BEAMDESK_PREFIX=$(PREFIX) deploy/setup images
	@$(RUN)pytest tests/unit tests/contract -m "($(REAL)) and not slow and not openstack"
	@$(RUN)pytest tests/integration tests/migration tests/browser tests/acceptance -n 2 --dist worksteal -m "not slow and not openstack" --durations=10
	@$(SUDO) deploy/setup openstack
	@$(RUN)pytest $(OPENSTACK_FIRST) -m "openstack and not slow" --durations=5

test-openstack: dev ## all tests on a real OpenStack with simulated hosts, faults and nova-scheduler included: half an hour; REST=1: without what `make test` runs
	@$(SUDO) deploy/setup openstack
	@$(RUN)pytest $(if $(REST),$(OPENSTACK_REST),$(OPENSTACK_LANE)) -m "openstack and not slow" --durations=10

test-openstack-vm: dev ## boot a built image through Nova on a real OpenStack and use it in the browser: minutes, more where there is no KVM
	@$(SUDO) deploy/setup packages
	@$(SUDO) deploy/setup vm
	@$(SUDO) $(RUN)python -m beamdesk.adapters.vmimage build general --kernel --out $(VM_DISK)
	@$(SUDO) $(RUN)python -m beamdesk.gateway.webclient --dest /var/cache/beamdesk/selkies-web
	@$(SUDO) env BEAMDESK_TEST_DISK=$(VM_DISK) $(RUN)pytest tests/vm

vm-image: dev ## build the virtual machine disk of an image: make vm-image IMAGE=imaging OUT=imaging.qcow2
	@$(SUDO) deploy/setup vm
	@$(SUDO) $(RUN)python -m beamdesk.adapters.vmimage build $(or $(IMAGE),$(error say which: IMAGE=general OUT=general.qcow2)) --out $(or $(OUT),$(IMAGE).qcow2)

cloud-up: dev ## start a real OpenStack with simulated hosts on loopback, for tests by hand; prints how to use it
	@$(SUDO) deploy/setup openstack
	@$(RUN)python -m tests.controlplane up

cloud-down: ## stop it; its state stays
	@$(RUN)python -m tests.controlplane down

bench: dev ## numbers beside their peers, in the same run
	@$(SUDO) deploy/setup packages
	@$(RUN)python -m bench

bench-openstack: dev ## a storm of 500 desktops on 250 simulated hosts of a real OpenStack, beside a bare script; an hour, quiet machine
	@$(SUDO) deploy/setup openstack
	@$(RUN)python -m bench.openstack

clean: ## remove what the build made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
