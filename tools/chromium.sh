#!/bin/sh
# Make sure that the browser tests have a Chromium: an installed one, Debian's package if it can be
# installed, or else the one that Playwright downloads.
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
