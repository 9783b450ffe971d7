# The three commands of the project; what they do is in deploy/. `make help` lists them.
SITES ?= 12
PORT ?= 8080
FRESH ?=
EACH ?= 60

.PHONY: help demo test fuzz build dist setup bench

help:
	@echo 'make demo [SITES=12] [PORT=8080] [FRESH=1]  everything on this machine: console, relay, SITES agents; Ctrl-C ends it'
	@echo 'make test                                   format, lints, all tests; the last line counts them'
	@echo 'make fuzz [EACH=60]                         every reader of the network on bytes that nobody would send'
	@echo 'make bench                                  what packets and joins cost the relay, calls and watching the control plane, bad networks the link: eleven minutes (bench/NOTES.md)'
	@echo 'make build                                  the web app and the programs, optimised, in target/release'
	@echo 'make dist                                   the same for servers, in target/dist: slower to build, less CPU a packet'
	@echo 'make setup                                  install what is missing (the others do it by themselves)'

# exec: Ctrl-C must reach muster itself, and make must report its exit code.
demo:
	@deploy/setup build
	@deploy/build release
	@exec "$${CARGO_TARGET_DIR:-target}/release/muster" demo --sites $(SITES) --listen 127.0.0.1:$(PORT) $(if $(filter-out 0 no,$(FRESH)),--fresh)

test:
	@exec deploy/test

fuzz:
	@deploy/setup build
	@exec deploy/fuzz $(EACH)

build:
	@deploy/setup build
	@deploy/build release

dist:
	@deploy/setup build
	@deploy/build dist

setup:
	@deploy/setup test

bench:
	@deploy/setup build
	@cargo build --profile dist --locked --quiet -p muster-bench -p muster-edge
	@exec bench/run
