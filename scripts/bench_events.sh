#!/usr/bin/env bash
# `facestream bench events` at FACESTREAM_TEST_KAFKA, or on a broker that is started for it and ended afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${FACESTREAM_TEST_KAFKA:-}" ]; then
  data=$(mktemp -d)
  trap 'scripts/kafka/kafka stop "$data" >/dev/null 2>&1 || true; rm -rf "$data"' EXIT
  if ! FACESTREAM_TEST_KAFKA=$(scripts/kafka/kafka start "$data"); then
    echo "bench: without a broker, events to Kafka are left out; get one: make kafka" >&2
    exit 0
  fi
  export FACESTREAM_TEST_KAFKA
fi
.venv/bin/facestream bench events
