#!/usr/bin/env bash
# Makes ./.venv ready to run facestream: Debian's GStreamer, a virtual environment, pinned Python packages.
#
#   scripts/setup.sh [demo|test|check]
#
# It installs only what is missing, says what it installs before it does, and takes no time when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-demo}
case "$profile" in
  demo | test | check) ;;
  *) echo "setup: unknown profile '$profile'; known are demo, test and check" >&2; exit 2 ;;
esac

say() {
  if [ -t 1 ]; then printf '\033[1m[setup]\033[0m %s\n' "$*"; else printf '[setup] %s\n' "$*"; fi
}
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

# Runs what says nothing for minutes, and says now and then that it goes on.
patiently() {
  local begun=$SECONDS status=0 ticker
  (
    while sleep "$every_s" >/dev/null 2>&1 && kill -0 "$$" 2>/dev/null; do
      local size=""
      [ ! -d "$venv" ] || size="; $venv holds $(du -sm "$venv" 2>/dev/null | cut -f1) MB so far"
      say "still at it after $((SECONDS - begun)) s$size"
    done
  ) 9>&- &
  ticker=$!
  "$@" || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  return "$status"
}

every_s=10
venv=.venv
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -c1-16)
stamp="$venv/.ready-$profile"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

# Two set-ups at once would trip over each other.
if command -v flock >/dev/null; then
  exec 9>"${TMPDIR:-/tmp}/facestream-setup-$(id -u).lock"
  flock 9
fi

# --- Debian packages -------------------------------------------------------------------------------
# Decoding is GStreamer's. PyPI has no wheels of it for Linux, so it comes from the distribution.
debian_packages=(
  python3-venv python3-gi python3-gst-1.0
  gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-tools
)
# Tests see with it that nobody is told anything.
[ "$profile" = test ] && debian_packages+=(strace)

apt_install() {
  "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_debian_packages() {
  local missing=() name
  for name in "${debian_packages[@]}"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "GStreamer and its Python bindings come from Debian. These packages are missing and will be installed"
  say "with apt (about 270 MB with all that they need): ${missing[*]}"
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not root and no sudo; as root run: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  # A stale list of packages is the usual cause of a failed install, so it is fetched first.
  patiently "${root[@]}" apt-get update -qq || fail "apt-get update failed; see its message above"
  patiently apt_install "${root[@]}" || fail "apt-get install failed; see its message above"
}

if command -v dpkg-query >/dev/null; then
  install_debian_packages
elif ! /usr/bin/python3 -c 'import gi' 2>/dev/null; then
  fail "this set-up knows Debian 12 and its relatives. Elsewhere install GStreamer 1.22 or newer with its base," \
    "good, bad, ugly and libav plugins and the Python bindings (gi) for /usr/bin/python3, then run it again"
fi

# --- Virtual environment ---------------------------------------------------------------------------
# Debian builds gi for /usr/bin/python3, so the environment is made of the same interpreter. Only gi is
# linked into it: nothing else of the system's packages is visible.
system_python=/usr/bin/python3
"$system_python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$system_python is older than 3.11; facestream needs Debian 12 or newer"
if [ ! -x "$venv/bin/python" ]; then
  say "making the virtual environment $venv"
  patiently "$system_python" -m venv "$venv"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
ln -sfn "$("$system_python" -c 'import gi, os; print(os.path.dirname(gi.__file__))')" "$site/gi"

# --- Python packages -------------------------------------------------------------------------------
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" --version | grep -q "^pip $(sed -n 's/^pip==//p' constraints.txt) " ||
  "${pip[@]}" install -q "$(grep '^pip==' constraints.txt)"
project='.[demo,heif]' size='900 MB' groups=()
if [ "$profile" != demo ]; then
  project='.[demo,dlib,bench,gallery,heif,tensorrt-rtx]' size='1.3 GB' groups+=(--group test)
fi
[ "$profile" = check ] && groups+=(--group check)
say "installing the Python packages that constraints.txt pins (about $size on disk, most of it engines);"
say "pip is silent meanwhile, for a few minutes where they have to be downloaded"
# The build tools first, pinned as all else is: hatchling for facestream, setuptools for TensorRT's source package.
"${pip[@]}" install -q -c constraints.txt hatchling editables setuptools
patiently "${pip[@]}" install -q -c constraints.txt --no-build-isolation -e "$project" "${groups[@]}"
# MTCNN's weights. The package itself pins an old PyTorch, so nothing that it asks for is installed.
[ "$profile" = demo ] || "${pip[@]}" install -q --no-deps "$(grep '^facenet-pytorch==' constraints.txt)"
echo "$wanted" >"$stamp"
say "ready"
