"""Which models the workers serve: what they announce, heard and kept while it holds. Used by inferq_client.

Workers answer a query with an announcement each, sealed for this tenant. Where none answers, nothing is known and nothing is refused.
"""

import difflib
import json
import logging
import secrets
import time
from dataclasses import dataclass, field

import pika
from pika.exceptions import AMQPError

from inferq_envelope import HEADER_TENANT, TYPE_QUERY, EnvelopeError, Keys, open_announcement

# Bounds of the queue: the oldest announcements go first, and none is older than a minute.
MAX_WAITING = 1_024
MAX_WAITING_BYTES = 32 << 20
MESSAGE_TTL_MS = 60_000
# How long what was asked is taken for all there is.
FRESH_S = 1.0
LISTED_NAMES = 10

log = logging.getLogger("inferq")


@dataclass
class RemoteModel:
    """A model that workers serve: its versions and aliases as announced, and how many workers serve it."""

    name: str
    versions: dict = field(default_factory=dict)
    aliases: list = field(default_factory=list)
    replicas: int = 0


@dataclass
class _Heard:
    said: dict
    at: float
    until: float


class Directory:
    """The latest word of each worker, while it holds. Needs no broker."""

    def __init__(self) -> None:
        self._workers: dict[str, _Heard] = {}
        self._known: set = set()

    def hear(self, said: dict, lifetime_s: float, now: float) -> bool:
        """Takes a word; one that is not later than the last of its worker changes nothing."""
        self._workers = {instance: heard for instance, heard in self._workers.items() if heard.until > now}
        stands = self._workers.get(said["instance"])
        if stands is not None and stands.said["sequence"] >= said["sequence"]:
            return False
        self._workers[said["instance"]] = _Heard(said, now, now + lifetime_s)
        self._known.update(model["name"] for model in said["models"])
        return True

    def models(self, now: float) -> dict:
        """Every model that a worker serves now, by name."""
        models: dict[str, RemoteModel] = {}
        for heard in sorted(self._alive(now), key=lambda heard: heard.at):
            for said in heard.said["models"]:
                model = models.setdefault(said["name"], RemoteModel(said["name"]))
                model.replicas += 1
                model.aliases = said.get("aliases", [])
                for version in said["versions"]:
                    replicas = model.versions.get(version["version"], {}).get("replicas", 0) + 1
                    model.versions[version["version"]] = {**version, "replicas": replicas}
        return models

    def refusal(self, model: str, now: float) -> str | None:
        """Why jobs for `model` are not sent; None where it is served, or nothing is known."""
        name, _, version = model.partition(":")
        models = self.models(now)
        found = models.get(name)
        if found is not None and (not version or any(version == str(number) for number in found.versions)):
            return None
        alive = list(self._alive(now))
        if not alive or not all(heard.said.get("complete", False) for heard in alive):
            return None
        if found is not None:
            return f"model `{name}` has no version {version}; it has {', '.join(map(str, sorted(found.versions)))}"
        if name in self._known:
            # Between two lives of its workers: its jobs wait in their queue.
            return None
        near = sorted(models, key=lambda other: -difflib.SequenceMatcher(None, name, other).ratio())
        names = ", ".join(f"`{other}`" for other in near[:LISTED_NAMES]) or "none"
        return f"no worker serves a model `{name}` for this tenant; served are {names}"

    def serves(self, model: str, now: float) -> bool:
        """Whether a worker serves it now."""
        name, _, version = model.partition(":")
        found = self.models(now).get(name)
        return found is not None and (not version or any(version == str(number) for number in found.versions))

    def anybody(self, now: float) -> bool:
        """Whether any worker announces its models."""
        return next(self._alive(now), None) is not None

    def _alive(self, now: float):
        return (heard for heard in self._workers.values() if heard.until > now and not heard.said.get("leaving"))


class Discovery:
    """Hears announcements on a queue of its own, on a channel of its own: what fails here costs no job."""

    def __init__(self, connection, keys: Keys, *, service: str, prefix: str, queue_prefix: str, wait_s: float):
        self._connection, self._keys, self._service, self._prefix = connection, keys, service, prefix
        self._wait_s = wait_s
        self._directory = Directory()
        self._asked: float | None = None
        self._in_vain = False
        self._channel = connection.channel()
        queue = f"{queue_prefix}models.{secrets.token_hex(16)}"
        bounds = {
            "x-max-length": MAX_WAITING, "x-max-length-bytes": MAX_WAITING_BYTES, "x-message-ttl": MESSAGE_TTL_MS,
            "x-queue-type": "classic",
        }  # fmt: skip
        self._channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments=bounds)
        self._channel.queue_bind(queue, f"{prefix}.models", keys.tenant)
        self._channel.basic_consume(queue, self._on_announcement, auto_ack=True)

    def models(self) -> dict:
        """Asks the workers, waits for their answers, and tells what they serve, by name."""
        self._ask()
        until = time.monotonic() + self._wait_s
        while (left := until - time.monotonic()) > 0:
            self._connection.process_data_events(time_limit=left)
        return self._directory.models(time.monotonic())

    def refusal(self, model: str) -> str | None:
        """Why jobs for `model` are not sent; asks where it is not known to be served."""
        if self._directory.serves(model, time.monotonic()):
            return None
        fresh = self._asked is not None and time.monotonic() - self._asked < FRESH_S
        if not fresh and not self._in_vain:
            self._ask()
            until = time.monotonic() + self._wait_s
            while (left := until - time.monotonic()) > 0 and not self._directory.serves(model, time.monotonic()):
                self._connection.process_data_events(time_limit=left)
            # Where nobody answered once, nobody is waited for again; who begins to announce later is heard all the same.
            self._in_vain = not self._directory.anybody(time.monotonic())
        if self._in_vain and not self._directory.anybody(time.monotonic()):
            log.debug("no worker has said which models there are; the job is sent all the same")
        return self._directory.refusal(model, time.monotonic())

    def _ask(self) -> None:
        properties = pika.BasicProperties(
            type=TYPE_QUERY, app_id="inferq-python", headers={HEADER_TENANT: self._keys.tenant}
        )
        try:
            self._channel.basic_publish(f"{self._prefix}.queries", "query", b"", properties)
        except AMQPError as error:
            log.debug("no worker could be asked which models there are: %s", type(error).__name__)
        self._asked = time.monotonic()

    def _on_announcement(self, _channel, _method, _properties, body) -> None:
        try:
            plaintext, lifetime_s = open_announcement(self._keys, body, service=self._service)
            self._directory.hear(json.loads(plaintext), lifetime_s, time.monotonic())
        except (EnvelopeError, KeyError, TypeError, ValueError) as error:
            log.debug("an announcement was dropped: %s", error)
