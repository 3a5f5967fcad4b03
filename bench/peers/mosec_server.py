"""mosec: an HTTP server in front of Python processes, with dynamic batches. No broker: what it holds dies with it."""

from mosec import Server, Worker

from classifier import Classifier

PROCESSES = 2
MAX_BATCH_SIZE = 32
# The shortest wait for company that mosec allows.
MAX_WAIT_MS = 1


class Topic(Worker):
    """One process that runs batches."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def forward(self, data: list[dict]) -> list[dict]:
        """A batch of `{"text"}` to as many answers."""
        return self.classifier.run([one["text"] for one in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Topic, num=PROCESSES, max_batch_size=MAX_BATCH_SIZE, max_wait_time=MAX_WAIT_MS)
    server.run()
