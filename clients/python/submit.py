#!/usr/bin/env python3
"""Classifies texts: seals one job a text, publishes them all, prints the answers.

    python submit.py --keys keys --tenant acme "the goalie stopped every shot"

The broker's URL is read from --amqp-url or INFERQ_AMQP_URL. Exit codes: 0 done; 1 a job was answered with an error;
3 a key is missing or refused; 4 the broker does not answer or did not take a job; 5 a reply did not come in time.
"""

import argparse
import json
import os
import sys

from pika.exceptions import AMQPError

from inferq_client import Client, EnvelopeError, JobFailed, Keys, NotAccepted


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="texts to classify, one job each")
    parser.add_argument("--amqp-url", default=os.environ.get("INFERQ_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"))
    parser.add_argument("--ca-file", metavar="PEM", help="for amqps://: the authority that signed the broker's certificate")
    parser.add_argument("--certificate-file", metavar="PEM", help="for a broker that demands one; with --key-file")
    parser.add_argument("--key-file", metavar="PEM")
    parser.add_argument("--allow-plaintext", action="store_true", help="amqp:// beyond this machine")
    parser.add_argument("--keys", required=True, metavar="FOLDER", help="the key ring's folder")
    parser.add_argument("--tenant", required=True, help="whose keys to use")
    parser.add_argument("--model", default="topic", metavar="NAME[:VERSION]")
    parser.add_argument("--prefix", default="inferq", help="first part of the exchanges' names")
    parser.add_argument("--timeout-s", type=float, default=60)
    parser.add_argument("--deadline-s", type=float, help="seconds within which a job must be run")
    parser.add_argument("--json", action="store_true", help="print one JSON object a job")
    return parser.parse_args()


def show(job, options, text: str) -> int:
    """Prints one answer; answers the exit code that it stands for."""
    try:
        response = job.result(options.timeout_s)
    except JobFailed as failed:
        print(f"{job.message_id}: {failed}", file=sys.stderr)
        return 1
    except TimeoutError as late:
        print(late, file=sys.stderr)
        return 5
    outputs = {name: output.data for name, output in response.outputs.items()}
    if options.json:
        print(json.dumps({"job": job.message_id, "model": f"{response.model_name}:{response.model_version}", **outputs}))
    else:
        print(f"{outputs.get('label', outputs)}\t{text[:60]}")
    return 0


def main() -> int:
    options = arguments()
    try:
        keys = Keys.load(options.keys, options.tenant)
    except (EnvelopeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    tls = {name: getattr(options, name) for name in ("ca_file", "certificate_file", "key_file", "allow_plaintext")}
    try:
        with Client(options.amqp_url, keys, prefix=options.prefix, **tls) as client:
            jobs = [client.submit(options.model, text, deadline_s=options.deadline_s) for text in options.texts]
            return max(show(job, options, text) for job, text in zip(jobs, options.texts))
    except (AMQPError, NotAccepted, OSError, ValueError) as error:
        print(f"error: broker: {error or type(error).__name__}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
