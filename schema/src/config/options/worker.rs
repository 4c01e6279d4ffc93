//! Workers: their slots, addresses, batches and channels.

use std::time::Duration;

use crate::config::MemorySize;
use crate::config::option::{checks, options};
use crate::config::ports::PortRanges;
use crate::config::words::words;

words! {
    /// How records are compressed on their way between workers.
    ExchangeCompression {
        /// Not at all.
        None = "NONE",
        /// LZ4: cheap.
        Lz4 = "LZ4",
        /// Zstandard: smaller, dearer.
        Zstd = "ZSTD",
    }
}

options! {
    "Workers";

    /// Number of slots; each is one thread and a memory budget.
    WORKER_SLOTS: u32 = "worker.slots", default("1"), also(&["taskmanager.numberOfTaskSlots"]),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Memory that each slot gives to the executor of a job: one that wants more than the slots of its job give is ended, and its
    /// tasks fail. 0 does not limit it.
    WORKER_SLOT_MEMORY: MemorySize = "worker.slot.memory", default("0 bytes");

    /// Memory on the worker's disk for programs that no job uses any more; those unused for longest go first.
    WORKER_PROGRAMS_SIZE: MemorySize = "worker.programs.size", default("1 gb");

    /// Name of the worker. Not set: made of its address and a random part.
    WORKER_ID: Option<String> = "worker.id", also(&["taskmanager.resource-id"]);

    /// Host under which coordinators and other workers find this worker. Not set: found out when it registers.
    WORKER_HOST: Option<String> = "worker.host", also(&["taskmanager.host"]);

    /// Address on which the worker listens; 0.0.0.0 means all.
    WORKER_BIND_HOST: String = "worker.bind-host", default("127.0.0.1"), also(&["taskmanager.bind-host"]);

    /// Ports for control, of which the first free one is taken; 0 takes any.
    WORKER_PORT: PortRanges = "worker.port", default("0"), also(&["taskmanager.rpc.port"]);

    /// Ports for records between workers, of which the first free one is taken; 0 takes any.
    WORKER_DATA_PORT: PortRanges = "worker.data.port", default("0"), also(&["taskmanager.data.port"]);

    /// Most records in a batch, the unit that moves between operators.
    WORKER_BATCH_SIZE: u32 = "worker.batch.size", default("1024"),
        check(|records| (1..=1 << 20).contains(records), "a whole number from 1 to 1048576");

    /// Number of batches that a channel holds before its sender waits.
    WORKER_CHANNEL_CAPACITY: u32 = "worker.channel.capacity", default("8"),
        check(|batches| (1..=65_536).contains(batches), "a whole number from 1 to 65536");

    /// Bytes under way on a channel between two workers before its sender waits; one batch may go over it.
    WORKER_CHANNEL_BYTES: MemorySize = "worker.channel.bytes", default("1 mb"),
        check(|size| (1024..=1 << 30).contains(&size.bytes()), "a memory size from 1 kb to 1 gb");

    /// Compression of records between workers; batches that do not shrink are sent as they are. Flink's default is LZ4: it costs
    /// more time than it saves on networks of 10 Gbit/s and more.
    WORKER_CHANNEL_COMPRESSION: ExchangeCompression = "worker.channel.compression", default("NONE"),
        also(&["taskmanager.network.compression.codec"]);

    /// How long the main of a program may take, on a worker, from its start to the execution of the job, before it is killed and
    /// the tasks fail.
    WORKER_EXECUTOR_START_TIMEOUT: Duration = "worker.executor.start-timeout", default("1 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// How long a task tries to reach the host of another one, with the start of the other's process there, before it fails.
    WORKER_CHANNEL_CONNECT_TIMEOUT: Duration = "worker.channel.connect-timeout", default("1 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Memory for the results of a job's blocking edges on one worker, before they go to disk.
    WORKER_SPOOL_MEMORY: MemorySize = "worker.spool.memory", default("64 mb"),
        check(|size| size.bytes() >= 1 << 20, "a memory size of at least 1 mb");
}
