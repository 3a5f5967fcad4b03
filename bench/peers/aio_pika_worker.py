"""A worker by hand: aio-pika, onnxruntime in a thread beside the event loop, greedy batches of 32, acknowledged late.

Whatever has been delivered when the model is free is one batch; nothing waits for company.
"""

import asyncio
import os
import signal

import aio_pika
import orjson
import uvloop

from classifier import Classifier

QUEUE = "peers.aio_pika"
MAX_BATCH_SIZE = 32
# What runs and what comes next.
PREFETCH = 2 * MAX_BATCH_SIZE


async def main() -> None:
    """Consumes until SIGTERM."""
    classifier = Classifier()
    connection = await aio_pika.connect(os.environ["PEERS_AMQP_URL"])
    consuming = await connection.channel()
    # Without confirms a reply may get lost with its job: less safe than inferq, and less work.
    replying = await connection.channel(publisher_confirms=False)
    await consuming.set_qos(prefetch_count=PREFETCH)
    arguments = {"x-queue-type": os.environ["PEERS_QUEUE_TYPE"]}
    queue = await consuming.declare_queue(QUEUE, durable=True, arguments=arguments)
    waiting: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
    await queue.consume(waiting.put)
    serving = asyncio.create_task(serve(classifier, waiting, replying.default_exchange))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        await connection.close()


async def serve(classifier: Classifier, waiting: asyncio.Queue, replies: aio_pika.abc.AbstractExchange) -> None:
    """Batch after batch."""
    while True:
        batch = [await waiting.get()]
        while len(batch) < MAX_BATCH_SIZE and not waiting.empty():
            batch.append(waiting.get_nowait())
        answers = await asyncio.to_thread(run, classifier, batch)
        await asyncio.gather(*(answer(*pair, replies) for pair in zip(batch, answers, strict=True)))


def run(classifier: Classifier, batch: list[aio_pika.abc.AbstractIncomingMessage]) -> list[bytes]:
    """The bodies of the replies; runs beside the event loop."""
    texts = [orjson.loads(message.body)["text"] for message in batch]
    return [orjson.dumps(answer) for answer in classifier.run(texts)]


async def answer(message: aio_pika.abc.AbstractIncomingMessage, body: bytes, replies: aio_pika.abc.AbstractExchange) -> None:
    """The reply first, then the acknowledgement."""
    reply = aio_pika.Message(body, correlation_id=message.correlation_id)
    await replies.publish(reply, routing_key=message.reply_to, mandatory=False)
    await message.ack()


if __name__ == "__main__":
    uvloop.run(main())
