#!/usr/bin/env bash
# Trains the reference model in an environment of its own. Installs what requirements.txt pins, about 6 GB on disk.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${TOPIC_VENV:-$here/out/venv}
if [ ! -x "$venv/bin/python" ]; then
    echo "train-topic: making a Python environment in $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
fi
exec "$venv/bin/python" "$here" "$@"
