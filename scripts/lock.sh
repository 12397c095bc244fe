#!/usr/bin/env bash
# Writes constraints.txt anew: the newest versions that pyproject.toml admits, as one consistent set.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
/usr/bin/python3 -m venv "$scratch/venv"
pip=("$scratch/venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q --upgrade pip
"${pip[@]}" install -q '.[dlib,bench,gallery,heif,tensorrt-rtx]' --group test --group check hatchling editables setuptools
"${pip[@]}" install -q --no-deps facenet-pytorch==2.6.0
{
  echo "# Every Python package that facestream is built and tested with. Made by scripts/lock.sh."
  "${pip[@]}" freeze --all | grep -viE '^(facestream|wheel)\b' | sort -f
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
