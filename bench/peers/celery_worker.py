"""Celery 5, prefork: one task a text, acknowledged late, its result sent to the caller's reply queue (rpc://)."""

import os

from celery import Celery
from celery.signals import worker_process_init
from kombu import Queue

from classifier import Classifier

QUEUE = "peers.celery"

app = Celery("peers", broker=os.environ["PEERS_AMQP_URL"], backend="rpc://")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=int(os.environ.get("PEERS_PREFETCH", "32")),
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
    task_queues=[Queue(QUEUE, durable=True, queue_arguments={"x-queue-type": os.environ["PEERS_QUEUE_TYPE"]})],
    task_default_queue=QUEUE,
)

classifier: Classifier | None = None


@worker_process_init.connect
def load(**_: object) -> None:
    """Loads the model in each process: a session does not survive a fork."""
    global classifier
    classifier = Classifier()


@app.task(name="classify")
def classify(text: str) -> dict:
    """One text to its topic."""
    return classifier.run([text])[0]
