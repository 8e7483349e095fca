#!/bin/sh
# Build .venv from pyproject.toml and constraints.txt; do nothing if it is up to date.
# Usage: sh tools/venv.sh [PYTHON]    (by default, the first suitable Python on PATH)
set -eu
cd "$(dirname "$0")/.."

here=$(pwd -P)
bin=.venv/bin
stamp=.venv/.complete
extras=cu13,notebooks,test,book,browser
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
suitable='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'

[ -n "${1-}" ] || set -- python3 python3.13 python3.12 python3.11

# The stamp is written last, so an interrupted install has none. It contains the
# path of the folder, as the scripts in .venv do: a moved or copied .venv does not work.
finished() {
    [ "$(cat "$stamp" 2>/dev/null)" = "$here" ] && $bin/python -c "$suitable" 2>/dev/null
}

# True unless the caller names a Python and .venv has another version.
same_python() {
    [ $# -gt 1 ] || [ "$("$1" -c "$version" 2>/dev/null)" = "$($bin/python -c "$version")" ]
}

# Set `python` to the first candidate that runs, is suitable and can create a venv.
find_python() {
    found=
    for python in "$@"; do
        if ! command -v "$python" >/dev/null; then
            why="not found"
        elif ! v=$("$python" -c "$version" 2>/dev/null); then
            why="does not run"
        elif ! "$python" -c "$suitable"; then
            why="is Python $v"
        elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            why="is Python $v, but without venv (Debian, Ubuntu: apt install python${v%.*}-venv)"
        else
            return 0
        fi
        found="$found  $python: $why
"
    done
    echo "lrscan needs Python 3.11, 3.12 or 3.13 with its venv module. Tried:" >&2
    printf %s "$found" >&2
    echo "Install one of these, or name one: make ... PYTHON=/path/to/python3.12" >&2
    exit 1
}

if finished && same_python "$@"; then
    [ -n "$(find pyproject.toml constraints.txt -newer "$stamp")" ] || exit 0
    echo "pyproject.toml or constraints.txt is newer than .venv: updating it ..."
    rm "$stamp"
else
    find_python "$@"
    echo "building .venv with Python $v: this takes a few minutes and downloads up to 3 GB ..."
    rm -rf .venv
    "$python" -m venv .venv
fi

start=$(date +%s)
$bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$extras]" || {
    echo "The install failed for the reason above. The next make starts again." >&2
    exit 1
}
echo "$here" >"$stamp"
echo ".venv is ready ($(($(date +%s) - start)) s)"
