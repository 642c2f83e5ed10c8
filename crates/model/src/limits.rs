//! Every limit of the state machine, in one place. They are part of the rules: changing one changes what a log means,
//! so a change needs a new codec version.

use kit::Millis;

/// Bytes of one job's body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Jobs in one push, jobs handed out by one fetch, outcomes in one settle, leases in one renew.
pub const BATCH_MAX: usize = 10_000;
/// Queues named by one fetch.
pub const FETCH_QUEUES_MAX: usize = 256;
/// Queues of one shard.
pub const QUEUES_MAX: usize = 100_000;
/// Jobs of one shard, final ones included.
pub const JOBS_MAX: usize = 50_000_000;
/// Bytes of a queue's name.
pub const QUEUE_NAME_BYTES_MAX: usize = 128;
/// Bytes of a given job id, a unique key, an idempotency key, an actor.
pub const ID_BYTES_MAX: usize = 255;
/// Tags of one job, and bytes of one tag.
pub const TAGS_MAX: usize = 32;
/// Bytes of one tag, or of one meta key.
pub const TAG_BYTES_MAX: usize = 128;
/// Meta entries of one job.
pub const META_MAX: usize = 64;
/// Bytes of one meta value.
pub const META_VALUE_BYTES_MAX: usize = 4_096;
/// Attempts a job may have.
pub const ATTEMPTS_MAX: u32 = 10_000;
/// Entries of a backoff list.
pub const BACKOFF_LIST_MAX: usize = 100;
/// Bytes of a result, or of a progress value.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// Bytes of a progress value.
pub const PROGRESS_BYTES_MAX: usize = 16 << 10;
/// Log lines kept per job; the oldest go first.
pub const LOG_LINES_MAX: usize = 1_000;
/// Bytes of one log line; longer ones are cut at the edge.
pub const LOG_LINE_BYTES_MAX: usize = 4_096;
/// Bytes of log lines kept per job.
pub const LOG_BYTES_MAX: usize = 64 << 10;
/// Bytes of an error's kind, message and stack together.
pub const ERROR_BYTES_MAX: usize = 16 << 10;
/// Bytes of a dead process's stderr that a crash report keeps.
pub const CRASH_STDERR_BYTES_MAX: usize = 4 << 10;
/// Bytes of headers, result, error or progress that an event carries; what is larger stays with the job.
pub const EVENT_VALUES_BYTES_MAX: usize = 16 << 10;
/// History entries kept per job: the first 16 and the newest ones.
pub const HISTORY_MAX: usize = 256;
/// The longest lease and the longest attempt.
pub const LEASE_MS_MAX: Millis = 24 * 3_600_000;
/// The shortest lease.
pub const LEASE_MS_MIN: Millis = 100;
/// The longest wait of a debounced job that names none, in waits of its first push.
pub const DEBOUNCE_WAITS: u64 = 10;
/// Classes of errors remembered per queue; the least recent go first.
pub const ERROR_CLASSES_MAX: usize = 100;
/// Bytes of an error's message, and of one line of its stack, that its class looks at.
pub const ERROR_CLASS_BYTES_MAX: usize = 512;
/// How many queues a dead letter can go through from the one where it died first.
pub const DEAD_LETTER_HOPS_MAX: usize = 16;
/// Dead jobs, or deaths a minute, that an alert can wait for.
pub const ALERT_MAX: u64 = 1_000_000;
/// How many throttled unique keys are remembered.
pub const THROTTLES_MAX: usize = 1_000_000;
/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_MS: Millis = 24 * 3_600_000;
/// How many idempotency keys are remembered.
pub const IDEMPOTENCY_MAX: usize = 1_000_000;
/// The low bits of a lease's token count the leases of an epoch; the others are the epoch. A pond that was never restored counts on
/// from epoch 0. A million leases a second for ever stay below the seconds of the clock, and all of it below 2^53, where numbers in
/// JavaScript end.
pub const TOKEN_BITS: u32 = 20;
/// The last epoch of tokens: the year 2242.
pub const TOKEN_EPOCH_MAX: u64 = (1 << 33) - 1;
/// How many jobs one tick, or the prologue of one command, moves at most; the rest waits for the next tick.
pub const TICK_WORK_MAX: usize = 1_000;
/// Bulk operations under way at once.
pub const BULKS_MAX: usize = 256;
/// Bulk operations that have ended and can still be looked at.
pub const BULKS_KEPT: usize = 32;
/// Bulk operations move on at most once in this span of the log's time.
pub const BULK_EVERY_MS: Millis = 5;
/// The same while there are other commands, so that dispatch keeps its pace.
pub const BULK_EVERY_BUSY_MS: Millis = 50;
/// Jobs that all bulk operations together look at each time.
pub const BULK_WORK_MAX: usize = 1_000;
/// Jobs per second that an operation can be asked to change at most.
pub const BULK_RATE_MAX: u32 = 100_000;
/// States, tags or conditions on the body in one filter.
pub const FILTER_LIST_MAX: usize = 32;
/// Bytes of one text in a filter.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// Jobs named one by one in a remove, cancel, promote or redrive.
pub const SELECTION_MAX: usize = BATCH_MAX;
/// Jobs and joins of one graph.
pub const GRAPH_NODES_MAX: usize = BATCH_MAX;
/// Members that all joins of one graph name together.
pub const GRAPH_EDGES_MAX: usize = 5 * BATCH_MAX;
/// Bytes of a name in a graph.
pub const NODE_NAME_BYTES_MAX: usize = 128;
/// Members of one join, those added later included.
pub const JOIN_MEMBERS_MAX: usize = 100_000;
/// Joins that one job, or one join, is a member of.
pub const JOINS_PER_MEMBER_MAX: usize = 16;
/// Joins within joins.
pub const JOIN_DEPTH_MAX: usize = 16;
/// Joins of one shard, those that have ended and are still kept included.
pub const JOINS_MAX: usize = 1_000_000;
/// The largest result of a member that its join keeps; a larger one stays with the job.
pub const JOIN_RESULT_BYTES_MAX: usize = 16 << 10;
/// Bytes of results that one join keeps.
pub const JOIN_RESULTS_BYTES_MAX: usize = 1 << 20;
/// Bytes of a member's error that its join keeps.
pub const JOIN_ERROR_BYTES_MAX: usize = 1_024;
/// Members that are handed to a continuation, nested ones included; the others are read page by page.
pub const CHILDREN_MAX: usize = 1_000;
/// Bytes of results that are handed to a continuation.
pub const CHILDREN_BYTES_MAX: usize = 1 << 20;
/// A join that is open is sealed after this.
pub const JOIN_OPEN_MS: Millis = 24 * 3_600_000;
/// How long a join without a continuation is kept after its end. One with a continuation is kept as long as that job.
pub const JOIN_KEEP_MS: Millis = 24 * 3_600_000;
/// Limits a job counts against.
pub const JOB_LIMITS_MAX: usize = 16;
/// Units that one job takes of a limit.
pub const COST_MAX: u32 = 1_000_000;
/// Keys and patterns with a limit.
pub const LIMITS_MAX: usize = 10_000;
/// Weight of a group.
pub const GROUP_WEIGHT_MAX: u32 = 1_000;
/// Groups of one queue that have a weight or are paused.
pub const GROUPS_SET_MAX: usize = 10_000;
/// The longest span of a rate, of an aging step, of being told to wait: a year.
pub const SPAN_MS_MAX: Millis = 366 * 24 * 3_600_000;
/// Schedules of one shard.
pub const SCHEDULES_MAX: usize = 100_000;
/// Bytes of a schedule's id.
pub const SCHEDULE_ID_BYTES_MAX: usize = 128;
/// Bytes of the body of a schedule's job.
pub const SCHEDULE_BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of the bodies of all schedules of one shard.
pub const SCHEDULE_BODIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of a cron expression, or of a time zone's name.
pub const CRON_BYTES_MAX: usize = 255;
/// Bytes of a time zone's rules.
pub const ZONE_BYTES_MAX: usize = 16 << 10;
/// Different rules of time zones in one shard.
pub const ZONES_MAX: usize = 4_096;
/// The shortest interval of a schedule.
pub const SCHEDULE_INTERVAL_MS_MIN: Millis = 1_000;
/// The longest jitter of a schedule.
pub const SCHEDULE_JITTER_MS_MAX: Millis = 24 * 3_600_000;
/// Slots of one outage that fire at most.
pub const CATCH_UP_MAX: u32 = 1_000;
/// With catch-up `skip`, a slot that is later than this fires nothing.
pub const SLOT_LATE_MS_MAX: Millis = 60_000;
/// Slots of one schedule that wait for an earlier job to end; further ones are skipped.
pub const SCHEDULE_QUEUED_MAX: usize = 1_000;
/// Jobs of one schedule whose end it waits for, or that it cancels: the newest ones.
pub const SCHEDULE_LIVE_MAX: usize = 64;
/// Slots whose fate is kept with a schedule.
pub const SCHEDULE_FIRINGS_MAX: usize = 20;
/// Steps of one job.
pub const STEPS_MAX: usize = 1_000;
/// Bytes of a step's name, or of a signal's.
pub const STEP_NAME_BYTES_MAX: usize = 128;
/// Bytes of one step's result.
pub const STEP_BYTES_MAX: usize = 1 << 20;
/// Bytes of one job's steps, names included. A step is begun only below it, so what comes of the last one may pass it.
pub const STEPS_BYTES_MAX: u64 = 8 << 20;
/// Bytes of all steps and kept signals of a shard; they are held in memory until the retention of their jobs ends.
pub const STEPS_SHARD_BYTES_MAX: u64 = 2 << 30;
/// Signals kept for one job that does not wait for them yet.
pub const SIGNALS_MAX: usize = 100;
/// Bytes of one signal's body.
pub const SIGNAL_BYTES_MAX: usize = 64 << 10;
/// Bytes of the signals kept for one job, names included.
pub const SIGNALS_BYTES_MAX: u64 = 256 << 10;
/// How long a signal is waited for that does not say.
pub const SIGNAL_WAIT_MS_DEFAULT: Millis = 24 * 3_600_000;
/// The longest sleep of a job, and the longest wait for a signal: ten years.
pub const SUSPENSION_MS_MAX: Millis = 3_653 * 24 * 3_600_000;
/// Bytes of one encoded command.
pub const COMMAND_BYTES_MAX: usize = 32 << 20;
