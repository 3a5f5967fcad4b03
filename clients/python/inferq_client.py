"""A producer for inferq in Python: seal a job, publish it, read its reply. Needs pika and joserfc.

    with Client("amqp://guest:guest@127.0.0.1:5672/", Keys.load("keys", "acme")) as client:
        jobs = [client.submit("topic", text) for text in texts]
        for job in jobs:
            print(job.result(timeout=30).outputs["label"].data)

A client belongs to one thread, as pika's blocking connection does.
"""

import ipaddress
import json
import logging
import secrets
import ssl
import struct
import time
from dataclasses import dataclass, field

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

from inferq_discovery import Discovery
from inferq_envelope import HEADER_JSON_LENGTH, TYPE_REQUEST, EnvelopeError, Keys, Pending, open_reply, seal_request

__all__ = [
    "Client", "EnvelopeError", "Job", "JobFailed", "Keys", "NotAccepted", "Output", "Response", "UnknownModel", "text_request",
]  # fmt: skip

# The element types whose binary form is one struct format each; BYTES has a length before each element.
FORMATS = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H",
    "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
# Replies may wait this long for their reader before the broker deletes an abandoned reply queue.
REPLY_QUEUE_EXPIRES_MS = 600_000

log = logging.getLogger("inferq")


class JobFailed(Exception):
    """The service answered with an error. `code` is one of docs/errors.md."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NotAccepted(Exception):
    """The broker did not take the job: no worker serves the model, or its queue is full."""


class UnknownModel(NotAccepted):
    """Workers announce which models they serve, and this is none of them. The message names those that exist."""


@dataclass(frozen=True)
class Output:
    """A tensor of a response: its elements in row-major order. BYTES are str where they are UTF-8."""

    name: str
    datatype: str
    shape: list
    data: list


@dataclass(frozen=True)
class Response:
    """A prediction."""

    model_name: str
    model_version: str
    id: str | None
    parameters: dict
    outputs: dict


@dataclass
class Job:
    """A job that the broker has confirmed."""

    client: "Client"
    pending: Pending
    _answer: Response | JobFailed | None = field(default=None)

    @property
    def message_id(self) -> str:
        """The job's id: in the worker's logs, and on a dead letter."""
        return self.pending.message_id

    def done(self) -> bool:
        """Whether the reply is here, without waiting for it."""
        self.client._pump(0)
        return self._answer is not None

    def result(self, timeout: float | None = None) -> Response:
        """Waits for the reply. Raises JobFailed where the service answers an error, TimeoutError after `timeout` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._answer is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"no reply to job {self.message_id} within {timeout} s")
            self.client._pump(left)
        if isinstance(self._answer, JobFailed):
            raise self._answer
        return self._answer


def connection_parameters(amqp_url, ca_file=None, certificate_file=None, key_file=None, allow_plaintext=False):
    """Where the broker is and how it is spoken to. Beyond this machine that is amqps://, unless plaintext is allowed.

    With `ca_file` a broker is believed for that authority alone, else for those of the system.
    """
    parameters = pika.URLParameters(amqp_url)
    if parameters.ssl_options is None:
        if ca_file or certificate_file or key_file:
            raise ValueError("certificates are given, and the broker's URL does not begin with amqps://")
        if not allow_plaintext and not is_loopback(parameters.host):
            raise ValueError(
                f"the broker at {parameters.host} is beyond this machine and without TLS: use amqps://, or allow_plaintext"
            )
        return parameters
    context = ssl.create_default_context(cafile=ca_file)
    if certificate_file:
        context.load_cert_chain(certificate_file, key_file)
    parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    return parameters


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client:
    """Publishes jobs of one tenant and collects their replies on a queue of its own."""

    def __init__(
        self, amqp_url, keys: Keys, *, service="inferq.v1", prefix="inferq", reply_prefix=None, lifetime_s=300,
        ca_file=None, certificate_file=None, key_file=None, allow_plaintext=False, discovery_wait_s=0.5,
    ):  # fmt: skip
        """discovery_wait_s: how long workers are waited for to say which models there are; None for a client that does not ask."""
        self._keys = keys
        self._service = service
        self._prefix = prefix
        self._lifetime_s = lifetime_s
        self._waiting: dict[str, Job] = {}
        self._connection = pika.BlockingConnection(
            connection_parameters(amqp_url, ca_file, certificate_file, key_file, allow_plaintext)
        )
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        # The name must begin with the tenant's prefix; the queue must be bound to the exchange of replies.
        self.reply_queue = f"{reply_prefix or keys.tenant + '.'}replies.{secrets.token_hex(16)}"
        self._channel.queue_declare(self.reply_queue, durable=True, arguments={"x-expires": REPLY_QUEUE_EXPIRES_MS})
        self._channel.queue_bind(self.reply_queue, f"{prefix}.replies", self.reply_queue)
        self._channel.basic_consume(self.reply_queue, self._on_reply)
        self._discovery = None if discovery_wait_s is None else self._discover(reply_prefix or f"{keys.tenant}.", discovery_wait_s)

    def submit(self, model: str, text: str | list, *, deadline_s: float | None = None) -> Job:
        """Submits one text, or a list of texts as one job of as many rows."""
        texts = [text] if isinstance(text, str) else text
        return self.submit_body(model, json.dumps(text_request(texts)).encode(), deadline_s=deadline_s)

    def submit_body(
        self, model: str, body: bytes, *, json_length: int | None = None, deadline_s: float | None = None
    ) -> Job:
        """Submits a ready Open Inference Protocol v2 body; json_length where binary tensors follow its JSON.

        Raises UnknownModel where workers announce others, NotAccepted where the broker does not take the job.
        """
        refusal = None if self._discovery is None else self._discovery.refusal(model)
        if refusal is not None:
            raise UnknownModel(refusal)
        sealed = seal_request(
            self._keys, body, model=model, reply_to=self.reply_queue, json_length=json_length,
            service=self._service, lifetime_s=self._lifetime_s,
        )  # fmt: skip
        headers = dict(sealed.headers)
        if deadline_s is not None:
            headers["x-deadline-ms"] = int((time.time() + deadline_s) * 1000)
        properties = pika.BasicProperties(
            delivery_mode=2, type=TYPE_REQUEST, app_id="inferq-python", content_type=sealed.content_type,
            message_id=sealed.pending.message_id, correlation_id=sealed.pending.correlation_id,
            reply_to=sealed.pending.reply_to, timestamp=sealed.timestamp, headers=headers,
        )  # fmt: skip
        job = Job(self, sealed.pending)
        # Entered before it is published: its reply cannot come too early.
        self._waiting[job.pending.correlation_id] = job
        routing_key = model.split(":")[0]
        try:
            self._channel.basic_publish(f"{self._prefix}.jobs", routing_key, sealed.body, properties, mandatory=True)
        except (UnroutableError, NackError) as error:
            del self._waiting[job.pending.correlation_id]
            raise NotAccepted(f"the broker did not take the job for model {model}: {type(error).__name__}") from error
        return job

    def models(self) -> dict:
        """The models that workers serve for this tenant, by name, with versions and replicas; empty where none says so."""
        return {} if self._discovery is None else self._discovery.models()

    def close(self) -> None:
        """Deletes the reply queue and closes the connection."""
        if self._connection.is_open:
            self._channel.queue_delete(self.reply_queue)
            self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def _discover(self, queue_prefix: str, wait_s: float) -> Discovery | None:
        try:
            return Discovery(
                self._connection, self._keys, service=self._service, prefix=self._prefix, queue_prefix=queue_prefix, wait_s=wait_s
            )  # fmt: skip
        except AMQPError as error:
            # No worker has declared the exchange yet, or this user may not read it.
            log.debug("announcements cannot be heard, jobs are sent all the same: %s", error)
            return None

    def _pump(self, seconds: float | None) -> None:
        self._connection.process_data_events(time_limit=seconds)

    def _on_reply(self, channel, method, properties, body) -> None:
        # The correlation id only says where to look: whether it answers that job is decided by what is authenticated.
        job = self._waiting.get(properties.correlation_id)
        if job is None:
            log.debug("a reply came that no job waits for")
        else:
            try:
                plaintext, kind = open_reply(self._keys, job.pending, body, properties.content_type)
                length = (properties.headers or {}).get(HEADER_JSON_LENGTH) if kind == "x-tensor" else None
                job._answer = read_response(plaintext, length)
                del self._waiting[properties.correlation_id]
            except EnvelopeError as error:
                log.warning("a reply that is not authentic was dropped: %s", error)
        channel.basic_ack(method.delivery_tag)


def text_request(texts: list, *, request_id: str | None = None) -> dict:
    """The v2 request that classifies texts, one row each."""
    request = {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}
    return request if request_id is None else {"id": request_id, **request}


def read_response(plaintext: bytes, json_length: int | None = None) -> Response | JobFailed:
    """Reads a reply's plaintext: a prediction, or the error that the service answers."""
    end = len(plaintext) if json_length is None else json_length
    try:
        body = json.loads(plaintext[:end])
        if "error" in body:
            return JobFailed(body["code"], body["error"])
        outputs, tail = {}, plaintext[end:]
        for output in body["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                data = output["data"]
            else:
                data, tail = _binary_elements(output["datatype"], tail[:size]), tail[size:]
            outputs[output["name"]] = Output(output["name"], output["datatype"], output["shape"], data)
        return Response(body["model_name"], body["model_version"], body.get("id"), body.get("parameters", {}), outputs)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        # Authentic, and still unreadable: the job gets an answer either way.
        return JobFailed("UNREADABLE_REPLY", f"the reply is no v2 response: {type(error).__name__}")


def _binary_elements(datatype: str, raw: bytes) -> list:
    if datatype != "BYTES":
        form = FORMATS[datatype]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize('<' + form)}{form}", raw))
    elements, place = [], 0
    while place < len(raw):
        (size,) = struct.unpack_from("<I", raw, place)
        element = raw[place + 4 : place + 4 + size]
        if len(element) != size:
            raise ValueError("a BYTES element is cut short")
        elements.append(_text_or_bytes(element))
        place += 4 + size
    return elements


def _text_or_bytes(element: bytes) -> str | bytes:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element
