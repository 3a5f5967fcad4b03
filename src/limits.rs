//! Every hard bound that no setting changes, with what they mean to each other checked at compile time.

use std::time::Duration;

/// Characters of a request's protected header, base64url.
pub const MAX_HEADER_CHARS: usize = 2_048;
/// Characters of a reply's protected header: it repeats the request's ids, and has its own id and the request's tag.
pub const MAX_REPLY_HEADER_CHARS: usize = MAX_HEADER_CHARS + 256;
/// Bytes of a header that the protocol knows, its name with it; a longer one is as good as none.
pub const MAX_KNOWN_HEADER_BYTES: usize = 600;
/// Bytes of all other headers that are taken over from a delivery.
pub const MAX_OTHER_HEADERS_BYTES: usize = 4 << 10;
/// Frames of a broker are at least as large, as `deploy/rabbitmq/inferq.conf` has it: all properties of a message have to fit into one,
/// also those of a dead letter or a retry, which have the job's headers and more.
pub const LEAST_FRAME_BYTES: usize = 16 << 10;
/// Characters of an id: message, correlation, tenant, key, model, queue.
pub const MAX_ID_CHARS: usize = 255;
/// What the binary framing of an envelope adds to its plaintext at most: magic, header length, header, encrypted key,
/// nonce and tag.
pub const ENVELOPE_OVERHEAD_BYTES: usize = 4 + 2 + MAX_HEADER_CHARS + 40 + 12 + 16;
/// Largest message body that a setting may allow. The broker has a bound of its own (`max_message_size`).
pub const MAX_BODY_BYTES: usize = 128 << 20;
/// Unexpired jobs that a worker remembers of one tenant, to tell a replay: 2,900 a second with lifetimes of 300 s. Each
/// takes about 100 bytes.
pub const MAX_REMEMBERED_JOBS: usize = 1 << 20;
/// Characters of a model's name: its queues' names have to fit into an id as well.
pub const MAX_MODEL_NAME_CHARS: usize = 64;
/// Axes of a tensor.
pub const MAX_RANK: usize = 8;
/// Elements of one BYTES tensor: each costs an allocation, however short it is.
pub const MAX_BYTES_ELEMENTS: usize = 65_536;
/// Inputs, and requested outputs, of one request.
pub const MAX_NAMED_TENSORS: usize = 64;
/// Content of a request up to which it is prepared on the async thread that has it: at 5 bytes a microsecond, which
/// is what tokenizing was measured at, under 500 us.
pub const INLINE_PREPARE_BYTES: usize = 2 << 10;
/// Body or plaintext up to which a job is opened and read on the async thread that has it: JSON is read at more than 150
/// bytes a microsecond, so that this stays under 500 us.
pub const INLINE_OPEN_BYTES: usize = 64 << 10;
/// Elements of a response up to which it is encoded on the async thread that has it: a number takes about 100 ns.
pub const INLINE_ENCODE_ELEMENTS: usize = 4 << 10;
/// Elements of a batch of rows up to which parts of them are taken away on the async thread that explains them: at 10 ns for
/// each, this stays under 500 us.
pub const INLINE_MASK_ELEMENTS: usize = 32 << 10;
/// Rows in a batch that a model may allow.
pub const MAX_BATCH_SIZE: usize = 1_024;
/// Tokens of a text that a model may take.
pub const MAX_TOKENS: usize = 65_536;
/// Compiled plans of one model: batch sizes are powers of two, lengths too where a graph cannot be left open.
pub const MAX_PLANS: usize = 32;
/// What the constants of a model's plans may weigh, beyond those for single rows: each plan of a convolution has packed
/// weights of its own. Ten plans of a ResNet-50, or all of a model of up to 8 MB.
pub const MAX_PLANS_BYTES: usize = 256 << 20;
/// How long a model is run at load to compile what batches take and to learn what they cost.
pub const WARM_UP: Duration = Duration::from_millis(500);
/// Between two compilations passes this many times what the first took: beside the jobs, compiling gets a quarter of a
/// thread at most, even where shapes come and go faster than plans are kept.
pub const COMPILE_REST: u32 = 3;
/// Pixels along a side of what a model of images takes.
pub const MAX_IMAGE_SIDE: usize = 4_096;
/// Bytes at either end of a file that a model of files may look at.
pub const MAX_FILE_BLOCK_BYTES: usize = 1 << 20;
/// Model runs that the explanation of one job may take.
pub const MAX_EXPLAIN_RUNS: usize = 4_096;
/// Aliases of one model.
pub const MAX_ALIASES: usize = 16;
/// Changes of a model's aliases that are remembered.
pub const MAX_ALIAS_HISTORY: usize = 16;
/// Memory that an embedding may take once it is multiplied with the weights of the LSTM behind it.
pub const MAX_FOLDED_EMBEDDING_BYTES: u64 = 256 << 20;
/// Bytes of a golden.json: two rows of a model of large images, as numbers.
pub const MAX_GOLDEN_FILE_BYTES: u64 = 32 << 20;
/// Bytes of a settings, key or model.toml file.
pub const MAX_TEXT_FILE_BYTES: u64 = 1 << 20;

/// How long a reply may lie in its queue and still be believed.
pub const REPLY_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Clock difference that a client allows between the worker and itself.
pub const CLIENT_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Folders below a key ring's own that are looked at for changes: the tenants', and the hidden ones of a mounted secret.
pub const MAX_KEYRING_DEPTH: u32 = 3;

/// How long a client's reply queue stays when nobody consumes it.
pub const REPLY_QUEUE_EXPIRES: Duration = Duration::from_secs(600);
/// Jobs of one client that may wait for their reply.
pub const MAX_PENDING_REPLIES: usize = 100_000;

/// Plaintext of an announcement; what is longer is shortened.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 256 << 10;
/// Body of an announcement: a third more in base64, with room for its header.
pub const MAX_ANNOUNCEMENT_BODY_BYTES: usize = MAX_ANNOUNCEMENT_BYTES / 3 * 4 + 4 * 1_024;
/// How long an announcement may hold.
pub const MAX_ANNOUNCEMENT_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// How long an announcement or a query waits for its reader.
pub const DISCOVERY_MESSAGE_TTL: Duration = Duration::from_secs(60);
/// Announcements that wait for one reader; beyond, the oldest go.
pub const MAX_WAITING_ANNOUNCEMENTS: u32 = 1_024;
/// Their bytes.
pub const MAX_WAITING_ANNOUNCEMENT_BYTES: u32 = 32 << 20;
/// Queries that wait for one worker; beyond, the oldest go: one is as good as another.
pub const MAX_WAITING_QUERIES: u32 = 64;
/// Pause between two answers of a worker to queries: those that come meanwhile are answered together.
pub const QUERY_ANSWER_PAUSE: Duration = Duration::from_millis(200);
/// How long a worker that stops takes for its goodbye at most.
pub const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// Workers whose announcements a client remembers.
pub const MAX_HEARD_WORKERS: usize = 4_096;
/// Names of models that a client remembers, alive or not.
pub const MAX_KNOWN_MODELS: usize = 16_384;
/// How long a client that has asked takes what it knows for all there is.
pub const DISCOVERY_FRESH: Duration = Duration::from_secs(1);

/// Publishes of one reply into a queue that refuses it.
pub const REFUSED_REPLY_TRIES: u32 = 3;
/// Pause between two of them.
pub const REFUSED_REPLY_PAUSE: Duration = Duration::from_millis(200);
/// First pause before what could not be confirmed for a job is published again; each further one is twice as long.
pub const REPUBLISH_PAUSE: Duration = Duration::from_millis(100);
/// Longest of these pauses.
pub const MAX_REPUBLISH_PAUSE: Duration = Duration::from_secs(5);
/// How long a worker may go without renewing its right to run a job, until another may run it: what a job that a worker died with
/// waits at most.
pub const SHARED_REPLAY_LEASE: Duration = Duration::from_secs(10);
/// How often is looked whether another worker has ended a job that came here as well.
pub const SHARED_REPLAY_POLL: Duration = Duration::from_millis(100);
/// How long the guard that workers share may take to answer, and pause before it is asked again.
pub const SHARED_REPLAY_LIMIT: Duration = Duration::from_secs(1);
/// How long a job is held for a guard that does not answer, before it goes round a retry queue.
pub const SHARED_REPLAY_PATIENCE: Duration = Duration::from_secs(5);
/// How long after a tenant's last job in a queue the others there keep to their shares of it.
pub const SHARED_QUEUE_MEMORY: Duration = Duration::from_secs(10);
/// Unsettled deliveries from which on a job is suspected of ending processes. One can happen to any job.
pub const SUSPECT_DELIVERIES: u32 = 2;
/// Workers that a suspect has to end in its own queue, until it is a dead letter. One or two can be killed for other reasons.
pub const SUSPECT_CRASHES: u32 = 3;
/// How long after the loss of a session, which this process has outlived, deliveries more are nobody's fault.
pub const SURVIVED_LOSS: Duration = Duration::from_secs(60);

/// How long queues that hand out one message at a time are left alone once they were found empty, and at the beginning.
pub const SINGLY_PAUSE: Duration = Duration::from_secs(1);
/// The same at the beginning, where there is no other work.
pub const SINGLY_IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Unsettled deliveries a consumer may have: quorum queues cap the prefetch here.
pub const MAX_PREFETCH: u16 = 2_000;
/// How often a worker looks whether its prefetch suits what it can do.
pub const PREFETCH_LOOK: Duration = Duration::from_secs(5);
/// How long another prefetch must be wanted before it is set.
pub const PREFETCH_HELD: Duration = Duration::from_secs(30);
/// The same where executors idle though the whole prefetch is in use.
pub const PREFETCH_STARVED: Duration = Duration::from_secs(5);
/// Publishes that wait for their confirm on one channel; more make lapin's bookkeeping slow.
pub const MAX_CONFIRMS_IN_FLIGHT: usize = 1_000;
/// Publishes decided together on one channel.
pub const MAX_PUBLISH_BATCH: usize = 256;
/// How long an acknowledgement may wait for its neighbours, to be sent as one with them.
pub const ACK_COALESCE: Duration = Duration::from_millis(10);

const _: () = assert!(MAX_MODEL_NAME_CHARS + 64 <= MAX_ID_CHARS, "a queue's name holds more than its model's");
const _: () = assert!(MAX_REPLY_HEADER_CHARS <= u16::MAX as usize, "the binary framing has two bytes for it");
const _: () = assert!(MAX_ID_CHARS < MAX_HEADER_CHARS, "an id must fit into a header");
const _: () = assert!(MAX_PUBLISH_BATCH <= MAX_CONFIRMS_IN_FLIGHT, "a batch is confirmed as a whole");
