# Thin on purpose: each recipe is a line or two, and what takes more is a script in scripts/.
CARGO ?= cargo
SHELL := /bin/bash
# The libtorch that everything is built against: `make build CUDA=1` for GPUs, which is the default where there is one, CUDA=0 for the
# CPU. LIBTORCH and LIBTORCH_USE_PYTORCH=1 name another one (docs/installation.md).
export CUDA
with_libtorch = export LIBTORCH="$$(scripts/libtorch.sh)" && [ -n "$$LIBTORCH" ]

.PHONY: help libtorch build demo test fuzz crash-test check deny check-cuda gpu-kit gpu-check parity zoo bench cluster cluster-down docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

libtorch: ## find libtorch, or make a folder with it from PyPI; CUDA=1: the one for GPUs (5 GB)
	@scripts/libtorch.sh

build: ## target/release/segslurm; CUDA=1 for GPUs, as is the default where there is one
	@$(with_libtorch) && $(CARGO) build --release

demo: build ## set up, build, make the demo dataset, train (on a GPU where there is one), test, show the results
	@scripts/demo.sh

test: ## all set-up, then every test
	@scripts/test-tools.sh
	@$(with_libtorch) && $(CARGO) test --workspace

crash-test: ## kill -9 a training at 100 random moments: nothing saved is lost, the losses equal an unbroken run's
	@$(with_libtorch) && SEGSLURM_CRASHES=$${SEGSLURM_CRASHES:-100} $(CARGO) test --test integration killed_at_any_moment -- --nocapture

fuzz: ## every parser under mutated input for MINUTES=… (10); what ends badly is kept, with the command to see it again
	@$(with_libtorch) && $(CARGO) test --test fuzz -- --minutes $(or $(MINUTES),10) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED))

check: ## rustfmt, clippy and rustdoc, warnings denied, shellcheck, and spelling
	$(CARGO) fmt --all --check
	@$(with_libtorch) && $(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(with_libtorch) && RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	shellcheck scripts/*.sh .ci/run
	@scripts/typos.sh

deny: ## licences, sources and known faults of the dependencies, by cargo-deny (cargo install --locked cargo-deny)
	$(CARGO) deny check

check-cuda: ## without a GPU: build for GPUs, show what --version says, compile the CUDA kernels, be refused GPUs that are not there
	@scripts/check-cuda.sh

gpu-kit: ## target/gpu-kit: what make gpu-check needs on a machine with a GPU but without Rust or a network
	@scripts/gpu-kit.sh

gpu-check: ## on a machine with a GPU: correctness against the CPU, NCCL, speed beside mmsegmentation's model
	@scripts/gpu-check.sh

parity: ## our numbers beside mmsegmentation's, on the same weights and pixels (5 GB and 10 minutes the first time)
	@$(with_libtorch) && scripts/parity.sh

zoo: ## every different model of mmsegmentation's configs beside mmsegmentation (an hour or so; FAMILY=segformer for some)
	@$(with_libtorch) && scripts/zoo.sh $(FAMILY)

bench: ## speed and memory beside mmsegmentation's on this machine, medians and ratios (about 20 minutes)
	@$(with_libtorch) && scripts/bench.sh

cluster: ## start a throwaway two-node Slurm cluster on this machine
	@scripts/cluster.sh up

cluster-down: ## stop that cluster
	@scripts/cluster.sh down

docs: ## the API documentation
	$(CARGO) doc --workspace --no-deps
