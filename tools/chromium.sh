#!/bin/sh
# See that there is a Chromium for the browser tests: the system's, Debian's package where it
# can be installed, or else the one that Playwright fetches.
# Usage: sh tools/chromium.sh PYTHON
set -eu

for name in "${CHROMIUM-}" chromium chromium-browser google-chrome; do
    [ -z "$name" ] || ! command -v "$name" >/dev/null || exit 0
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing Debian's chromium ..."
    apt-get update -qq && apt-get install -y -qq chromium && exit 0
fi
"$1" -m playwright install chromium
