#!/usr/bin/env bash
# Trains the reference model in an environment of its own. Installs what requirements.txt pins, about 6 GB on disk.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${TOPIC_VENV:-$here/out/venv}
# What was installed is noted only when all of it was: an installation that was cut off is taken up again, and one that
# requirements.txt has left behind is brought up to it. An environment that TOPIC_VENV names is its owner's, not ours.
installed=$venv/installed.txt
if [ -z "${TOPIC_VENV:-}" ] && ! cmp --silent "$here/requirements.txt" "$installed"; then
    echo "train-topic: making a Python environment in $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$installed"
fi
exec "$venv/bin/python" "$here" "$@"
