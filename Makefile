# Every task of the repository. `make` alone lists them. The recipes are one line each: the work is in scripts/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help doctor demo demo-embedded build test check lint deny test-rabbitmq4 test-models operators train-topic evaluate-topic test-training bench-echo bench-envelope mutants fuzz bench-tract batching-pictures bench-peers bench-batching bench-record swaps flood explain faults compose-env bench-confirms

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-16s %s\n", $$1, $$2 }'

doctor: ## Say what is here and what is missing; changes nothing
	@scripts/doctor.sh

demo: ## Keys, a broker, a worker, encrypted jobs and their replies, in one go
	@scripts/demo.sh

demo-embedded: build ## The same without RabbitMQ: the broker that is built in
	@target/release/inferq demo --embedded

build: ## Build the release binary, target/release/inferq
	cargo build --release --locked

test: ## Run all tests; installs the brokers and tools that they need
	@scripts/test.sh

check: lint ## Everything short of the tests: formatting, clippy, scripts, licences
	@scripts/deny.sh --if-installed

lint: ## Formatting, clippy with warnings as errors, shellcheck
	@scripts/lint.sh

deny: ## Licences, sources, bans and advisories of the dependencies; installs cargo-deny
	@scripts/deny.sh

test-rabbitmq4: ## The broker tests against RabbitMQ 4
	@scripts/rabbitmq4.sh test

test-models: ## Models of others beside onnxruntime: magika, open-nsfw, EfficientNet, text direction; installs about 400 MB
	@scripts/test-models.sh

operators: ## What the runtime makes of the test cases of single operators: writes docs/operators.md
	@scripts/test-models.sh operators

train-topic: ## Train the reference model again, from data to models/topic; installs PyTorch
	@models/topic/training/run.sh

fuzz: ## Feed the decoders with what a fuzzer comes up with; installs cargo-fuzz; FUZZ_SECONDS for each target
	@scripts/fuzz.sh

mutants: ## Change the envelope's code bit by bit, and tell which change no test notices; installs cargo-mutants
	@scripts/mutants.sh

evaluate-topic: ## Run the reference model on its 7,138 test posts: accuracy, confusion, calibration, time
	@scripts/evaluate-topic.sh

test-training: ## Test the training steps that need no PyTorch; installs numpy, scipy and tokenizers
	@scripts/test-training.sh

bench-envelope: ## Measure what opening, refusing and sealing an envelope costs
	@scripts/bench-envelope.sh

bench-echo: ## Measure the worker against the broker alone
	@scripts/bench-echo.sh

bench-confirms: ## Measure what confirmed replies cost the worker
	@scripts/bench-echo.sh --confirms

bench-tract: ## Measure a text on one core: the model as served, tract alone, onnxruntime; in one run
	@scripts/bench-tract.sh

bench-peers: ## Measure the worker beside Celery, aio-pika and mosec with onnxruntime; BENCH_SECONDS, BENCH_ROUNDS
	@scripts/bench-peers.sh

bench-batching: ## Measure how batches are formed, with a page of plots; BENCH_BLOCKS, BENCH_BLOCK_MS
	@scripts/bench-batching.sh

bench-record: ## Put what bench-peers and bench-batching measured last into docs/benchmarks.md
	@scripts/bench-record.sh

swaps: ## Replace a model 20 times under load: errors, and p99 against that without swaps; SWAPS=n
	@INFERQ_SWAPS=$${SWAPS:-20} cargo test --release --locked --test replace -- --nocapture swaps_under_load

flood: ## Measure a tenant's latencies alone, on a busy worker and beside a flood, on both brokers: 7 minutes; FLOOD_SECONDS=n a block
	@INFERQ_FLOOD_SECONDS=$${FLOOD_SECONDS:-10} cargo test --release --locked --test flood -- --nocapture --test-threads 1

explain: ## Explain 200 posts, and see whether the words that are named are those that matter; POSTS=n
	@INFERQ_EXPLAIN_POSTS=$${POSTS:-200} cargo test --release --locked --test explain -- --nocapture the_words

batching-pictures: ## Draw the pictures of docs/batching.md from the recorded costs
	cargo bench --locked --bench batching

faults: ## Kill, cut and stop a running service, and account for every job; FAULTS_MINUTES, FAULTS_N, FAULTS_SEED, FAULTS_ROWS
	@scripts/faults.sh

compose-env: ## Write .env for docker-compose.yml: a broker password and the user of the workers
	@scripts/compose-env.sh
